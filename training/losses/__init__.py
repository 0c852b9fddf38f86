"""The training loss: `criterion.py` has its terms, `matcher.py` decides which query learns which mask."""

from training.losses.criterion import EBSegLoss
from training.losses.matcher import Target

__all__ = ["EBSegLoss", "Target"]
