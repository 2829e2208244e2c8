"""Text in, arrays and labels out."""

from .fill_mask import FillMask
from .question_answerer import QuestionAnswerer
from .sentence_encoder import SentenceEncoder
from .text_classifier import TextClassifier
from .token_classifier import TokenClassifier

__all__ = ["FillMask", "QuestionAnswerer", "SentenceEncoder", "TextClassifier", "TokenClassifier"]
