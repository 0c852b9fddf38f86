"""Real checkpoints, whole and broken in every way that there is, in a folder and on a real S3 server."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.network.ebseg import EBSeg
from model.storage.manifest import FILES, MANIFEST
from model.storage.versions import Versions
from service.scheduling.torch_engine import TorchEngine, load_engine
from tests.service.hot_loading.model_fakes import current, loads, quarantined, roles
from tests.service.hot_loading.real_models import BROKEN, NAME, copied, not_a_number, prediction, started
from tests.service.hot_loading.s3_server import S3, s3_server
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_pictures")]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def upload(folder: Path, location: str) -> None:
    versions = Versions(location)
    for name in (*FILES, MANIFEST):
        versions.fs.put_file(str(folder / name), f"{versions.path(int(folder.name))}/{name}")


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
