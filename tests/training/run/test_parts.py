"""What is trained and how fast: rates of parts, low-rank updates of CLIP, activations computed twice."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.network.build import build
from model.network.ebseg import EBSeg
from model.network.sam_encoder import SamEncoder
from model.storage.checkpoint import load
from model.vocabulary.classes import TrainingClasses
from tests.training.run.runs import CLASSES, log_of, micro_config, micro_run
from training.config import TrainConfig
from training.errors import TrainingError
from training.run import lora
from training.run.optim import build_optimizer, set_learning_rate
from training.run.parts import prepare
from training.run.state import read_state
from training.run.trainer import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def ebseg() -> EBSeg:
    return build(micro_config(), TrainingClasses.of(CLASSES[:3]), seed=2)


def weights(run: Path, part: str = "model") -> dict[str, Tensor]:
    state = read_state(run)
    assert state is not None
    return state.part(part)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in log_of(run)]


def updates(ebseg: EBSeg) -> lora.Lora:
    found = ebseg.get_submodule(lora.NAME)
    assert isinstance(found, lora.Lora)
    return found


def moved(config: TrainConfig, run: Path) -> set[str]:
    """First names of the tensors that a run changes."""
    before, after = load(config.init or "").ebseg.state_dict(), weights(run)
    return {name.partition(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}


# --- rates


def test_parts_are_frozen_and_freed(folder: Path, tmp_path: Path) -> None:
    frozen = micro_run(folder, steps=2, rates=("pixel_decoder=0", "clip_image=0", "backbone=0"))
    run = train(frozen, tmp_path / "frozen")
    assert moved(frozen, run) == {"fusion", "transformer_decoder", "background"}
    freed = micro_run(folder, steps=2, rates=("backbone=0.1", "backbone.blocks.0=0", "mask_attention=0.5"))
    run = train(freed, tmp_path / "freed")
    assert {"backbone", "mask_attention", "pixel_decoder", "clip_image"} <= moved(freed, run)
    before, after = load(freed.init or "").ebseg.state_dict(), weights(run)
    for name, still in (
        ("backbone.blocks.0.attn.qkv.weight", True),
        ("backbone.blocks.1.attn.qkv.weight", False),
    ):
        assert torch.equal(before[name], after[name]) is still


def test_a_part_has_its_own_rate(ebseg: EBSeg) -> None:
    config = TrainConfig(data="d", variant="tiny", rates=("backbone=0.1", "fusion=3"), learning_rate=1e-3)
    prepare(ebseg, config)
    optimizer, names = build_optimizer(ebseg, config)
    set_learning_rate(optimizer, 2e-3)
    rates = [group["lr"] for group in optimizer.param_groups for _ in group["params"]]
    by_name = dict(zip(names, rates, strict=True))
    assert by_name["backbone.blocks.0.attn.qkv.weight"] == pytest.approx(2e-4)
    assert by_name["background"] == 2e-3
    fusion = [rate for name, rate in by_name.items() if name.startswith("fusion")]
    assert len(fusion) > 3
    assert fusion == pytest.approx([6e-3] * len(fusion))
    for group in optimizer.param_groups:
        assert group["weight_decay"] in (0.0, config.weight_decay)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rates": ("head=1",)}, "the model has no part 'head'; it has .*backbone"),
        ({"rates": ("back=1",)}, "the model has no part 'back'"),
        ({"rates": ("clip_text=1",)}, "clip_text is never trained"),
        ({"rates": ("clip_image=1",), "lora_rank": 2}, "clip_image is trained by lora_rank already"),
        ({"lora_rank": 33}, "lora_rank must be at most CLIP's width, 32, got 33"),
    ],
)
def test_what_a_model_cannot(ebseg: EBSeg, fields: dict[str, object], message: str) -> None:
    config = TrainConfig.from_dict(
        {"data": "d", "variant": "tiny"}
        | {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    )
    with pytest.raises(TrainingError, match=message):
        prepare(ebseg, config)


@pytest.mark.parametrize(
    "rate", ["backbone", "backbone=", "=1", "backbone=-1", "backbone=inf", "backbone=nan"]
)
def test_wrong_rates(rate: str) -> None:
    with pytest.raises(TrainingError, match="must be PART=FACTOR"):
        TrainConfig(data="d", variant="tiny", rates=(rate,))
    with pytest.raises(TrainingError, match="each part once"):
        TrainConfig(data="d", variant="tiny", rates=("fusion=1", "fusion=2"))
    with pytest.raises(TrainingError, match="lora_rank does not go with compile"):
        TrainConfig(data="d", variant="tiny", lora_rank=2, compile=True)


# --- low-rank updates


def test_updates_start_as_nothing_and_are_merged(ebseg: EBSeg) -> None:
    images = torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    plain = ebseg.state_dict()
    with torch.no_grad():
        before = ebseg.stages(images)[-1].mask_attention
        lora.install(ebseg, 3, seed=0)
        with lora.active(ebseg):
            assert torch.equal(ebseg.stages(images)[-1].mask_attention, before)
        for up in updates(ebseg).up:
            up.copy_(0.3 * torch.randn(up.shape, generator=torch.Generator().manual_seed(2)))
        with lora.active(ebseg):
            updated = ebseg.stages(images)[-1].mask_attention
        assert (updated - before).abs().max() > 1e-3
        with lora.merged(ebseg):
            assert ebseg.state_dict().keys() == plain.keys()
            assert torch.equal(ebseg.stages(images)[-1].mask_attention, updated)
        assert torch.equal(ebseg.stages(images)[-1].mask_attention, before)


def test_only_queries_and_values_are_updated(ebseg: EBSeg) -> None:
    lora.install(ebseg, 2, seed=0)
    with torch.no_grad():
        for up in updates(ebseg).up:
            up.fill_(1.0)
    weight = ebseg.get_parameter("clip_image.blocks.1.attn.in_proj_weight")
    before = weight.detach().clone()
    with lora.merged(ebseg):
        change = (weight - before).chunk(3)
    assert [bool((rows != 0).any()) for rows in change] == [True, False, True]


def test_a_run_with_updates_goes_on_and_leaves_a_plain_checkpoint(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder, lora_rank=2, ema=0.5, steps=4, val_split="val", evaluate_every=2)
    whole = train(config, tmp_path / "whole")
    run = train(config, tmp_path / "pieces", max_steps=1)
    train(config, run)
    assert losses(run) == losses(whole)
    state = weights(run)
    ups = [x for name, x in state.items() if name.startswith("lora.up")]
    assert len(ups) == 4
    assert all(up.abs().sum() > 0 for up in ups)
    start = load(config.init or "").ebseg.state_dict()
    left = load(run / "checkpoint").ebseg
    name = "clip_image.blocks.0.attn.in_proj_weight"
    assert torch.equal(state[name], start[name])  # while the run goes on they stay apart
    averages = weights(run, "ema")
    assert left.state_dict().keys() == start.keys()
    queries, values = averages["lora.up.0"] @ averages["lora.down.0"]
    wanted = start[name] + torch.cat([queries, torch.zeros_like(values), values])
    assert torch.equal(left.state_dict()[name], wanted)


# --- activations computed twice


def test_activation_checkpointing_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = micro_run(folder, train_backbone=True)
    plain = train(config, tmp_path / "plain", max_steps=2)
    again = dataclasses.replace(config, activation_checkpointing=True)
    for run in (train(again, tmp_path / "again", max_steps=2), plain):
        train(again, run)  # a run may begin with it while it goes on
    assert losses(tmp_path / "again") == losses(plain)
    ours, theirs = weights(tmp_path / "again"), weights(plain)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def kept_bytes(ebseg: EBSeg) -> int:
    """What SAM keeps for the backward pass."""
    seen: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    own = {x.untyped_storage().data_ptr() for x in ebseg.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outputs = ebseg.backbone(torch.zeros(1, 3, 128, 128))
    assert all(x.requires_grad for x in outputs)
    return sum(size for place, size in seen.items() if place not in own)


def test_activation_checkpointing_keeps_less(ebseg: EBSeg) -> None:
    ebseg.train()
    whole = kept_bytes(ebseg)
    backbone = ebseg.backbone
    assert isinstance(backbone, SamEncoder)
    backbone.recompute = True
    assert kept_bytes(ebseg) < whole / 5
