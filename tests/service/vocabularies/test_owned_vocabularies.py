"""Whose a stored class list is: of the key that stored it, or everybody's."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx
import pytest

from service.caller import Caller, caller_var
from service.errors import ConflictError, NotFoundError
from service.settings import Settings
from service.vocabularies.shared_store import KEY, SharedStore
from service.vocabularies.store import MOST, ChangedError, LocalStore, Share
from service.vocabularies.stored_vocabulary import Ending, checked, decoded, encoded
from tests.service.caches.redis_server import RedisServer
from tests.service.fakes import post, problem, running
from tests.service.vocabularies.test_shared_vocabularies import Process, processes
from tests.service.vocabularies.vocabulary_lists import ENTRIES, ONE, own_sizes

pytestmark = pytest.mark.anyio
SHOP, FARM, ADMIN, NAMELESS = (f"a-secret-key-of-{name}" for name in ("shop", "farm", "admin", "nobody"))
LIST = {"classes": ["sky", "tree"]}


def entry(key: str, name: str = "", options: str = "") -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{name}:sha256:{digest}{options}" if name else f"sha256:{digest}"


KEYS: dict[str, Any] = {
    "api_keys": f"{entry(SHOP, 'shop')},{entry(FARM, 'farm')},{entry(NAMELESS)}",
    "admin_keys": entry(ADMIN, "boss"),
}


@pytest.fixture(params=["process", "redis"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service whose lists are in the process, then in Redis."""
    values: dict[str, Any] = dict(KEYS)
    if request.param == "redis":
        values["redis_url"] = request.getfixturevalue("empty_redis").url
        values["redis_timeout_ms"] = 1000
    async with running(**values) as (client, _):
        yield client


class Api:
    """What one key does."""

    def __init__(self, client: httpx.AsyncClient, key: str):
        self.client = client
        self.headers = {"X-API-Key": key}

    async def put(self, name: str, **values: Any) -> httpx.Response:
        return await self.client.put(f"/v1/vocabularies/{name}", json=LIST | values, headers=self.headers)

    async def get(self, name: str) -> httpx.Response:
        return await self.client.get(f"/v1/vocabularies/{name}", headers=self.headers)

    async def delete(self, name: str) -> httpx.Response:
        return await self.client.delete(f"/v1/vocabularies/{name}", headers=self.headers)

    async def segment(self, name: str) -> httpx.Response:
        return await post(self.client, {"vocabulary": name}, headers=self.headers)

    async def listed(self) -> dict[str, tuple[bool, str | None]]:
        """Whether they are shared, and their owner, by name; of stored lists."""
        answer = await self.client.get("/v1/vocabularies", headers=self.headers)
        found = answer.json()["vocabularies"]
        assert all(one["shared"] and "owner" not in one for one in found if one["builtin"])
        return {one["name"]: (one["shared"], one.get("owner")) for one in found if not one["builtin"]}


async def test_a_list_is_its_owners_alone(client: httpx.AsyncClient) -> None:
    shop, farm, admin = (Api(client, key) for key in (SHOP, FARM, ADMIN))
    assert (await shop.put("mine")).status_code == 201
    assert (await shop.get("mine")).json()["owner"] == "shop"
    assert (await shop.segment("mine")).status_code == 200
    for refused in (farm.get("mine"), farm.delete("mine"), farm.segment("mine")):
        reported = problem(await refused, 404)
        assert reported["detail"] == problem(await farm.get("none"), 404)["detail"]  # as if there were none
    assert problem(await farm.put("mine"), 409)["type"].endswith(":conflict")
    assert await farm.listed() == {}
    assert await shop.listed() == await admin.listed() == {"mine": (False, "shop")}
    assert (await admin.get("mine")).json()["classes"] == (await shop.get("mine")).json()["classes"]
    assert (await admin.put("mine", classes=["sea"])).status_code == 200
    assert (await shop.get("mine")).json()["size"] == 1  # still the shop's
    assert (await shop.delete("mine")).status_code == 204
    assert (await farm.put("mine")).status_code == 201
    assert (await shop.get("mine")).status_code == 404


async def test_a_shared_list_is_for_all_to_use_and_its_owners_to_change(client: httpx.AsyncClient) -> None:
    shop, farm, admin = (Api(client, key) for key in (SHOP, FARM, ADMIN))
    assert (await shop.put("ours", shared=True)).status_code == 201
    assert (await farm.segment("ours")).status_code == 200
    found = (await farm.get("ours")).json()
    assert found["shared"]
    assert "owner" not in found
    assert await farm.listed() == {"ours": (True, None)}
    for refused in (farm.put("ours"), farm.put("ours", shared=True), farm.delete("ours")):
        assert problem(await refused, 409)["detail"]
    assert (await shop.put("ours")).status_code == 200  # no longer
    assert (await farm.get("ours")).status_code == 404
    assert (await admin.delete("ours")).status_code == 204


async def test_a_key_without_a_name_is_known_by_its_digest(client: httpx.AsyncClient) -> None:
    """By its place among the keys it would lose its lists to another one when the keys change."""
    digest = hashlib.sha256(NAMELESS.encode()).hexdigest()
    assert (await Api(client, NAMELESS).put("mine")).json()["owner"] == f"sha256:{digest[:16]}"
    assert (await Api(client, SHOP).get("mine")).status_code == 404


async def test_lists_outlive_keys(empty_redis: RedisServer) -> None:
    """A list from before there were keys is everybody's, and a service without keys knows no owners."""
    async with running(redis_url=empty_redis.url, redis_timeout_ms=1000) as (client, service):
        assert service.redis is not None
        await service.redis.command("HSET", KEY, "older", encoded(checked("older", ONE)))
        answer = await client.put("/v1/vocabularies/old", json=LIST)
        assert (answer.status_code, answer.json()["shared"], "owner" in answer.json()) == (201, True, False)
    async with running(redis_url=empty_redis.url, redis_timeout_ms=1000, **KEYS) as (client, _):
        shop, farm = Api(client, SHOP), Api(client, FARM)
        assert await farm.listed() == {"old": (True, None), "older": (True, None)}
        assert (await farm.put("old", classes=["sea"])).status_code == 200  # a key that changes it
        assert (await shop.get("old")).json()["size"] == 1  # does not take it away from others
        assert (await farm.put("mine")).status_code == 201
    async with running(redis_url=empty_redis.url, redis_timeout_ms=1000) as (client, _):
        assert (await client.get("/v1/vocabularies/mine")).json()["size"] == 2


async def test_where_anybody_may_come_in_an_admin_keys_list_is_everybodys() -> None:
    async with running(admin_keys=KEYS["admin_keys"]) as (client, _):
        assert (await Api(client, ADMIN).put("mine")).json()["shared"]
        assert (await client.delete("/v1/vocabularies/mine")).status_code == 204


@pytest.mark.parametrize("place", ["process", "redis"])
async def test_a_key_has_its_share_of_the_places(place: str, request: pytest.FixtureRequest) -> None:
    """Replacing goes on, others are not concerned, and what is removed makes room."""
    redis = {"redis_url": request.getfixturevalue("empty_redis").url, "redis_timeout_ms": 1000}
    values: dict[str, Any] = KEYS | (redis if place == "redis" else {})
    async with running(max_vocabularies_per_key=3, **values) as (client, _):
        shop, farm = Api(client, SHOP), Api(client, FARM)
        for name in ("a", "b", "c"):
            assert (await shop.put(name)).status_code == 201
        reported = problem(await shop.put("d"), 409)
        assert reported["detail"] == "your key has its share: 3 vocabularies or 1 MiB; DELETE one first"
        assert (await shop.put("c", shared=True)).status_code == 200
        # the words of a list do not make it another key's
        assert (await farm.put("d", classes=['"owner":"shop",', "tree"])).status_code == 201
        assert (await shop.delete("b")).status_code == 204
        assert (await shop.put("e")).status_code == 201
        assert problem(await shop.put("f"), 409)["type"] == "urn:ebseg:problem:conflict"


@pytest.mark.parametrize("place", ["process", "redis"])
async def test_a_key_has_its_share_of_the_bytes(place: str, request: pytest.FixtureRequest) -> None:
    """A list that is one too long, or a longer one in the place of another, is refused."""
    async with AsyncExitStack() as stack:
        store: SharedStore | LocalStore = LocalStore()
        if place == "redis":
            first, _ = await stack.enter_async_context(processes(request.getfixturevalue("empty_redis")))
            store = first.vocabularies._store
        long = encoded(checked("a", ENTRIES, owner="shop"))
        share = Share("shop", 10, 2 * len(long))
        await store.write("a", long, None, share)
        await store.write("b", long, None, share)
        with pytest.raises(ConflictError, match="your key has its share"):
            await store.write("c", encoded(checked("c", ONE, owner="shop")), None, share)
        await store.write("c", encoded(checked("c", ONE, owner="farm")), None, Share("farm", 1, len(long)))
        with pytest.raises(ConflictError, match="your key has its share: 10 vocabularies or "):
            await store.write("b", encoded(checked("b", (*ENTRIES, *ONE), owner="shop")), long, share)
        assert (await store.endings()).keys() == {"a", "b", "c"}


def test_the_largest_share_is_all_there_is() -> None:
    (most,) = (m.le for m in Settings.model_fields["max_vocabularies_per_key"].metadata if hasattr(m, "le"))
    assert most == MOST


async def test_a_list_that_came_in_between_is_not_replaced(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        held = first.vocabularies._held

        async def slow(name: str) -> tuple[bytes | None, Ending | None]:
            """Another process stores its own between the look and the change."""
            found = await held(name)
            first.vocabularies._held = held  # type: ignore[method-assign]
            with calling("farm"):
                await second.vocabularies.put("mine", ENTRIES)
            return found

        first.vocabularies._held = slow  # type: ignore[method-assign]
        with calling("shop"), pytest.raises(ConflictError, match="another key's"):
            await first.vocabularies.put("mine", ONE)
        with calling("farm"):
            first.clock.now += 2
            assert (await first.vocabularies.get("mine")).entries == ENTRIES
        await _refused(first)


async def _refused(process: Process) -> None:
    with calling("shop"):
        with pytest.raises(NotFoundError, match="no vocabulary of this name"):
            await process.vocabularies.get("mine")
        assert await own_sizes(process.vocabularies) == {}


async def test_a_change_of_what_is_no_longer_there_is_refused() -> None:
    store = LocalStore()
    await store.write("a", b"1", None)
    for change in (store.write("a", b"2", None), store.write("a", b"2", b"3"), store.remove("a", b"3")):
        with pytest.raises(ChangedError):
            await change
    await store.write("a", b"2", b"1")
    await store.remove("a", b"2")
    assert await store.read("a") is None


@pytest.mark.parametrize(
    ("owner", "shared"), [("", True), ("shop", False), ("shop", True), ("sha256:ab", False)]
)
def test_the_end_of_a_stored_list_says_whose_it_is(owner: str, shared: bool) -> None:
    value = checked("mine", ENTRIES, owner=owner, shared=shared)
    raw = encoded(value)
    assert decoded("mine", raw) == value
    assert Ending.of(raw) == Ending(3, owner, shared)
    # a class that looks like an end, and an owner that is none
    sly = ONE[0].model_copy(update={"name": 'x","owner":"shop","schema":1,"size":1}'})
    assert Ending.of(encoded(checked("mine", (sly,)))) == Ending(1, "", shared=True)
    assert decoded("mine", raw.replace(b'"shop"', b'"farm"')) is None or owner != "shop"


@contextmanager
def calling(name: str) -> Iterator[None]:
    """As a request with a key of that name."""
    token = caller_var.set(Caller(name, name, everything=False))
    try:
        yield
    finally:
        caller_var.reset(token)
