"""Whole runs at a size where a step takes milliseconds: what is logged, left behind, and refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import EBSeg
from model.errors import CheckpointError
from model.network.build import build
from model.network.predictions import StagePredictions
from model.storage.checkpoint import Provenance, load, save
from model.vocabulary.classes import ClassName, TrainingClasses, Vocabulary
from tests.training.run.runs import log_of, micro_config, micro_run, write_dataset
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.samples import Samples, TrainingSample, loss_generators
from training.data.writing import write_sample
from training.errors import DatasetError, TrainingError
from training.losses.criterion import BatchTotals
from training.run.folder import STATE
from training.run.loss_module import ENCODERS, LossModule, start_model
from training.run.state import read_state
from training.run.trainer import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def weights(run: Path) -> dict[str, Tensor]:
    state = read_state(run)
    assert state is not None
    return state.part("model")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in log_of(run)]


# --- a run


def test_a_run_leaves_a_checkpoint_with_its_scores(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder, val_split="val", pictures_every=2, evaluate_every=2, ema=0.5, name="own")
    run = train(config, tmp_path / "run")
    found = {path.name for path in run.iterdir()}
    wanted = {"config.json", "data.json", "log.jsonl", "tensorboard", STATE, "checkpoint"}
    assert found == wanted | {"metrics.json", "evaluations.jsonl"}
    assert TrainConfig.from_dict(json.loads((run / "config.json").read_text())) == config
    assert [line["step"] for line in log_of(run)] == [1, 2, 3, 4]
    last = log_of(run)[-1]
    assert last["loss"] == pytest.approx(sum(last["terms"].values()))
    assert set(last["terms"]) == {"class_supervised", "class_mask_attention", "mask", "dice", "ssc"}
    assert last["learning_rate"] == pytest.approx(1e-3 * 0.25**0.9)
    assert last["gradient_norm"] > 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["step"] == 4
    assert metrics["pictures"] == 6
    loaded = load(run / "checkpoint")
    assert (loaded.manifest.name, loaded.manifest.version, loaded.manifest.untrained) == ("own", 1, False)
    assert loaded.manifest.parent == load(config.init or "").manifest.digest
    assert loaded.manifest.training["step"] == 4
    assert loaded.manifest.training["data"] == "data"
    assert loaded.manifest.training["init"] == "micro/1"
    assert loaded.metrics["miou_all"] == metrics["miou_all"]
    assert [item.name for item in loaded.ebseg.training_classes.classes] == ["red", "green", "blue"]


def test_the_checkpoint_holds_the_averaged_weights(folder: Path, tmp_path: Path) -> None:
    run = train(micro_run(folder, ema=0.5), tmp_path / "run")
    state = read_state(run)
    assert state is not None
    left = load(run / "checkpoint").ebseg.state_dict()
    for name, value in state.part("ema").items():
        assert torch.equal(left[name], value)
    assert not torch.equal(left["background"], state.part("model")["background"])


def test_only_what_is_to_be_trained_moves(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder)
    before = load(config.init or "").ebseg
    after = weights(train(config, tmp_path / "run"))
    trained = {name for name, x in before.named_parameters() if x.requires_grad}
    moved = {name for name, x in before.state_dict().items() if not torch.equal(x, after[name])}
    assert moved == trained
    whole = weights(train(micro_run(folder, train_backbone=True), tmp_path / "backbone"))
    moved = {name for name, x in before.state_dict().items() if not torch.equal(x, whole[name])}
    assert {"backbone.patch_embed.proj.weight", "backbone.blocks.0.attn.qkv.weight"} <= moved
    assert not any(name.startswith(("clip_text", "mask_attention")) for name in moved)


def test_a_fresh_decoder_keeps_the_encoders(folder: Path) -> None:
    config = micro_run(folder, fresh_decoder=True)
    classes = SegmentationFolder(config.data, "train").training_classes()
    old = load(config.init or "").ebseg.state_dict()
    new, parent = start_model(config, classes)
    assert parent is not None
    for name, value in new.state_dict().items():
        if name.startswith(ENCODERS):
            assert torch.equal(value, old[name])
    assert not torch.equal(new.background, old["background"])
    again, _ = start_model(config, classes)
    assert torch.equal(again.background, new.background)
    other, _ = start_model(dataclasses.replace(config, seed=1), classes)
    assert not torch.equal(other.background, new.background)


def test_fine_tuning_keeps_what_was_trained(folder: Path, tmp_path: Path) -> None:
    """Of a trained checkpoint the classes stay trained; not if its decoder is left, or they are to go."""
    data = str(write_dataset(tmp_path / "data"))
    old = TrainingClasses.of(["cat", ClassName(name="grass", synonyms=("lawn", "green"))])
    init = tmp_path / "old" / "1"
    save(build(micro_config(), old, seed=5), init, Provenance(name="old", version=1, untrained=False))
    config = micro_run(folder, data=data, init=str(init), steps=2)
    run = train(config, tmp_path / "run", max_steps=1)
    run = train(config, run)
    found = load(run / "checkpoint").ebseg.training_classes
    assert [item.name for item in found.classes] == ["cat", "grass", "red", "blue"]
    assert found.classes[1].synonyms == ("lawn", "green")
    assert found.matches(Vocabulary.of(["cat", "lawn", "blue", "yellow"])) == [True, True, True, False]
    forgetful = dataclasses.replace(config, forget=True)
    for other in (forgetful, dataclasses.replace(config, fresh_decoder=True)):
        again = train(other, tmp_path / ("forgetful" if other is forgetful else "fresh"))
        known = load(again / "checkpoint").ebseg.training_classes
        assert [item.name for item in known.classes] == ["red", "green", "blue"]


def test_a_given_model_is_trained(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder)
    classes = SegmentationFolder(config.data, "train").training_classes()
    own = build(micro_config(), classes, seed=77)
    start = own.background.detach().clone()
    run = train(config, tmp_path / "run", model=own, max_steps=1)
    assert not torch.equal(own.background, start)
    assert torch.equal(weights(run)["background"], own.background)


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    config = micro_run(
        folder, steps=60, batch=4, color_jitter=False, flip=False, short_sides=(64,), learning_rate=3e-3
    )
    found = losses(train(config, tmp_path / "run"))
    assert sum(found[-5:]) < 0.7 * sum(found[:5])


# --- equal batches, however they are taken


def micro_batch(folder: Path) -> tuple[LossModule, list[TrainingSample]]:
    config = micro_run(folder, batch=4, workers=0)
    data = SegmentationFolder(config.data, "train")
    ebseg, _ = start_model(config, data.training_classes())
    with torch.no_grad():
        text = ebseg.encode_text([item.name for item in data.training_classes().classes])
    with Samples(data, config).batches(0, slice(None)) as batches:
        return LossModule(ebseg, text, config), next(batches)


def gradient(loss_module: LossModule, parts: list[list[TrainingSample]]) -> tuple[float, Tensor]:
    device = torch.device("cpu")
    totals = BatchTotals.of([sample.target for part in parts for sample in part], 8, device)
    loss_module.zero_grad()
    loss = 0.0
    for part in parts:
        images = torch.stack([sample.picture for sample in part])
        targets = [sample.target for sample in part]
        total, _ = loss_module(images, targets, loss_generators(part, 0, device), totals)
        total.backward()
        loss += total.item()
    return loss, torch.cat([x.grad.flatten() for x in loss_module.parameters() if x.grad is not None])


def test_parts_add_up_to_the_batch(folder: Path) -> None:
    """Uneven parts too: the pictures have other numbers of masks."""
    loss_module, batch = micro_batch(folder)
    assert len({len(sample.target.labels) for sample in batch}) > 1
    loss, whole = gradient(loss_module, [batch])
    for parts in ([batch[:2], batch[2:]], [batch[:1], batch[1:]], [[sample] for sample in batch]):
        other, added = gradient(loss_module, parts)
        assert other == pytest.approx(loss, rel=1e-5)
        assert (added - whole).norm() <= 1e-4 * whole.norm()


def test_accumulation_is_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    whole = losses(train(micro_run(folder, batch=4), tmp_path / "whole"))
    parts = losses(train(micro_run(folder, batch=4, accumulate=4), tmp_path / "parts"))
    assert parts == pytest.approx(whole, rel=1e-3)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)


# --- number types and compilation


def test_bfloat16_is_near_float32(folder: Path, tmp_path: Path) -> None:
    full = losses(train(micro_run(folder), tmp_path / "full"))
    half = losses(train(micro_run(folder, amp="bfloat16"), tmp_path / "half"))
    assert half[0] == pytest.approx(full[0], rel=0.03)
    assert half[0] != full[0]
    stored = weights(tmp_path / "half")
    assert all(x.dtype == torch.float32 for x in stored.values() if x.is_floating_point())


def test_float16_scales_its_gradients(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder, amp="float16", steps=3)
    run = train(config, tmp_path / "run", max_steps=2)
    state = read_state(run)
    assert state is not None
    assert state.scaler["scale"] > 0
    full = losses(train(micro_run(folder), tmp_path / "full", max_steps=1))
    assert losses(run)[0] == pytest.approx(full[0], rel=0.01)
    assert len(losses(train(config, run))) == 3


def test_compilation_is_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", note)
    train(micro_run(folder, steps=1), tmp_path / "plain")
    assert compiled == []
    train(micro_run(folder, steps=1, compile=True), tmp_path / "compiled")
    assert compiled == ["stages"]


# --- what stops a run


@pytest.fixture
def with_white_picture(tmp_path: Path) -> Path:
    """A data set whose fourth picture is white."""
    data = write_dataset(tmp_path / "data")
    white = torch.full((64, 64, 3), 255, dtype=torch.uint8).numpy()
    write_sample(data, "train", "white", white, torch.zeros(64, 64, dtype=torch.int64).numpy())
    return data


def spoil(monkeypatch: pytest.MonkeyPatch, how: Callable[[Tensor], Tensor]) -> None:
    """Has the last stage's masks of a white picture go through `how`."""
    stages = EBSeg.stages

    def spoiled(self: EBSeg, images: Tensor) -> list[StagePredictions]:
        found = stages(self, images)
        pictures = zip(images, found[-1].mask_logits.split(1), strict=True)
        masks = torch.cat([how(x) if (image == 255).all() else x for image, x in pictures])
        last = dataclasses.replace(found[-1], mask_logits=masks)
        return [*found[:-1], last]

    monkeypatch.setattr(EBSeg, "stages", spoiled)


class NoGradient(torch.autograd.Function):
    """The identity, whose gradient is not a number."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


@pytest.mark.parametrize(
    ("how", "what", "where"),
    [
        (lambda x: x * torch.inf, "the loss is not finite", r"white \(.*mask/3"),
        (NoGradient.apply, "the gradient is not finite", r"white \(gradient of "),
    ],
)
def test_no_number_stops_the_run_and_names_the_picture(
    folder: Path,
    tmp_path: Path,
    with_white_picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[Tensor], Tensor],
    what: str,
    where: str,
) -> None:
    spoil(monkeypatch, how)
    config = micro_run(
        folder, data=str(with_white_picture), color_jitter=False, short_sides=(64,), steps=9, save_every=1
    )
    with pytest.raises(TrainingError, match=f"{what}.*taken alone, these fail: {where}") as caught:
        train(config, tmp_path / "run")
    order = Samples(SegmentationFolder(config.data, "train"), config)
    names = [order.dataset.names[order.index(number)] for number in range(18)]
    step = names.index("white") // 2 + 1
    reported = str(caught.value)
    assert reported.startswith(f"step {step}: ")
    assert reported.count("white (") == 1
    assert f"Images of the batch: {', '.join(names[2 * step - 2 : 2 * step])}." in reported
    assert len(log_of(tmp_path / "run")) == step - 1
    state = read_state(tmp_path / "run") if step > 1 else None
    assert state is None or (
        state.step == step - 1 and all(x.isfinite().all() for x in state.tensors.values())
    )


def test_what_cannot_be_trained_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    config = micro_run(folder)
    with pytest.raises(TrainingError, match=r"there is no variant 'huge'; known are .*tiny"):
        train(dataclasses.replace(config, init=None, variant="huge"), tmp_path / "1")
    with pytest.raises(CheckpointError, match="is not a folder"):
        train(dataclasses.replace(config, init=str(tmp_path / "none")), tmp_path / "2")
    with pytest.raises(DatasetError, match="is missing"):
        train(dataclasses.replace(config, train_split="practice"), tmp_path / "3")
    with pytest.raises(DatasetError, match="is missing"):
        train(dataclasses.replace(config, val_split="practice"), tmp_path / "4")


def test_an_unreadable_picture_stops_the_run(folder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "images" / "train" / "train3.jpg").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"train3\.jpg cannot be read"):
        train(micro_run(folder, data=str(data), batch=6), tmp_path / "run")
