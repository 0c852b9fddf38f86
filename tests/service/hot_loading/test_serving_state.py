"""One truth about which version serves: many followers, writers at once, a registry that is away."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model.storage.serving_state import SERVING, ServingFile, ServingState
from model.storage.versions import Versions
from service.errors import ConflictError, NotFoundError
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from tests.service.hot_loading.model_fakes import (
    Gate,
    Loader,
    ask,
    connection_lost,
    current,
    failing,
    memory_url,
    publish,
    quarantined,
    roles,
    serving,
)
from tests.service.hot_loading.s3_server import S3, s3_server
from tests.waiting import until

pytestmark = pytest.mark.anyio
MANY = 100
Follower = tuple[Models, Loader, Metrics]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registry of versions 1 and 2, for several services."""
    url = str(tmp_path / "registry")
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3').bucket}/{tmp_path.name}"
    for number in (1, 2):
        publish(url, "a", number)
    return url


@asynccontextmanager
async def followers(registry: str | Path, count: int, model: str = "a") -> AsyncIterator[list[Follower]]:
    """So many services of one registry, which look when they are asked to."""
    async with AsyncExitStack() as stack:
        # entered one after another: each checks at its end that no thread of its kind is left
        yield [await stack.enter_async_context(serving(registry, model)) for _ in range(count)]


async def look(services: list[Follower]) -> None:
    """One look of each at the registry, as its watch takes it."""
    for models, _, _ in services:
        follower = models._followers["a"]
        async with follower.lock:
            await follower._look_and_count()


def gauge(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"ebseg_{name}", {"model": "a"})


def state(registry: str | Path) -> ServingState:
    found = ServingFile(Versions(f"{registry}/a")).read()
    assert found is not None
    return found


async def test_a_hundred_followers_obey_at_their_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)
    async with followers(tmp_path, MANY) as services:
        asked: Counter[str] = Counter()
        fs = Versions(f"{tmp_path}/a").fs
        for name in ("ls", "cat_file"):
            real = getattr(fs, name)

            def counted(*args: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
                asked[_name] += 1
                return _real(*args, **options)

            monkeypatch.setattr(fs, name, counted)
        first = services[0][0]

        async def all_see(wanted: dict[int, str], revision: int) -> None:
            await look(services)
            assert Counter(str(roles(models)) for models, _, _ in services) == {str(wanted): MANY}
            assert {models.status("a").asked.revision for models, _, _ in services} == {revision}  # type: ignore[union-attr]
            assert {gauge(metrics, "serving_obeyed") for _, _, metrics in services} == {1}
            assert {gauge(metrics, "serving_revision") for _, _, metrics in services} == {revision}

        await first.pin("a", 1, "night")
        await all_see({1: "current"}, 1)
        await first.rollback("a", "night")
        await all_see({3: "current"}, 2)
        await first.canary("a", 2, 25, "night")
        await all_see({3: "current", 2: "canary"}, 3)
        assert {ask(models, 100).count(2) for models, _, _ in services} == {25}
        await first.canary("a", 2, 50, "night")
        await all_see({3: "current", 2: "canary"}, 4)
        assert {ask(models, 100).count(2) for models, _, _ in services} == {50}
        assert all(load.versions() in ([3, 1, 3, 2], [3, 1, 3, 2, 2]) for _, load, _ in services)
        await first.rollback("a", "night")
        await all_see({3: "current"}, 5)
        asked.clear()
        await look(services)
        assert asked == {"ls": MANY}  # nothing new costs one listing each
        await first.unpin("a", "night")
        publish(tmp_path, "a", 4)
        await all_see({4: "current"}, 6)
    assert (state(tmp_path).changed_by, state(tmp_path).policy) == ("night", "latest")


async def test_a_new_service_serves_what_is_asked_for(shared: str) -> None:
    async with followers(shared, 1) as ((models, _, _),):
        await models.pin("a", 1)
    async with followers(shared, 1) as ((models, load, _),):
        assert (roles(models), load.versions()) == ({1: "current"}, [1])
        await models.canary("a", 2, 10)
    async with followers(shared, 1) as ((models, load, metrics),):
        assert (roles(models), load.versions()) == ({1: "current", 2: "canary"}, [1, 2])
        assert gauge(metrics, "serving_obeyed") == 1
        await models.rollback("a")
        assert roles(models) == {1: "current"}


async def test_of_two_writers_one_wins_and_the_other_is_told(shared: str) -> None:
    async with followers(shared, 2) as services:
        (one, load, _), (other, _, _) = services
        gate = load.at = Gate()
        slow = asyncio.create_task(one.pin("a", 1, "first"))
        await until(gate.begun.is_set)  # it has read what is asked for, and has not written
        assert (
            await other.unpin("a", "second")
            == "the policy is latest again, from the next look at the registry on"
        )
        gate.open.set()
        reported = "nothing has changed: second has changed it meanwhile: the newest version, revision 1 of "
        with pytest.raises(ConflictError, match=reported):
            await slow
        assert (roles(one), one.status("a").asked) == ({2: "current"}, None)
        await until(lambda: load.closings() == {1: 1, 2: 0})  # what was loaded in vain is freed
        load.at = lambda version: None
        await one.pin("a", 1, "first")
        await look(services)
        assert [current(models) for models, _, _ in services] == [1, 1]
        assert (state(shared).revision, state(shared).changed_by) == (2, "first")


async def test_many_writers_never_lose_a_revision(shared: str) -> None:
    """Each write that was not refused is a revision of its own."""
    async with followers(shared, 6) as services:
        changes = [models.pin("a", 1 + turn % 2, f"w{turn}") for turn, (models, _, _) in enumerate(services)]
        results = await asyncio.gather(*changes, return_exceptions=True)
        won = [result for result in results if isinstance(result, str)]
        assert won
        assert all(isinstance(result, str | ConflictError) for result in results), results
        assert state(shared).revision == len(won)
        await look(services)
        assert {current(models) for models, _, _ in services} == {state(shared).version}


async def test_a_registry_that_is_away_leaves_the_last_known_state(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, "a", 2)
    async with followers(registry, 1) as services:
        ((models, load, metrics),) = services
        await models.pin("a", 1)
        assert (gauge(metrics, "registry_up"), gauge(metrics, "serving_obeyed")) == (1, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Versions(f"{registry}/a").fs, "ls", connection_lost)
            for _ in range(3):
                with pytest.raises(Exception, match="connection lost"):
                    await look(services)
            assert (roles(models), set(ask(models, 10))) == ({1: "current"}, {1})
            assert (gauge(metrics, "registry_up"), gauge(metrics, "serving_revision")) == (0, 1)
            assert failing(metrics) == {"failed": 1, "no_space": 0}
            asked = models.status("a").asked
            assert asked is not None
            assert (asked.version, asked.obeyed) == (1, True)
        await look(services)
        assert (gauge(metrics, "registry_up"), models.status("a").last_error) == (1, None)
        assert failing(metrics) == {"failed": 0, "no_space": 0}
        assert load.versions() == [2, 1]


async def test_what_cannot_be_obeyed_is_told_and_the_old_one_serves(registry: Path) -> None:
    publish(registry, "a", 3)
    async with followers(registry, 1) as services:
        ((models, load, metrics),) = services
        publish(registry, "a", 2, "NaN")
        mine = ServingFile(Versions(f"{registry}/a"))
        wish = ServingState(
            revision=1, policy="pinned", version=2, changed_by="", changed_at="2026-01-01T00:00:00+00:00"
        )
        mine.write(wish)
        for _ in range(3):
            await look(services)
        assert load.versions() == [3, 2]  # once
        assert (roles(models), quarantined(models)) == ({3: "current"}, {2: "NaN"})
        assert models.status("a").last_error == "what is asked for cannot be served: version 2: NaN"
        assert gauge(metrics, "serving_obeyed") == 0
        mine.write(dataclasses.replace(wish, revision=2, version=9))
        await look(services)
        assert "the registry has no version 9 of a" in str(models.status("a").last_error)
        publish(registry, "a", 9)
        await look(services)
        assert (roles(models), gauge(metrics, "serving_obeyed")) == ({9: "current"}, 1)
        (registry / "a" / SERVING).unlink()  # the settings count again
        await look(services)
        assert (models.status("a").asked, models.status("a").policy) == (None, "latest")


async def test_a_damaged_state_changes_nothing_until_it_is_written_again(registry: Path) -> None:
    publish(registry, "a", 2)
    async with followers(registry, 1) as services:
        ((models, _, _),) = services
        await models.pin("a", 1)
        for content in ("", "{", "[]", '{"revision": 2}', '{"policy": "pinned"}', "\0" * 40):
            (registry / "a" / SERVING).write_text(content)
            with pytest.raises(Exception, match=r"serving\.json"):
                await look(services)
            assert roles(models) == {1: "current"}
        await models.pin("a", 2, "me")
        assert (roles(models), state(registry).revision) == ({2: "current"}, 1)


async def test_a_named_canary_is_held_until_somebody_decides(registry: Path) -> None:
    publish(registry, "a", 2)
    async with serving(registry, "a@1", canary_requests=1, canary_s=0.001) as (models, _, _):
        with pytest.raises(ConflictError, match="version 1 of a serves already"):
            await models.canary("a", 1, 10)
        with pytest.raises(NotFoundError):
            await models.canary("a", 9, 10)
        await models.canary("a", 2, 50)
        assert ask(models, 100).count(2) == 50
        assert roles(models) == {1: "current", 2: "canary"}
        await models.unpin("a")
        assert roles(models) == {1: "current", 2: "canary"}
        await models.reload("a")
        assert roles(models) == {2: "current"}


async def test_a_failing_named_canary_goes_and_stays_away(registry: Path) -> None:
    publish(registry, "a", 2)
    async with followers(registry, 1, "a@1") as services:
        ((models, load, metrics),) = services
        await models.canary("a", 2, 50)
        ask(models, 40, failing=[2])
        assert (roles(models)[1], list(quarantined(models))) == ("current", [2])
        await look(services)
        assert (load.versions(), gauge(metrics, "serving_obeyed")) == ([1, 2], 0)


async def test_registries_that_cannot_be_written_say_so(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = memory_url()
    for place in (url, registry):
        for number in (1, 2):
            publish(place, "a", number)
    async with serving(url) as (models, load, _):
        with pytest.raises(
            ConflictError, match=r"nothing has changed: .*this kind of registry cannot compare"
        ):
            await models.pin("a", 1)
        assert roles(models) == {2: "current"}
        await until(lambda: load.closings() == {1: 1, 2: 0})
    async with serving(registry) as (models, _, _):

        def read_only(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("model.storage.serving_state.replace_text", read_only)
        with pytest.raises(
            ConflictError, match=r"cannot be written from here: Read-only file system; `ebseg mod"
        ):
            await models.pin("a", 1)
        assert roles(models) == {2: "current"}
