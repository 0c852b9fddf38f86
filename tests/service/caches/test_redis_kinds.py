"""Redis Cluster and Sentinel with real servers: caches and stored lists work, and come back after a death."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from model.urls import shown
from service.caches.redis_store import RedisStore
from service.observability.metrics import Metrics
from service.schemas.classes import ClassEntry
from service.setting_values.redis_url import RedisPlace, redis_place
from service.settings import Settings, SettingsError, load_settings
from service.vocabularies.catalog import Vocabularies
from tests.service.caches.redis_kinds import (
    SERVICE,
    redis_cluster,
    redis_pair,
    redis_sentinel,
    tls_options,
    tls_port,
)
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.certificates import signed
from tests.service.hot_loading.stores import (
    CLOSED,
    OPEN,
    PATIENT_S,
    breaker_state,
    count,
    get,
    quick_breaker,
    started,
    tripped,
)
from tests.waiting import until, wait_until

pytestmark = pytest.mark.anyio
ENTRIES = {b"ebseg:%d" % i: b"v%d" % i for i in range(300)}  # in as good as as many slots


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    with redis_cluster() as nodes:
        yield nodes


def url_of(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


async def kept_in_the_third(store: RedisStore, metrics: Metrics, server: RedisServer) -> None:
    """Entries are stored in the database that the URL names, and found again."""
    store.put_later(ENTRIES, ttl_s=99, cache="text")
    await until(lambda: count(metrics, "stored") == len(ENTRIES))
    assert await get(store, *ENTRIES) == list(ENTRIES.values())
    assert server.client().info("keyspace")["db3"]["keys"] == len(ENTRIES)


async def test_a_cluster_is_asked_across_its_slots(cluster: list[RedisServer]) -> None:
    async with started(url_of(cluster), timeout_s=PATIENT_S) as (store, metrics):
        store.put_later(ENTRIES, ttl_s=1000, cache="text")
        await until(lambda: count(metrics, "stored") == len(ENTRIES))
        sizes = [node.client().dbsize() for node in cluster]
        assert (sum(sizes), min(sizes) > 50) == (len(ENTRIES), True)
        asked = [*ENTRIES, b"none"]
        assert await get(store, *asked) == [*ENTRIES.values(), None]
        store.delete_later(list(ENTRIES)[:299], cache="text")
        await until(lambda: sum(node.client().dbsize() for node in cluster) == 1)
        assert (count(metrics, "error"), breaker_state(metrics)) == (0, CLOSED)


async def test_a_cluster_keeps_stored_lists(cluster: list[RedisServer]) -> None:
    async with started(url_of(cluster[2:]), timeout_s=PATIENT_S) as (store, metrics):
        vocabularies = Vocabularies(store, metrics, max_classes=10)
        stored, created = await vocabularies.put("mine", [ClassEntry(name="sky")])
        other = Vocabularies(store, metrics, max_classes=10)
        assert created
        assert await other.get("mine") == stored
        assert [one.name for one in await other.summaries() if not one.builtin] == ["mine"]
        await other.delete("mine")


async def test_a_url_of_one_server_that_is_a_cluster_says_what_to_write(
    cluster: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with started(cluster[0].url, timeout_s=PATIENT_S) as (store, metrics):
        while breaker_state(metrics) != OPEN:
            assert await get(store, *ENTRIES) is None
    assert "whose URL begins with redis+cluster://" in caplog.text


@pytest.mark.slow
async def test_a_cluster_that_died_is_found_again() -> None:
    with redis_cluster() as nodes:
        async with started(url_of(nodes), breaker=quick_breaker()) as (store, metrics):
            assert await get(store, b"a", b"b") == [None, None]
            for node in nodes:
                node.kill()
            await tripped(store)
            assert breaker_state(metrics) == OPEN
            for node in nodes:
                node.start()  # with the slots that its file tells of
            await until(lambda: breaker_state(metrics) == CLOSED)
            store.put_later(ENTRIES, ttl_s=9, cache="text")
            await until(lambda: count(metrics, "stored") == len(ENTRIES))
            assert await get(store, *ENTRIES) == list(ENTRIES.values())


async def test_sentinels_say_where_the_server_is(tmp_path: Path) -> None:
    with redis_server(password="s3cret") as server, redis_sentinel(tmp_path, server) as port:
        url = f"redis+sentinel://:s3cret@127.0.0.1:{port}/{SERVICE}/3"
        async with started(url, timeout_s=PATIENT_S) as (store, metrics):
            await kept_in_the_third(store, metrics, server)
    async with started(url, timeout_s=PATIENT_S, breaker=quick_breaker()) as (store, metrics):
        await tripped(store)
        assert breaker_state(metrics) == OPEN


@pytest.mark.slow
async def test_what_sentinels_put_in_the_place_of_a_dead_server_is_used(tmp_path: Path) -> None:
    with redis_pair(tmp_path) as (first, second, port):
        url = f"redis+sentinel://127.0.0.1:{port}/{SERVICE}/0"
        async with started(url, breaker=quick_breaker()) as (store, metrics):
            store.put_later({b"a": b"1"}, ttl_s=99, cache="text")
            await until(lambda: count(metrics, "stored") == 1)
            wait_until(lambda: second.client().exists("a") == 1)
            first.kill()
            await tripped(store)
            await until(lambda: breaker_state(metrics) == CLOSED)
            assert second.client().info("replication")["role"] == "master"
            assert await get(store, b"a") == [b"1"]
            store.put_later({b"b": b"2"}, ttl_s=99, cache="text")
            await until(lambda: second.client().exists("b") == 1)


async def test_a_cluster_by_tls(tmp_path: Path) -> None:
    files = signed(tmp_path)
    with redis_cluster(files) as nodes:
        url = "rediss+cluster://" + ",".join(f"127.0.0.1:{tls_port(node)}" for node in nodes)
        async with started(url, timeout_s=PATIENT_S, breaker=quick_breaker()) as (store, metrics):
            await tripped(store)  # nobody trusts that authority
            assert breaker_state(metrics) == OPEN
        trusting = f"{url}?ssl_ca_certs={files.authority}"
        async with started(trusting, timeout_s=PATIENT_S) as (store, metrics):
            store.put_later(ENTRIES, ttl_s=1000, cache="text")
            await until(lambda: count(metrics, "stored") == len(ENTRIES))
            assert await get(store, *ENTRIES, b"none") == [*ENTRIES.values(), None]
            assert (count(metrics, "error"), breaker_state(metrics)) == (0, CLOSED)
        assert min(node.client().dbsize() for node in nodes) > 50


async def test_sentinels_and_their_server_by_tls(tmp_path: Path) -> None:
    files = signed(tmp_path)
    with (
        redis_server(*tls_options(files), password="s3cret") as server,
        redis_sentinel(tmp_path, server, tls=files) as port,
    ):
        url = f"rediss+sentinel://:s3cret@127.0.0.1:{port}/{SERVICE}/3"
        async with started(url, timeout_s=PATIENT_S, breaker=quick_breaker()) as (store, metrics):
            await tripped(store)
            assert breaker_state(metrics) == OPEN
        trusting = f"{url}?ssl_ca_certs={files.authority}"
        async with started(trusting, timeout_s=PATIENT_S) as (store, metrics):
            await kept_in_the_third(store, metrics, server)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (
            "redis+cluster://u:p%40@a:1,b,[::1]:3?ssl_ca_certs=f",
            RedisPlace("cluster", "redis://u:p%40@a:1/?ssl_ca_certs=f", (("a", 1), ("b", 6379), ("::1", 3))),
        ),
        (
            "rediss+sentinel://:p@a,b:2/m/7?sentinel_password=s",
            RedisPlace(
                "sentinel", "rediss://:p@a:26379/7?sentinel_password=s", (("a", 26379), ("b", 2)), "m"
            ),
        ),
        ("unix:///a.sock", RedisPlace("server", "unix:///a.sock")),
    ],
)
def test_urls_say_where_redis_is(url: str, place: RedisPlace) -> None:
    assert redis_place(url) == place
    assert load_settings({"redis_url": url}).redis_url == SecretStr(url)
    assert "p" not in shown(url).partition("://")[2]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a", "must begin with redis://"),
        ("redis+cluster://", "redis.cluster://HOST:PORT,HOST:PORT"),
        ("redis+cluster://a:1,", "hosts are HOST or HOST:PORT"),
        ("redis+cluster://a:99999", "hosts are HOST or HOST:PORT"),
        ("redis+cluster://a:1/2", "a cluster has no databases"),
        ("redis+sentinel://a:1", "what the sentinels call the servers"),
        ("redis+sentinel://a:1/main/x", "the number of a database"),
    ],
)
def test_urls_that_say_it_wrongly(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings({"redis_url": url})
    assert Settings.model_fields["redis_url"].default is None


@pytest.mark.parametrize("url", ["redis+cluster://a:1?nonsense=1", "redis+sentinel://a:1/m?nonsense=1"])
async def test_options_that_do_not_exist(url: str) -> None:
    with pytest.raises(ValueError, match="an option that does not exist"):
        async with started(url):
            pass
