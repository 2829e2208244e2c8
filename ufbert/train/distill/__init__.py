"""Dense BERT to UltraFastBERT: feed-forward layers replaced by trees and trained against the dense model.

Needs the extra ``train``. The data's path: `corpus` -> `teacher` -> `grow`, or `revive` for a model that was converted
before, then `local` -> `end_to_end` (both on `state`) -> `folder`.
"""

from .command import distill
from .recipe import Recipe

__all__ = ["Recipe", "distill"]
