"""EBSeg: open-vocabulary semantic segmentation with image embedding balancing (CVPR 2024).

The model, its vocabularies and its checkpoints; knows neither the service nor the training.
Names are loaded when they are asked for: `ebseg --help` must not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.errors import CheckpointError, ModelError, PictureError, VocabularyError
    from model.network.balance import Balance, Weights
    from model.network.config import VARIANTS, EBSegConfig
    from model.network.ebseg import EBSeg
    from model.network.label_map import LabelMap
    from model.network.predictions import MaskPredictions, StagePredictions
    from model.segmenter import Segmenter
    from model.vocabulary.classes import ClassName, TrainingClasses, Vocabulary

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
]

_HOMES = {
    "network.balance": ("Balance", "Weights"),
    "network.config": ("VARIANTS", "EBSegConfig"),
    "network.ebseg": ("EBSeg",),
    "network.predictions": ("MaskPredictions", "StagePredictions"),
    "errors": ("CheckpointError", "ModelError", "PictureError", "VocabularyError"),
    "network.label_map": ("LabelMap",),
    "segmenter": ("Segmenter",),
    "vocabulary.classes": ("ClassName", "TrainingClasses", "Vocabulary"),
}


if not TYPE_CHECKING:  # a type checker would take any name for known

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(f"model.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
