"""CamemBERT, as Hugging Face's transformers store it: RoBERTa for French. arXiv 1911.03894."""

from __future__ import annotations

from .roberta import family

__all__ = ["FAMILY"]

FAMILY = family("camembert", "camembert", "Camembert", "CamembertTokenizer")
