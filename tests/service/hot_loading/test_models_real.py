"""Real checkpoints, whole and broken in every way that there is, in a folder and on a real S3 server."""

import gc
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.network.ebseg import EBSeg
from model.storage.manifest import FILES, GOLDEN, MANIFEST, WEIGHTS
from model.storage.versions import Versions
from service.hot_loading import loader
from service.hot_loading.loader import LoadEngine
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.scheduling.torch_engine import TorchEngine, load_engine
from service.settings import Settings
from tests.model.checkpoints import BIG_TENSOR, edit_tensors, make, put, reseal, write
from tests.service.fakes import picture
from tests.service.hot_loading.model_fakes import FakeDevice, current, loads, quarantined, roles
from tests.service.hot_loading.s3_server import S3, s3_server
from tests.waiting import until

pytestmark = pytest.mark.anyio
NAME = "ebseg-tiny"


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "USUAL_PICTURES", ((8, 8),))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two different models."""
    folders = [tmp_path_factory.mktemp("saved") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        write(make(seed, reads=True), folder)
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def flipped_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    put(folder / WEIGHTS, bytes(content))


def not_a_number(folder: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["background"].view(-1)[0] = float("nan")

    edit_tensors(folder / WEIGHTS, edit)
    reseal(folder)


def wrong_shape(folder: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[BIG_TENSOR] = tensors[BIG_TENSOR].T.contiguous()

    edit_tensors(folder / WEIGHTS, edit)
    reseal(folder)


def wrong_golden(folder: Path) -> None:
    edit_tensors(folder / GOLDEN, lambda tensors: tensors["supervised"].mul_(1.01))
    reseal(folder)


def wrong_text_digest(folder: Path) -> None:
    reseal(folder, text_digest="0" * 64)


def cut_short(folder: Path) -> None:
    put(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-1])


BROKEN = {
    2: (flipped_byte, "model.safetensors does not match its sha256"),
    3: (not_a_number, "model.safetensors: tensor background holds NaN or infinity"),
    4: (wrong_shape, f"model.safetensors does not fit the model: {BIG_TENSOR} has shape"),
    5: (wrong_golden, "the golden picture's outputs are off by more than"),
    6: (wrong_text_digest, "the manifest's text_digest is not that of the text tower"),
    7: (cut_short, "model.safetensors should have"),
}


def copied(saved: Path, folder: Path, number: int) -> Path:
    """A version of its own, by links to the saved one's files."""
    shutil.copytree(saved, folder, copy_function=os.link)
    reseal(folder, version=number)
    return folder


def upload(folder: Path, location: str) -> None:
    versions = Versions(location)
    for name in (*FILES, MANIFEST):
        versions.fs.put_file(str(folder / name), f"{versions.path(int(folder.name))}/{name}")


def started(registry: str | Path, *, poll: float = 1000.0, load: LoadEngine = load_engine) -> Models:
    settings = Settings(registry=str(registry), model=NAME, device="cpu", registry_poll_s=poll)
    return Models(settings, Metrics(), [FakeDevice()], load)


def prediction(models: Models) -> Tensor:
    with models.lease() as lease:
        (engine,) = lease.engines
        (made,) = engine.predict([engine.prepare(picture(64, 64))])
        mask_logits: Tensor = made.masks.mask_logits
        return mask_logits


async def test_broken_versions_in_a_folder_never_serve(
    good: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied(good[0], tmp_path / NAME / "1", 1)
    models = started(tmp_path)
    await models.start()
    before = prediction(models)
    for number, (damage, _) in BROKEN.items():
        damage(copied(good[1], tmp_path / NAME / str(number), number))
    await models.reload(NAME)
    reasons = quarantined(models, NAME)
    refused = [vars(record) for record in caplog.records if record.message == "version refused"]
    logged = {record["version"]: record["reason"] for record in refused}
    assert sorted(reasons) == sorted(logged) == sorted(BROKEN)
    for number, (_, reason) in BROKEN.items():
        assert reasons[number].startswith(reason)  # the file and no folder, which is for the log
        assert reason in logged[number]
        assert f"{tmp_path / NAME / str(number)}: " in logged[number]
    assert roles(models, NAME) == {1: "current"}
    assert loads(models._metrics) == {"loaded": 1, "quarantined": 6}
    assert torch.equal(prediction(models), before)
    copied(good[1], tmp_path / NAME / "8", 8)
    assert await models.reload(NAME) == "version 8 serves"
    assert not torch.equal(prediction(models), before)
    await models.rollback(NAME)
    assert current(models, NAME) == 1
    assert torch.equal(prediction(models), before)
    await models.stop()


async def test_a_broken_newest_version_at_start(good: tuple[Path, Path], tmp_path: Path) -> None:
    copied(good[0], tmp_path / NAME / "1", 1)
    not_a_number(copied(good[1], tmp_path / NAME / "2", 2))
    models = started(tmp_path)
    await models.start()
    assert (current(models, NAME), list(quarantined(models, NAME))) == (1, [2])
    await models.stop()


async def test_freed_models_leave_memory_without_garbage_collection(
    good: tuple[Path, Path], tmp_path: Path
) -> None:
    copied(good[0], tmp_path / NAME / "1", 1)
    seen: list[weakref.ref[EBSeg]] = []

    def load(folder: Path, *, device: str, dtype: str, verify_digests: bool) -> TorchEngine:
        engine = load_engine(folder, device=device, dtype=dtype, verify_digests=verify_digests)
        seen.append(weakref.ref(engine.segmenter.ebseg))
        return engine

    models = started(tmp_path, load=load)
    await models.start()
    prediction(models)
    gc.collect()
    gc.disable()
    try:
        copied(good[1], tmp_path / NAME / "2", 2)
        await models.reload(NAME)
        await until(lambda: seen[0]() is None)
        assert seen[1]() is not None
    finally:
        gc.enable()
        await models.stop()


async def test_versions_on_s3(good: tuple[Path, Path], s3: S3, tmp_path: Path) -> None:
    registry = f"{s3.bucket}/registry"
    location = f"{registry}/{NAME}"
    upload(copied(good[0], tmp_path / "1", 1), location)
    models = started(registry, poll=0.05)
    await models.start()
    try:
        before = prediction(models)
        for number in (2, 3):
            folder = copied(good[1], tmp_path / str(number), number)
            BROKEN[number][0](folder)
            upload(folder, location)
        await until(lambda: sorted(quarantined(models, NAME)) == [2, 3])
        for number, reason in quarantined(models, NAME).items():
            assert reason.startswith(BROKEN[number][1])
        s3.fail()
        await until(lambda: loads(models._metrics).get("failed", 0) >= 2)
        assert "s3://bucket/registry/ebseg-tiny: " in str(models.status(NAME).last_error)
        assert torch.equal(prediction(models), before)
        upload_later = copied(good[1], tmp_path / "4", 4)
        s3.fail(False)
        upload(upload_later, location)
        await until(lambda: current(models, NAME) == 4)
        assert not torch.equal(prediction(models), before)
        assert models.status(NAME).last_error is None
        assert sorted(quarantined(models, NAME)) == [2, 3]
        results = loads(models._metrics)
        assert (results["loaded"], results["quarantined"]) == (2, 2)
    finally:
        s3.fail(False)
        await models.stop()


async def test_a_quiet_registry_costs_one_listing(good: tuple[Path, Path], s3: S3, tmp_path: Path) -> None:
    registry = f"{s3.bucket}/quiet"
    for number in (1, 2, 3):
        upload(copied(good[0], tmp_path / str(number), number), f"{registry}/{NAME}")
    models = started(registry)
    await models.start()
    s3.requests()
    assert await models.reload(NAME) == "nothing else is newer than version 3, which stays"
    assert len(s3.requests()) == 1
    await models.stop()
