import pytest
import torch
from torch import nn

from model import EBSeg, TrainingClasses
from model.network.build import build
from tests.training.run.runs import micro_config
from training.run.ema import Ema


def test_formula() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    ema = Ema({"w": weight}, 0.9)
    assert ema.shadow["w"].tolist() == [1, 2]
    expected = torch.tensor([1.0, 2.0])
    for step in range(5):
        with torch.no_grad():
            weight.add_(step)
        ema.update()
        expected = 0.9 * expected + 0.1 * weight.detach()
    assert ema.shadow["w"].tolist() == pytest.approx(expected.tolist())
    assert not ema.shadow["w"].requires_grad


def test_applied_and_taken_back() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(3.0)
    ema.update()
    before = weight._version
    with ema.applied():
        assert weight.item() == 2
        assert weight._version > before
    assert weight.item() == 3
    with pytest.raises(RuntimeError, match="stop"), ema.applied():
        raise RuntimeError("stop")
    assert weight.item() == 3
    assert ema.shadow["w"].item() == 2


def test_load() -> None:
    ema = Ema({"w": nn.Parameter(torch.tensor([1.0]))}, 0.5)
    ema.load({"w": torch.tensor([7.0])})
    assert ema.shadow["w"].item() == 7


def test_the_models_position_tables_follow() -> None:
    """Tables resized for a picture's shape are kept by the model; they have to notice the averages."""
    ebseg: EBSeg = build(micro_config(), TrainingClasses.of(["a"]), seed=0)
    images = torch.randint(0, 256, (1, 3, 96, 64), dtype=torch.uint8)
    trained = {name: x for name, x in ebseg.named_parameters() if x.requires_grad}
    ema = Ema(trained, 0.5)
    at_start = ebseg.predict(images).mask_logits
    with torch.no_grad():
        ebseg.backbone.get_parameter("pos_embed").add_(1.0)
        ebseg.clip_image.positional_embedding.add_(1.0)
    moved = ebseg.predict(images).mask_logits
    with ema.applied():
        averaged = ebseg.predict(images).mask_logits
    assert torch.equal(averaged, at_start)
    assert not torch.equal(moved, at_start)
    assert torch.equal(ebseg.predict(images).mask_logits, moved)
