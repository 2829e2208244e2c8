"""XLM-RoBERTa, as Hugging Face's transformers store it: RoBERTa for a hundred languages. arXiv 1911.02116."""

from __future__ import annotations

from .roberta import family

__all__ = ["FAMILY"]

FAMILY = family("xlm_roberta", "xlm-roberta", "XLMRoberta", "XLMRobertaTokenizer")
