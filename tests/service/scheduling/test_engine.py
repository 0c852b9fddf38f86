"""TorchEngine on an untrained tiny model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.errors import CheckpointError, ModelError
from model.network.build import build
from model.network.config import VARIANTS
from model.network.device import number_type
from model.storage import golden
from model.storage.checkpoint import Provenance, save
from model.storage.manifest import MANIFEST, Manifest
from model.vocabulary.classes import TrainingClasses, Vocabulary
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, Job, unit_rows
from service.scheduling.torch_engine import TorchEngine, device_names, load_engine
from service.settings import SettingsError

VOCABULARY = Vocabulary.of(["sky", "tree"])
SIZE = (40, 60)


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Iterator[TorchEngine]:
    loaded = load_engine(tiny_checkpoint)
    yield loaded
    loaded.close()


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)


def job(engine: Engine, *, scores: bool = False, threshold: float = 0.0) -> Job:
    return Job(
        engines=(engine,),
        prepared=None,
        prediction=None,
        vocabulary=VOCABULARY,
        text=unit_rows(engine.embed(VOCABULARY.names, VOCABULARY.templates)),
        output_size=SIZE,
        threshold=threshold,
        balance=None,
        scores=scores,
        deadline=Deadline(60),
    )


def test_it_answers_as_the_segmenter_does(engine: TorchEngine) -> None:
    prepared = engine.prepare(picture())
    assert prepared.shape == (192, 288)
    assert prepared.cost == engine.cost(SIZE) == 192 * 288
    (prediction,) = engine.predict([prepared])
    result = engine.classify(prediction, job(engine, scores=True))
    alone = engine.segmenter.segment(picture(), VOCABULARY)
    assert (result.labels == alone.labels).all()
    assert (result.confidence == alone.confidence).all()
    assert result.scores is not None
    assert result.scores.dtype == np.float16
    assert (result.scores.argmax(0) + 1 == alone.labels).mean() > 0.99
    assert result.trained == [True, True]
    assert result.seconds["classify"] > 0


def test_pictures_of_a_batch_answer_as_alone_and_own_their_memory(engine: TorchEngine) -> None:
    prepared = [engine.prepare(picture(seed)) for seed in range(3)]
    together = engine.predict(prepared)
    for one, own in zip(prepared, together, strict=True):
        (alone,) = engine.predict([one])
        first, second = (engine.classify(each, job(engine)) for each in (own, alone))
        assert (first.labels == second.labels).all()
        assert (first.confidence == second.confidence).all()
        assert own.masks.mask_logits.untyped_storage().nbytes() == own.masks.mask_logits.nbytes
    queries, width = together[0].masks.frozen.shape[1:]
    assert together[0].nbytes == 4 * queries * (192 // 4 * 288 // 4 + 3 * width)


def test_a_threshold_makes_other(engine: TorchEngine) -> None:
    (prediction,) = engine.predict([engine.prepare(picture())])
    assert (engine.classify(prediction, job(engine, threshold=1.0)).labels == 0).all()


def test_text_embeddings_are_unit_rows_on_the_cpu(engine: TorchEngine) -> None:
    text = unit_rows(engine.embed(["sky", "a tree"], ["a {}.", "{}"]))
    assert torch.equal(text, engine.segmenter.ebseg.encode_text(["sky", "a tree"], ["a {}.", "{}"]))
    assert text.shape == (2, VARIANTS["tiny"].clip.joint_width)
    assert text.dtype == torch.float32
    assert text.is_contiguous()
    assert torch.allclose(text.norm(dim=1), torch.ones(2), atol=1e-6)


def test_the_text_digest_goes_with_the_text_tower_alone(engine: TorchEngine, tmp_path: Path) -> None:
    other = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    with torch.no_grad():
        other.background.add_(1.0)
    save(other, tmp_path / "2", Provenance(name="ebseg-tiny", version=2, untrained=True))
    same = load_engine(tmp_path / "2")
    assert same.text_digest == engine.text_digest
    assert same.info.digest != engine.info.digest
    with torch.no_grad():
        other.clip_text.positional_embedding[0, 0] += 1.0
    save(other, tmp_path / "3", Provenance(name="ebseg-tiny", version=3, untrained=True))
    assert load_engine(tmp_path / "3").text_digest != engine.text_digest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_served_as_it_says(tiny_checkpoint: Path, dtype: str) -> None:
    try:
        number_type(dtype, torch.device("cpu"))
    except ModelError:  # the processor of this machine has no units for it
        with pytest.raises(SettingsError, match="bfloat16 is emulated on this processor"):
            load_engine(tiny_checkpoint, device="cpu", dtype=dtype)
        return
    loaded = load_engine(tiny_checkpoint, device="cpu", dtype=dtype)
    info = loaded.info
    expected = ("ebseg-tiny", 1, True, "tiny", "cpu", dtype)
    assert (info.name, info.version, info.untrained, info.variant, info.device, info.dtype) == expected
    assert info.balance == loaded.segmenter.ebseg.config.balance
    loaded.warm((192, 192))
    loaded.close()
    with pytest.raises(RuntimeError, match="ebseg-tiny/1 is closed"):
        loaded.predict([])


def test_a_text_tower_that_is_not_the_manifests(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = Manifest.from_json((tmp_path / MANIFEST).read_bytes())
    values = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    forged = Manifest(**{**values, "text_digest": "0" * 64})
    (tmp_path / MANIFEST).write_text(forged.to_json())
    with pytest.raises(CheckpointError, match="text_digest is not that of the text tower"):
        load_engine(tmp_path)
    load_engine(tmp_path, golden=False).close()


def test_a_golden_test_that_fails(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match="golden"):
        load_engine(tiny_checkpoint)


def test_devices() -> None:
    assert device_names("cpu") == ["cpu"]
    assert device_names("cpu,cpu") == ["cpu", "cpu"]
    assert device_names("auto") == (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    )
    with pytest.raises(SettingsError, match="device cuda:99: there is none"):
        device_names("cpu,cuda:99")
