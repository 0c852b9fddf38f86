"""The table of released models tells what their configurations are."""

import torch

from model.commands.choosing import MODEL_HELP
from model.commands.pull import LIKE
from model.network.build import build
from model.network.config import VARIANTS
from model.released.known import RELEASED, released_model
from model.vocabulary.classes import TrainingClasses, Vocabulary


def test_the_table_fits_the_models() -> None:
    assert tuple(RELEASED) == LIKE
    for name, model in RELEASED.items():
        assert name in MODEL_HELP
        assert released_model(name) is released_model(model.checkpoint) is model
        assert {*model.miou} <= {*Vocabulary.builtin_names()}
        with torch.device("meta"):
            ebseg = build(VARIANTS[name], TrainingClasses.coco_stuff(), seed=None)
        assert sum(parameter.numel() for parameter in ebseg.parameters()) == model.parameters
        assert VARIANTS[name].short_side == model.short_side
    assert released_model("tiny") is None
