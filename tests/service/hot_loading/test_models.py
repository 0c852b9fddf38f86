"""Which version answers: loading, warming, swapping under leases, freeing. No model is computed."""

import asyncio
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import NotFoundError, NotReadyError
from service.hot_loading.loader import LoaderThread, usual_shapes
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.scheduling.engine import ModelInfo
from tests.service.fakes import INFO, FakeEngine
from tests.service.hot_loading.model_fakes import (
    OFTEN,
    FakeDevice,
    Loader,
    VersionEngine,
    ask,
    current,
    infos,
    loads,
    memory_url,
    models_of_folder,
    publish,
    publish_and_reload,
    quarantined,
    reload_held_up,
    remove,
    roles,
    serving,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio
USUAL = [(480, 640), (512, 512), (720, 1280)]


async def test_starts_with_the_newest(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        manifest = publish(tmp_path, "a", number)
    async with serving(tmp_path) as (models, load, metrics):
        status = models.status("a")
        assert load.versions() == [10]
        assert load.folders == [tmp_path / "a" / "10"]
        assert load.threads == {"ebseg-loader"}
        assert (status.default, status.policy, status.pinned) == (True, "latest", None)
        (version,) = status.versions
        assert (version.version, version.digest, version.role) == (10, manifest.digest, "current")
        assert version.in_flight == 0
        assert version.load_seconds > 0
        assert status.quarantined == []
        assert status.last_error is None
        assert status.last_checked_at is not None
        assert infos(metrics) == {("a", "10")}
        assert loads(metrics) == {"loaded": 1}
    assert load.closings() == {10: 1}
    assert infos(metrics) == set()


async def test_a_new_version_is_swapped_in_and_the_old_one_freed_once(registry: Path) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        first = models.lease()
        second = models.lease("a", 1)
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        with models.lease() as newer:
            assert newer.info.version == 2
            assert roles(models) == {2: "current", 1: "draining"}
            assert infos(metrics) == {("a", "2")}
        assert (first.info.version, len(first.engines)) == (1, 1)
        assert [version.in_flight for version in models.status("a").versions] == [0, 2]
        first.release()
        first.release()
        assert load.closings() == {1: 0, 2: 0}
        await asyncio.to_thread(second.release)
        await until(lambda: load.closings() == {1: 1, 2: 0})
        assert roles(models) == {2: "current"}
        assert (registry / "a" / "1").exists()  # the registry is not ours to clean
        assert loads(metrics) == {"loaded": 2}
        with pytest.raises(NotFoundError, match="this version of a is not loaded; loaded: 2"):
            models.lease("a", 1)
    assert load.closings() == {1: 1, 2: 1}


async def test_freed_engines_are_gone(registry: Path) -> None:
    load, alive = Loader(), list[weakref.ref[VersionEngine]]()

    def only_seen(engine: VersionEngine) -> None:
        alive.append(weakref.ref(engine))
        load.engines.clear()

    load.made = only_seen
    async with serving(registry, load=load) as (models, _, _):
        await publish_and_reload(models, registry, 2)
        await until(lambda: alive[0]() is None)
        assert alive[1]() is not None


async def test_leases_from_many_threads_under_swaps(registry: Path) -> None:
    async with serving(registry) as (models, load, _):
        with ThreadPoolExecutor(8) as pool:
            for number in range(2, 12):
                leases = [models.lease() for _ in range(50)]
                publish(registry, "a", number)
                releases = [pool.submit(lease.release) for lease in leases[::2]]
                await models.reload("a")
                releases += [pool.submit(lease.release) for lease in leases]
                for release in releases:
                    release.result()
        await until(lambda: load.closings() == dict.fromkeys(range(1, 11), 1) | {11: 0})


def test_only_what_differs_is_warmed() -> None:
    """A GPU records each shape; to a CPU an upright picture is as one that lies."""
    assert usual_shapes(FakeEngine(replace(INFO, device="cpu"))) == USUAL
    upright = [(640, 480), (1280, 720)]
    assert sorted(usual_shapes(FakeEngine(replace(INFO, device="cuda:0")))) == sorted([*USUAL, *upright])


async def test_every_shape_is_warm_before_the_swap(registry: Path) -> None:
    devices = [FakeDevice(), FakeDevice([(96, 128), (512, 512)])]
    async with serving(registry, devices=devices) as (models, load, _):
        assert [engine.info.device for engine in load.engines] == ["cpu", "cpu"]
        assert [verify for _, _, verify in load.asked] == [True, False]  # the same files
        assert [engine.warmed for engine in load.engines] == [USUAL, [*USUAL, (96, 128)]]
        assert [device.calls for device in devices] == [3, 4]  # steps go in between
        assert len({since for device in devices for since in device.since}) == 1
        assert all(since is not None for device in devices for since in device.since)
        with models.lease() as lease:
            assert list(lease.engines) == load.engines
        assert models.status("a").versions[0].device == "cpu,cpu"
        load.made = lambda engine: engine.refuses.add((96, 128))  # another model's shape
        assert await publish_and_reload(models, registry, 2) == "version 2 serves"
        load.made = lambda engine: engine.refuses.add((512, 512))
        done = await publish_and_reload(models, registry, 3)
        assert "version 3 is refused: cannot take (512, 512)" in done
        await until(lambda: load.closings() == {1: 2, 2: 0, 3: 2})


async def test_loading_does_not_hold_up_requests(registry: Path) -> None:
    async with serving(registry) as (models, load, _):
        gate, reload = await reload_held_up(models, load, registry, 2)
        assert set(ask(models, 100)) == {1}
        gate.open.set()
        assert await reload == "version 2 serves"
        assert set(ask(models, 100)) == {2}


async def test_a_version_that_leaves_the_registry_keeps_serving(tmp_path: Path) -> None:
    publish(tmp_path, "a", 1)
    publish(tmp_path, "a", 2)
    async with serving(tmp_path) as (models, load, _):
        remove(tmp_path, "a", 2)
        assert await models.reload("a") == "nothing else is newer than version 2, which stays"
        remove(tmp_path, "a", 1)
        await models.reload("a")
        assert set(ask(models, 3)) == {2}
        assert load.versions() == [2]


async def test_remote_versions_are_fetched_and_the_last_one_kept(tmp_path: Path) -> None:
    registry, cache = memory_url(), tmp_path / "cache"
    publish(registry, "a", 1)

    def kept() -> set[str]:
        return {path.name for path in (cache / "a").iterdir()}

    async with serving(registry, cache_dir=cache) as (models, load, _):
        assert load.folders == [cache / "a" / "1"]
        assert load.asked == [(1, "cpu", False)]  # digests were compared by the fetch
        lease = models.lease()
        for number in (2, 3, 4):
            await publish_and_reload(models, registry, number)
        await until(lambda: kept() == {"1", "3", "4"})
        lease.release()
        await until(lambda: kept() == {"3", "4"})
        await publish_and_reload(models, registry, 5, "bad")
        await until(lambda: kept() == {"3", "4"})
    assert kept() == {"3", "4"}
    async with serving(registry, cache_dir=cache) as (models, _, _):
        await until(lambda: kept() == {"4"})
    async with serving(registry) as (models, load, _):
        assert load.folders[-1].is_relative_to(cache) is False
        assert load.folders[-1].exists()
    assert not load.folders[-1].parents[1].exists()


async def test_models_side_by_side(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        publish(tmp_path, name, 1)
        publish(tmp_path, name, 2)
    async with serving(tmp_path, "b, a@1", poll=OFTEN) as (models, _, metrics):
        assert [(status.name, status.default) for status in models.statuses()] == [("b", True), ("a", False)]
        assert [models.lease(name).info.version for name in (None, "b", "a")] == [2, 2, 1]
        with pytest.raises(NotFoundError, match=r"this model is not loaded; loaded: b, a \(see"):
            models.lease("c")
        with pytest.raises(NotFoundError, match=r"; did you mean b\?$"):
            models.lease("B")
        with pytest.raises(NotFoundError, match=r"of a is not loaded; loaded: 1$"):
            models.lease("a", 2)
        publish(tmp_path, "b", 3, "bad")
        publish(tmp_path, "a", 3)
        await until(lambda: 3 in quarantined(models, "b"))
        assert (current(models, "a"), current(models, "b")) == (1, 2)
        assert quarantined(models, "a") == {}
        assert infos(metrics) == {("a", "1"), ("b", "2")}


async def test_one_checkpoint_that_never_changes(tmp_path: Path) -> None:
    publish(tmp_path, "a", 7)
    load, metrics = Loader(), Metrics()
    models = models_of_folder(tmp_path / "a" / "7", metrics, load)
    with pytest.raises(NotReadyError):
        models.lease()
    assert models.statuses() == []
    await models.start()
    status = models.status("a")
    assert (status.policy, status.default, current(models)) == ("fixed", True, 7)
    assert load.asked == [(7, "cpu", True)]
    assert (infos(metrics), loads(metrics)) == ({("a", "7")}, {"loaded": 1})
    lease = models.lease("a", 7)
    await models.stop()
    assert load.closings() == {7: 0}
    lease.release()
    assert load.closings() == {7: 1}
    with pytest.raises(NotReadyError):
        models.lease("a")


async def test_engines_that_are_there_already() -> None:
    engines = [VersionEngine(publish(memory_url(), "a", 1), "cpu") for _ in range(2)]
    models = Models.of(*engines)
    await models.start()
    with models.lease(None, 1) as lease:
        assert list(lease.engines) == engines
        lease.count_answer("failed")
        lease.count_answer("good")
    assert lease.engines == ()
    await models.stop()
    assert [engine.closings for engine in engines] == [1, 1]


async def test_stopping_breaks_a_load_off(registry: Path) -> None:
    async with serving(registry) as (models, load, metrics):
        gate, reload = await reload_held_up(models, load, registry, 2)
        threading.Timer(0.05, gate.open.set).start()
        await models.stop()
        with pytest.raises(asyncio.CancelledError):
            await reload
        assert loads(metrics) == {"loaded": 1}
        assert load.closings()[1] == 1


async def test_the_loaders_thread() -> None:
    thread, order = LoaderThread(), list[int]()
    gate = threading.Event()
    first = asyncio.create_task(thread.run(lambda: gate.wait(WAIT)))
    await until(lambda: thread._thread is not None)
    second = asyncio.create_task(thread.run(lambda: order.append(2)))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0)
    thread.post(lambda: order.append(3))
    gate.set()
    assert await first
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert order == [3]
    await thread.stop(10)
    with pytest.raises(NotReadyError, match="shutting down"):
        await thread.run(lambda: None)
    with pytest.raises(NotReadyError, match="shutting down"):
        thread.progress("fetching", 1, 2)
    thread.post(lambda: order.append(4))
    assert order == [3, 4]


async def test_series_of_freed_versions_go(registry: Path) -> None:
    async with serving(registry) as (models, load, metrics):

        def versions() -> set[str]:
            samples = next(iter(metrics.stage_seconds.collect())).samples
            return {sample.labels["version"] for sample in samples}

        def series(version: int) -> int:
            samples = [sample for one in metrics.registry.collect() for sample in one.samples]
            return sum(sample.labels.get("version") == str(version) for sample in samples)

        value = metrics.registry.get_sample_value

        def happens(first: ModelInfo) -> None:
            metrics.stages({"decode": 1.0, "predict": 1.0}, {"predict": "cpu"}, first)
            metrics.step(first, "cpu", "predict", 1.0)
            metrics.batch(first, "cpu", "idle", 1)
            metrics.request("/v1/segment", 200, 1.0, first)

        lease = models.lease()
        first = lease.info
        happens(first)
        await publish_and_reload(models, registry, 2)
        assert versions() == {"1", "2"}
        assert series(1) >= 6
        lease.release()
        await until(lambda: load.closings() == {1: 1, 2: 0})
        assert (versions(), series(1)) == ({"2"}, 0)
        happens(first)  # a device, or an answer on its way, is late
        assert series(1) == 0
        nobodys = {"model": "", "version": "", "route": "/v1/segment"}
        assert value("ebseg_requests_total", {**nobodys, "code": "200"}) == 1  # no request is lost
        assert value("ebseg_request_duration_seconds_count", nobodys) == 1
