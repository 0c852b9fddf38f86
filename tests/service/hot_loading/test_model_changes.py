"""Canaries, and what administrators do: pin, unpin, roll back, reload. No model is computed."""

import asyncio
import threading
from pathlib import Path

import pytest

from model.storage.versions import Versions
from service.errors import (
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    StoreUnavailableError,
)
from service.hot_loading import models as models_module
from tests.service.hot_loading.model_fakes import (
    OFTEN,
    Gate,
    ask,
    current,
    infos,
    loads,
    models_of_folder,
    publish,
    publish_and_reload,
    quarantined,
    remove,
    roles,
    serving,
    until_current,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


async def test_a_canary_gets_its_share_and_takes_over(registry: Path) -> None:
    async with serving(registry, "a@canary:10", canary_requests=15) as (models, load, metrics):
        done = await publish_and_reload(models, registry, 2)
        assert done == "version 2 is on trial with 10 % of the requests"
        assert models.status("a").policy == "canary:10"
        assert roles(models) == {1: "current", 2: "canary"}
        assert infos(metrics) == {("a", "1"), ("a", "2")}
        assert ask(models, 100).count(2) == 10
        with models.lease("a", 2) as one, models.lease("a", 1) as other:
            assert [lease.info.version for lease in (one, other)] == [2, 1]
        with pytest.raises(NotFoundError, match="loaded: 1, 2"):
            models.lease("a", 3)
        assert ask(models, 40).count(2) == 4
        assert roles(models) == {1: "current", 2: "canary"}
        lease = models.lease("a", 1)
        assert ask(models, 20)[9:] == [2] * 11  # the 15th good answer was the tenth of these
        assert roles(models) == {2: "current", 1: "draining"}
        lease.count_answer("good")
        lease.release()
        await until(lambda: load.closings() == {1: 1, 2: 0})
        assert infos(metrics) == {("a", "2")}
        assert loads(metrics) == {"loaded": 2}


async def test_the_digest_of_freed_weights_is_told_once_nobody_uses_them(registry: Path) -> None:
    async with serving(registry, "a") as (models, load, _):
        freed: list[str] = []
        models.on_freed = freed.append
        lease = models.lease("a")
        await publish_and_reload(models, registry, 2)
        assert roles(models) == {2: "current", 1: "draining"}
        assert freed == []
        lease.release()
        assert freed == [lease.info.digest]
        await until(lambda: load.closings() == {1: 1, 2: 0})


async def test_weights_that_another_version_serves_are_not_forgotten(tmp_path: Path) -> None:
    """The same may be published twice, and under two names."""
    digest = publish(tmp_path, "a", 1).digest
    publish(tmp_path, "b", 1, digest=digest)
    async with serving(tmp_path, "a,b") as (models, load, _):
        freed: list[str] = []
        models.on_freed = freed.append
        await publish_and_reload(models, tmp_path, 2)
        await until(lambda: load.closings() == {1: 1, 2: 0})
        assert models.lease("b").info.digest == digest
        assert freed == []


async def test_a_failing_canary_is_withdrawn_at_once(registry: Path) -> None:
    async with serving(registry, "a@canary:50", poll=OFTEN) as (models, load, metrics):
        publish(registry, "a", 2)
        await until(lambda: roles(models) == {1: "current", 2: "canary"})
        late = models.lease("a", 2)
        assert ask(models, 30, failing=[2]) == [1, 2] * 5 + [1] * 20
        late.count_answer("failed")
        assert roles(models) == {1: "current", 2: "draining"}
        late.release()
        await until(lambda: load.closings() == {1: 0, 2: 1})
        reason = "as a canary, 5 of 5 requests failed; of the version beside it 0 of 5 requests failed"
        assert quarantined(models) == {2: reason}
        assert loads(metrics) == {"loaded": 2, "quarantined": 1, "rolled_back": 1}
        assert infos(metrics) == {("a", "1")}
        publish(registry, "a", 3)
        await until(lambda: roles(models) == {1: "current", 3: "canary"})
        assert load.versions() == [1, 2, 3]


async def test_failures_of_both_versions_are_nobodys_fault(registry: Path) -> None:
    async with serving(registry, "a@canary:50") as (models, _, _):
        await publish_and_reload(models, registry, 2)
        ask(models, 100, failing=[1, 2])
        assert roles(models) == {1: "current", 2: "canary"}


async def test_one_lease_has_one_outcome(registry: Path) -> None:
    async with serving(registry, "a@canary:50") as (models, _, _):
        await publish_and_reload(models, registry, 2)
        with models.lease("a", 2) as lease:
            for _ in range(20):
                lease.count_answer("failed")
        assert roles(models) == {1: "current", 2: "canary"}


async def test_a_newer_version_takes_the_canarys_place(registry: Path) -> None:
    async with serving(registry, "a@canary:20") as (models, load, _):
        for number in (2, 3):
            await publish_and_reload(models, registry, number)
        assert roles(models) == {1: "current", 3: "canary"}
        await until(lambda: load.closings() == {1: 0, 2: 1, 3: 0})
        assert ask(models, 100).count(3) == 20
        done = await publish_and_reload(models, registry, 4, "bad")
        assert "version 4 is refused: bad; nothing else is newer than version 3" in done
        assert roles(models) == {1: "current", 3: "canary"}


async def test_a_pinned_version_never_moves(tmp_path: Path) -> None:
    publish(tmp_path, "a", 1)
    publish(tmp_path, "a", 2)
    async with serving(tmp_path, "a@1", poll=OFTEN) as (models, load, _):
        assert (models.status("a").policy, models.status("a").pinned) == ("pinned", 1)
        done = await publish_and_reload(models, tmp_path, 3)
        assert done.startswith("version 1 is pinned: nothing newer is looked for")
        await asyncio.sleep(10 * OFTEN)
        assert load.versions() == [1]
        assert await models.unpin("a") == "the policy is latest again, from the next look at the registry on"
        await until(lambda: current(models) == 3)
        assert (models.status("a").policy, models.status("a").pinned) == ("latest", None)


async def test_pin_loads_and_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)
    async with serving(tmp_path, poll=OFTEN) as (models, load, metrics):
        assert await models.pin("a", 1) == "version 1 serves, and stays until unpinned"
        assert (current(models), models.status("a").pinned) == (1, 1)
        publish(tmp_path, "a", 4)
        await asyncio.sleep(10 * OFTEN)
        await models.pin("a", 1)
        assert load.versions() == [3, 1]
        await until(lambda: load.closings() == {3: 1, 1: 0})
        await models.unpin("a")
        await until(lambda: current(models) == 4)
        assert loads(metrics) == {"loaded": 3}


async def test_a_version_that_still_drains_is_taken_back(registry: Path) -> None:
    async with serving(registry) as (models, load, metrics):
        lease = models.lease()
        await publish_and_reload(models, registry, 2)
        await models.pin("a", 1)
        assert load.versions() == [1, 2]
        assert roles(models) == {1: "current"}
        assert infos(metrics) == {("a", "1")}
        lease.release()
        await until(lambda: load.closings() == {1: 0, 2: 1})
        await models.pin("a", 2)
        await until(lambda: load.closings() == {1: 1, 2: 1})
        assert load.versions() == [1, 2, 2]


async def test_pinning_a_canary_promotes_it_and_another_version_withdraws_it(registry: Path) -> None:
    async with serving(registry, "a@canary:10") as (models, load, _):
        await publish_and_reload(models, registry, 2)
        await models.pin("a", 2)
        assert roles(models) == {2: "current"}
        assert await models.unpin("a") == (
            "the policy is canary:10 again, from the next look at the registry on"
        )
        await publish_and_reload(models, registry, 3)
        await models.pin("a", 2)
        assert roles(models) == {2: "current"}
        await until(lambda: load.closings() == {1: 1, 2: 0, 3: 1})


async def test_a_pin_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "a", 1, "NaN")
    publish(tmp_path, "a", 2)
    async with serving(tmp_path) as (models, load, metrics):
        with pytest.raises(ConflictError, match="version 1 of a cannot be served: NaN"):
            await models.pin("a", 1)
        with pytest.raises(NotFoundError, match="the registry has no version 9 of a"):
            await models.pin("a", 9)
        publish(tmp_path, "a", 3)
        load.faults = {3: [MemoryError("full")]}
        with pytest.raises(StoreUnavailableError, match="version 3 of a cannot be loaded now: MemoryError"):
            await models.pin("a", 3)
        assert roles(models) == {2: "current"}
        assert models.status("a").pinned is None
        assert quarantined(models) == {1: "NaN"}
        assert loads(metrics) == {"loaded": 1, "quarantined": 1, "failed": 1}
        await models.pin("a", 3)
        publish(tmp_path, "a", 1)
        await models.pin("a", 1)  # asked for by name, a refused one gets another chance
        assert (current(models), quarantined(models)) == (1, {})


async def test_rollback_goes_back_step_by_step(registry: Path) -> None:
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        with pytest.raises(ConflictError, match="no version of a is older than 1; pin the one you want"):
            await models.rollback("a")
        for number in (2, 3):
            publish(registry, "a", number)
            await until_current(models, number)
        assert await models.rollback("a") == "version 2 serves again, and stays until unpinned"
        await asyncio.sleep(10 * OFTEN)
        assert (roles(models), models.status("a").pinned) == ({2: "current"}, 2)
        await models.rollback("a")
        assert (current(models), models.status("a").pinned) == (1, 1)
        with pytest.raises(ConflictError):
            await models.rollback("a")
        assert current(models) == 1
        assert load.versions() == [1, 2, 3, 2, 1]
        assert loads(metrics) == {"loaded": 5, "rolled_back": 2}
        await models.unpin("a")
        await until(lambda: current(models) == 3)


async def test_rollback_after_a_pin_and_its_end_does_not_stay_at_the_bad_version(tmp_path: Path) -> None:
    for number in (1, 3):
        publish(tmp_path, "a", number)
    async with serving(tmp_path, poll=OFTEN) as (models, _, _):
        await models.pin("a", 1)
        await models.unpin("a")
        await until_current(models, 3)
        assert await models.rollback("a") == "version 1 serves again, and stays until unpinned"
        assert (current(models), models.status("a").pinned) == (1, 1)


async def test_rollback_passes_over_what_cannot_be_served(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)
    async with serving(tmp_path) as (models, _, _):
        await models.pin("a", 2)
        await models.pin("a", 3)
        remove(tmp_path, "a", 2)
        await models.rollback("a")
        assert current(models) == 1


async def test_rollback_that_fails_changes_nothing(registry: Path) -> None:
    async with serving(registry) as (models, _, metrics):
        await publish_and_reload(models, registry, 2)
        publish(registry, "a", 1, "NaN")
        with pytest.raises(ConflictError, match="version 1 of a cannot be served: NaN"):
            await models.rollback("a")
        remove(registry, "a", 1)
        with pytest.raises(NotFoundError, match="the registry has no version 1 of a"):
            await models.rollback("a")
        assert (current(models), models.status("a").pinned) == (2, None)
        assert loads(metrics).get("rolled_back") is None
        publish(registry, "a", 1)
        await models.rollback("a")
        assert current(models) == 1


async def test_rollback_withdraws_a_canary(registry: Path) -> None:
    async with serving(registry, "a@canary:10", poll=OFTEN) as (models, _, metrics):
        publish(registry, "a", 2)
        await until(lambda: 2 in roles(models))
        done = await models.rollback("a")
        assert done == "version 2 is withdrawn; version 1 serves, and stays until unpinned"
        await asyncio.sleep(10 * OFTEN)
        assert (roles(models), models.status("a").pinned) == ({1: "current"}, 1)
        assert set(ask(models, 50)) == {1}
        assert loads(metrics) == {"loaded": 2, "rolled_back": 1}


async def test_reload_forgets_refusals_and_looks(registry: Path) -> None:
    async with serving(registry) as (models, load, _):
        publish(registry, "a", 2, "NaN")
        publish(registry, "a", 3)
        load.faults = {3: [KeyError("strange")]}
        assert await models.reload("a") == (
            "version 3 is refused: KeyError: 'strange'; version 2 is refused: NaN; "
            "nothing else is newer than version 1, which stays"
        )
        assert sorted(quarantined(models)) == [2, 3]
        assert await models.reload("a") == "version 3 serves"
        assert quarantined(models) == {}


async def test_reload_tells_that_it_could_not(remote_registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(remote_registry) as (models, _, _):
        with monkeypatch.context() as patch:
            patch.setattr(Versions(f"{remote_registry}/a").fs, "ls", lambda *_, **__: 1 / 0)
            with pytest.raises(StoreUnavailableError, match=r"nothing was loaded: .*ZeroDivisionError"):
                await models.reload("a")
        assert "ZeroDivisionError" in str(models.status("a").last_error)


async def test_a_registry_that_hangs_is_given_up(
    remote_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    async with serving(remote_registry) as (models, _, _):
        monkeypatch.setattr("service.hot_loading.arrivals.LOOK_SECONDS", 0.02)
        with monkeypatch.context() as patch:
            patch.setattr(Versions(f"{remote_registry}/a").fs, "ls", lambda *_, **__: gate.wait(WAIT) and [])
            with pytest.raises(StoreUnavailableError, match=r"asking the registry took longer than 0\.02 s"):
                await models.reload("a")
            gate.set()
        assert set(ask(models, 3)) == {1}


async def test_changes_of_one_model_come_one_after_another(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        publish(tmp_path, "a", number)
    async with serving(tmp_path) as (models, load, _):
        serving_then: list[list[int]] = []
        load.made = lambda engine: serving_then.append(list(roles(models)))
        await asyncio.gather(models.pin("a", 1), models.pin("a", 2), models.pin("a", 3), models.rollback("a"))
        assert load.versions() == [4, 1, 2, 3, 2]
        assert serving_then == [[4], [1], [2], [3]]
        assert roles(models) == {2: "current"}


async def test_waiting_for_a_change_is_bounded_and_the_change_goes_on(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(registry) as (models, load, _):
        gate = load.at = Gate()
        publish(registry, "a", 2)
        monkeypatch.setattr(models_module, "ADMIN_SECONDS", 0.02)
        with pytest.raises(DeadlineExceededError, match=r"after 0.02 s; GET /v1/models/a shows how it ends"):
            await models.reload("a")
        impatient = asyncio.create_task(models.pin("a", 2))
        await asyncio.sleep(0)
        impatient.cancel()
        gate.open.set()
        await until(lambda: models.status("a").pinned == 2)
        assert current(models) == 2


async def test_changes_need_a_registry_and_a_model(registry: Path) -> None:
    async with serving(registry) as (models, _, _):
        with pytest.raises(NotFoundError):
            await models.reload("b")
    fixed = models_of_folder(registry / "a" / "1")
    await fixed.start()
    for change in (fixed.pin("a", 1), fixed.unpin("a"), fixed.rollback("a"), fixed.reload("a")):
        with pytest.raises(ConflictError, match="a is one checkpoint that never changes; serve from a reg"):
            await change
    await fixed.stop()
