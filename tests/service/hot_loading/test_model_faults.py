"""Versions that are refused, and stores, disks and memory that fail for a while. No model is computed."""

import asyncio
import logging
from pathlib import Path

import pytest
import torch

from model.errors import CheckpointError
from model.storage.manifest import MANIFEST
from model.storage.versions import Versions
from service.errors import OutOfMemoryError
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from tests.service.hot_loading.model_fakes import (
    OFTEN,
    VersionEngine,
    ask,
    connection_lost,
    current,
    failing,
    infos,
    loads,
    made,
    publish,
    publish_and_reload,
    quarantined,
    remove,
    roles,
    serving,
    until_current,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def until_another_look(models: Models) -> None:
    last = models.status("a").last_checked_at
    await until(lambda: models.status("a").last_checked_at != last)


def refused(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("ebseg_model_refused_versions", {"model": "a"})


async def until_failed(metrics: Metrics, count: int) -> None:
    await until(lambda: loads(metrics).get("failed", 0) >= count)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("tensor background holds NaN or infinity", "tensor background holds NaN or infinity"),
        ("the golden image's outputs are off", "the golden image's outputs are off"),
    ],
)
async def test_a_bad_version_never_serves(
    registry: Path, weights: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        publish(registry, "a", 2, weights)
        await until(lambda: 2 in quarantined(models))
        for _ in range(3):
            await until_another_look(models)
        assert load.versions() == [1, 2]  # once
        assert quarantined(models) == {2: reason}
        assert roles(models) == {1: "current"}
        assert loads(metrics) == {"loaded": 1, "quarantined": 1}
        assert refused(metrics) == 1  # as long as it lies there
        assert infos(metrics) == {("a", "1")}
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert [vars(record)["reason"] for record in errors] == [reason]
        publish(registry, "a", 3)
        await until(lambda: current(models) == 3)
        assert quarantined(models) == {2: reason}
        assert refused(metrics) == 0  # of those that would be newer
        remove(registry, "a", 3)
        publish(registry, "a", 2)  # mended, but older by now
        assert await models.reload("a") == "nothing else is newer than version 3, which stays"
        assert set(ask(models, 10)) == {3}


async def test_another_manifest_is_another_chance(registry: Path) -> None:
    publish(registry, "a", 2, "bad")
    async with serving(registry, poll=OFTEN) as (models, _, metrics):
        assert current(models) == 1
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        assert quarantined(models) == {}
        assert loads(metrics) == {"loaded": 2, "quarantined": 1}


async def test_sizes_names_and_identities_are_checked(registry: Path) -> None:
    async with serving(registry) as (models, load, _):
        publish(registry, "a", 2, name="b")
        publish(registry, "a", 3)
        (registry / "a" / "3" / "golden.safetensors").write_bytes(b"more bytes than there should be")
        publish(registry, "a", 4)
        (registry / "a" / "4" / MANIFEST).write_text("{}")
        load.made = lambda engine: setattr(engine, "info", load.engines[0].info)
        await publish_and_reload(models, registry, 5)
        reasons = quarantined(models)
        assert current(models) == 1
        assert sorted(reasons) == [2, 3, 4, 5]
        assert reasons[2] == "manifest.json is of b version 2"
        assert reasons[3] == "golden.safetensors has 31 bytes, the manifest says 23"
        assert reasons[4].startswith("manifest.json: schema None is unknown")
        assert reasons[5] == "loaded a version 1, expected a version 5"
        assert load.versions() == [1, 5]


async def test_a_bad_newest_version_at_start(registry: Path) -> None:
    publish(registry, "a", 2, "NaN")
    publish(registry, "a", 3, "wrong shape")
    async with serving(registry) as (models, load, _):
        assert load.versions() == [3, 2, 1]
        assert quarantined(models) == {3: "wrong shape", 2: "NaN"}
        assert [entry.version for entry in models.status("a").quarantined] == [3, 2]


async def test_nothing_to_start_with_tells_why(tmp_path: Path) -> None:
    for text, reason in (("a", "a has no version that can be served: there is none"), ("a@3", "version 3 ")):
        with pytest.raises(CheckpointError, match=reason):
            async with serving(tmp_path, text):
                pass
    publish(tmp_path, "a", 1, "NaN")
    publish(tmp_path, "a", 2, "wrong shape")
    with pytest.raises(CheckpointError, match="served: version 2: wrong shape; version 1: NaN"):
        async with serving(tmp_path):
            pass
    with pytest.raises(CheckpointError, match="a has no version 1 that can be served: version 1: NaN"):
        async with serving(tmp_path, "a@1"):
            pass


async def test_the_store_is_no_fault_of_the_version(
    remote_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(remote_registry, poll=OFTEN) as (models, load, metrics):
        fs = Versions(f"{remote_registry}/a").fs
        for name in ("ls", "get_file"):
            publish(remote_registry, "a", 1 + current(models))
            with monkeypatch.context() as patch:
                patch.setattr(fs, name, connection_lost)
                await until_failed(metrics, 2 + loads(metrics).get("failed", 0))
                assert "connection lost" in str(models.status("a").last_error)
                assert quarantined(models) == {}
                assert len(set(ask(models, 10))) == 1
            await until_current(models, 1 + current(models))
            assert models.status("a").last_error is None
        assert load.versions() == [1, 2, 3]


async def test_a_refused_version_that_is_deleted_is_forgotten(registry: Path) -> None:
    async with serving(registry, poll=OFTEN) as (models, _, metrics):
        publish(registry, "a", 2, "bad")
        await until(lambda: refused(metrics) == 1)
        remove(registry, "a", 2)
        await until(lambda: refused(metrics) == 0)
        assert quarantined(models) == {}


async def test_a_full_disk_is_told_as_one(
    remote_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no silent registry: there is no space in a folder, which the log and administrators learn."""

    def full(*_: object, **__: object) -> None:
        Path("/dev/full").write_bytes(b"weights")

    cache = tmp_path / "cache"
    models, metrics = made(remote_registry, cache_dir=cache)
    fs = Versions(f"{remote_registry}/a").fs
    with monkeypatch.context() as patch:
        patch.setattr(fs, "get_file", full)
        starting = asyncio.create_task(models.start())
        await until(lambda: loads(metrics).get("no_space", 0) >= 2)
        (told,) = models.missing().values()
        assert told.startswith("no space is left where new versions are fetched to (cache_dir)")
        assert str(cache) not in told
        assert loads(metrics).keys() == {"no_space"}
        assert metrics.registry.get_sample_value("ebseg_registry_up", {"model": "a"}) == 1
        assert failing(metrics) == {"failed": 0, "no_space": 1}
    await starting
    assert failing(metrics) == {"failed": 0, "no_space": 0}
    assert current(models) == 1
    assert quarantined(models) == {}
    told_log = [vars(record)["reason"] for record in caplog.records if record.levelno == logging.WARNING]
    assert set(told_log) == {f"no space left on {cache}/a: make room there"}
    await models.stop()


async def test_a_store_that_does_not_answer_is_asked_less_often(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def noted(seconds: float, _: float) -> bool:
        waits.append(seconds)
        await asyncio.sleep(0.001)
        return False

    async with serving(registry, poll=2.0) as (models, _, _):
        models._watches[0].cancel()
        follower = models._followers["a"]
        monkeypatch.setattr(follower.source, "newer", lambda *_: 1 / 0)
        monkeypatch.setattr(follower, "_pause", noted)
        watch = asyncio.create_task(follower.follow(2.0))
        await until(lambda: len(waits) >= 8)
        watch.cancel()
    for wait, plain in zip(waits, (4, 8, 16, 32, 60, 60, 60, 60), strict=False):
        assert 0.8 * plain <= wait <= 1.2 * plain
    assert len({wait / plain for wait, plain in zip(waits, (4, 8, 16, 32), strict=False)}) == 4


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        OSError(24, "Too many open files"),
    ],
)
async def test_want_of_memory_is_no_fault_of_the_version(registry: Path, error: Exception) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        load.faults = {2: [error, error]}
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        assert loads(metrics) == {"loaded": 2, "failed": 2}
        assert quarantined(models) == {}
        assert models.status("a").last_error is None


async def test_want_of_memory_while_warming(registry: Path) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        errors: list[Exception] = [OutOfMemoryError(), OutOfMemoryError()]

        def short(engine: VersionEngine) -> None:
            engine.shortage = errors.pop() if errors else None

        load.made = short
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        assert loads(metrics) == {"loaded": 2, "failed": 2}
        await until(lambda: [engine.closings for engine in load.engines] == [1, 1, 1, 0])


async def test_a_read_error_is_no_fault_and_a_strange_error_is(registry: Path) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        broken = CheckpointError("cannot be read: [Errno 5] Input/output error")
        broken.__cause__ = OSError(5, "Input/output error")
        load.faults = {2: [broken], 3: [KeyError("heads")]}
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        publish(registry, "a", 3)
        await until(lambda: quarantined(models) == {3: "KeyError: 'heads'"})
        assert loads(metrics) == {"loaded": 2, "failed": 1, "quarantined": 1}
