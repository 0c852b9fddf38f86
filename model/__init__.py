"""EBSeg: open-vocabulary semantic segmentation with image embedding balancing (CVPR 2024).

The model, its vocabularies and its checkpoints; knows neither the service nor the training.
"""

from model.balance import Balance, Weights
from model.build import build
from model.config import VARIANTS, EBSegConfig
from model.ebseg import EBSeg, MaskPredictions, StagePredictions
from model.errors import CheckpointError, ModelError, PictureError, VocabularyError
from model.segmenter import LabelMap, Segmenter
from model.vocabulary import ClassName, TrainingClasses, Vocabulary

__all__ = [
    "VARIANTS",
    "Balance",
    "CheckpointError",
    "ClassName",
    "EBSeg",
    "EBSegConfig",
    "LabelMap",
    "MaskPredictions",
    "ModelError",
    "PictureError",
    "Segmenter",
    "StagePredictions",
    "TrainingClasses",
    "Vocabulary",
    "VocabularyError",
    "Weights",
    "build",
]
