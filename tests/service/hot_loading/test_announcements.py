"""News of a registry by a real Redis: others look long before their time; without Redis they look as ever."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from service.hot_loading import announcements
from service.hot_loading.announcements import CHANNEL, Announcements, announce
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from tests.service.caches.redis_kinds import SERVICE, redis_cluster, redis_sentinel
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.hot_loading.model_fakes import SELDOM, current, publish, roles, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio
MANY = 20
QUICK = 0.05  # seconds between two looks of a service that finds news by itself


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def announced(registry: Path, url: str, poll: float = SELDOM) -> AsyncIterator[tuple[Models, Metrics]]:
    """A service of a registry that hears news, but looks by itself at its own pace only."""
    async with serving(registry, poll=poll) as (models, _, metrics):
        news = Announcements(url, metrics, models.look_soon)
        models.announce = news.say
        news.start()
        try:
            yield models, metrics
        finally:
            await news.stop()


def count(metrics: Metrics, result: str) -> float:
    found = metrics.registry.get_sample_value("ebseg_announcements_total", {"result": result})
    assert found is not None
    return found


def hears(metrics: Metrics) -> bool:
    return metrics.registry.get_sample_value("ebseg_announcements_heard") == 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that news call for are not spread: they would be over a tenth of `SELDOM`."""
    monkeypatch.setattr("service.hot_loading.follower.NEWS_SPREAD", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_many_see_a_change_long_before_they_would_look(registry: Path, redis: RedisServer) -> None:
    publish(registry, "a", 2)
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(announced(registry, redis.url)) for _ in range(MANY)]
        await until(lambda: all(hears(metrics) for _, metrics in services))
        first = services[0][0]
        await first.pin("a", 1, "night")
        await until(lambda: all(current(models) == 1 for models, _ in services))
        await first.canary("a", 2, 10, "night")
        await until(lambda: all(roles(models) == {1: "current", 2: "canary"} for models, _ in services))
        publish(registry, "a", 3)
        await first.unpin("a", "night")
        await first.reload("a")
        await until(lambda: all(current(models) == 3 for models, _ in services))
        # each change is told once, by who made it, however many hear of it
        assert sum(count(metrics, "sent") for _, metrics in services) <= 4 + 1
        assert {count(metrics, "lost") for _, metrics in services} == {0}


@pytest.mark.usefixtures("at_once")
async def test_who_finds_a_version_first_tells_the_others(registry: Path, redis: RedisServer) -> None:
    async with (
        announced(registry, redis.url) as (seldom, metrics),
        announced(registry, redis.url, poll=QUICK) as (quick, quicks),
    ):
        await until(lambda: hears(metrics) and hears(quicks))
        publish(registry, "a", 2)
        await until(lambda: current(seldom) == current(quick) == 2)
        assert (count(quicks, "sent"), count(metrics, "sent")) == (1, 0)


async def test_without_redis_everybody_looks_as_ever(
    registry: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcements, "FIRST_S", QUICK)
    redis.kill()
    async with announced(registry, redis.url, poll=QUICK) as (models, metrics):
        publish(registry, "a", 2)
        await until(lambda: current(models) == 2)
        await models.pin("a", 1)
        await until(lambda: count(metrics, "lost") >= 2)  # the version, and the pin
        assert (hears(metrics), current(models)) == (False, 1)
        assert caplog.text.count("news of the registry are not heard; the next look finds them") == 1
        redis.start()
        await until(lambda: hears(metrics))
        await models.unpin("a")
        await until(lambda: count(metrics, "heard") == count(metrics, "sent") >= 1)
        redis.kill()
        await until(lambda: not hears(metrics))


@pytest.mark.usefixtures("at_once")
async def test_a_redis_that_was_away_or_frozen_costs_no_news(
    registry: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that hangs is noticed, and what was missed is looked for."""
    monkeypatch.setattr(announcements, "PING_S", QUICK)
    monkeypatch.setattr(announcements, "CONNECT_S", 2 * QUICK)
    monkeypatch.setattr(announcements, "FIRST_S", QUICK)
    async with announced(registry, redis.url) as (models, metrics):
        await until(lambda: hears(metrics))
        redis.freeze()
        await until(lambda: not hears(metrics))
        publish(registry, "a", 2)
        redis.thaw()
        await until(lambda: current(models) == 2)


async def test_messages_of_others_do_no_harm(registry: Path, redis: RedisServer) -> None:
    async with announced(registry, redis.url) as (models, metrics):
        await until(lambda: hears(metrics))
        for message in (b"", b"\xff" * 1000, b"no-such-model", b"{}"):
            redis.client().publish(CHANNEL, message)
        await until(lambda: count(metrics, "heard") == 4)
        await asyncio.sleep(0)
        assert (hears(metrics), current(models)) == (True, 1)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["server", "cluster", "sentinel"])
async def test_whoever_is_no_service_tells_all(registry: Path, tmp_path: Path, kind: str) -> None:
    """By each kind of Redis: a publisher says so to one node, and services at other ones look."""
    with ExitStack() as stack:
        urls = urls_of(kind, stack, tmp_path)
        async with AsyncExitStack() as running:
            services = [await running.enter_async_context(announced(registry, url)) for url in urls]
            await until(lambda: all(hears(metrics) for _, metrics in services))
            publish(registry, "a", 2)
            await announce(urls[0], "a")
            await until(lambda: all(current(models) == 2 for models, _ in services))
            assert {count(metrics, "heard") for _, metrics in services} == {1}


def urls_of(kind: str, stack: ExitStack, folder: Path) -> list[str]:
    """What may be said of one Redis; of a cluster, the first names a node that is away as well."""
    if kind == "server":
        return [stack.enter_context(redis_server("--requirepass", "secret")).url.replace("//", "//:secret@")]
    if kind == "sentinel":
        port = stack.enter_context(redis_sentinel(folder, stack.enter_context(redis_server())))
        return [f"redis+sentinel://127.0.0.1:{port}/{SERVICE}/0"]
    ports = [node.port for node in stack.enter_context(redis_cluster())]
    away = f"redis+cluster://127.0.0.1:1,127.0.0.1:{ports[0]}"
    return [away, *(f"redis+cluster://127.0.0.1:{port}" for port in ports)]
