import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from model.vocabulary.classes import Vocabulary
from service.routes.vocabularies import MOST_BODY_BYTES
from service.runtime import Service
from service.vocabularies.shared_store import KEY
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.fakes import FakeEngine, fields, post, problem, running
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio

URL = "/v1/vocabularies/mine"
CLASSES = [
    {"name": "sky", "color": "#87CEEB"},
    {"name": "tree", "synonyms": ["bush"], "trained": True},
    "umbrella",
]
STORED = {
    "name": "mine",
    "size": 3,
    "builtin": False,
    "shared": True,
    "classes": [
        {"name": "sky", "synonyms": [], "color": "#87CEEB"},
        {"name": "tree", "synonyms": ["bush"], "trained": True},
        {"name": "umbrella", "synonyms": []},
    ],
}


@pytest.fixture(params=["process", "redis"])
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a service whose lists are in the process, or in an empty Redis."""
    if request.param == "process":
        return {}
    server: RedisServer = request.getfixturevalue("empty_redis")
    return {"redis_url": server.url}


@asynccontextmanager
async def two(redis: RedisServer) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two services on one Redis."""
    async with running(redis_url=redis.url) as (first, _), running(redis_url=redis.url) as (second, _):
        yield first, second


async def own_sizes(client: httpx.AsyncClient) -> dict[str, int]:
    listed = (await client.get("/v1/vocabularies")).json()["vocabularies"]
    return {item["name"]: item["size"] for item in listed if not item["builtin"]}


async def test_what_is_stored_is_counted_with_the_hosts_memory() -> None:
    async with running(max_host_bytes=4000) as (client, service):
        names = {"classes": [f"class {number}" for number in range(300)]}
        assert problem(await client.put(URL, json=names), 413)["type"] == "urn:ebseg:problem:too-much-memory"
        other = service.memory.open()
        other.take(3990)
        refused = await client.put(URL, json={"classes": CLASSES})
        assert problem(refused, 429)["type"] == "urn:ebseg:problem:memory-full"
        other.close()
        assert (await client.put(URL, json={"classes": CLASSES})).status_code == 201
        assert service.memory.reserved == 0


async def test_put_get_list_delete(values: dict[str, Any]) -> None:
    async with running(**values) as (client, _):
        created = await client.put(URL, json={"classes": CLASSES})
        shown = await client.get(URL)
        listed = (await client.get("/v1/vocabularies")).json()["vocabularies"]
        replaced = await client.put(URL, json={"classes": [" one "]})
        sizes = await own_sizes(client)
        removed = await client.delete(URL)
        gone = [await client.get(URL), await client.delete(URL)]
        after = await own_sizes(client)
    assert (created.status_code, shown.status_code, replaced.status_code) == (201, 200, 200)
    assert created.json() == shown.json() == STORED
    assert replaced.json()["classes"] == [{"name": "one", "synonyms": []}]
    assert [item["name"] for item in listed] == [*Vocabulary.builtin_names(), "mine"]
    assert listed[0] == {"name": "coco-stuff-171", "size": 171, "builtin": True, "shared": True}
    assert (sizes, after) == ({"mine": 1}, {})
    assert (removed.status_code, removed.content) == (204, b"")
    assert all("no vocabulary of this name" in problem(answer, 404)["detail"] for answer in gone)


async def test_a_request_names_a_stored_list(values: dict[str, Any]) -> None:
    engine = FakeEngine()
    async with running(engine, **values) as (client, _):
        await client.put(URL, json={"classes": CLASSES})
        by_name = await post(client, {"vocabulary": "mine", "templates": "plain"})
        given = await post(client, {"classes": CLASSES, "templates": "plain"})
        await client.delete(URL)
        gone = await post(client, {"vocabulary": "mine"})
    assert by_name.status_code == 200
    answers = [answer.json()["classes"] for answer in (by_name, given)]
    assert answers[0] == answers[1]
    assert answers[0][0]["color"] == "#87ceeb"
    assert answers[0][1]["trained"] is True
    problem(gone, 404)


async def test_a_stored_list_is_bounded_by_the_services_classes(empty_redis: RedisServer) -> None:
    async with (
        running(redis_url=empty_redis.url) as (large, _),
        running(redis_url=empty_redis.url, max_classes=2) as (small, _),
    ):
        await large.put(URL, json={"classes": CLASSES})
        refused = problem(await small.put(URL, json={"classes": CLASSES}), 422)
        assert fields(refused)["classes"].startswith("3 classes")
        assert (await small.get(URL)).json() == STORED
        assert set(fields(problem(await post(small, {"vocabulary": "mine"}), 422))) == {"vocabulary"}


async def test_built_in_lists_are_read_only() -> None:
    async with running() as (client, _):
        for change in (
            client.put("/v1/vocabularies/voc-20", json={"classes": ["a"]}),
            client.delete("/v1/vocabularies/voc-20"),
        ):
            assert "built in" in problem(await change, 409)["detail"]
        shown = (await client.get("/v1/vocabularies/voc-20")).json()
    official = Vocabulary.builtin("voc-20").classes
    assert shown["classes"] == [{"name": item.name, "synonyms": list(item.synonyms)} for item in official]


async def test_names_that_cannot_be() -> None:
    async with running() as (client, _):
        for name in ("Mine", "-a", "a b", "a%0A", "%C3%A4", "a" * 101):
            url = f"/v1/vocabularies/{name}"
            for call in (client.get(url), client.delete(url), client.put(url, json={"classes": ["a"]})):
                assert set(fields(problem(await call, 422))) == {"path.name"}


LONG = ["\N{OLD ITALIC LETTER A}" * 200] * 100
WRONG: list[tuple[Any, str]] = [
    ({}, "classes"),
    ([], "request"),
    ("a", "request"),
    ({"classes": None}, "classes"),
    ({"classes": []}, "classes"),
    ({"classes": '["sky"'}, "classes"),
    ({"classes": [7]}, "classes.0"),
    ({"classes": ["a", ""]}, "classes.1"),
    ({"classes": ["a", " A"]}, "classes.1"),
    ({"classes": ["a\u0007"]}, "classes.0"),
    ({"classes": ["x" * 201]}, "classes.0"),
    ({"classes": [{"name": "a", "color": "red"}]}, "classes.0.color"),
    ({"classes": [{"name": "a", "weight": 1}]}, "classes.0.weight"),
    ({"classes": [{"synonyms": ["a"]}]}, "classes.0.name"),
    ({"classes": [str(i) for i in range(1025)]}, "classes"),
    ({"classes": ["a"], "templates": "plain"}, "templates"),
    ({"classes": [{"name": "a", "synonyms": ["x" * 201]}]}, "classes.0"),
    ({"classes": [{"name": str(i), "synonyms": LONG} for i in range(16)]}, "classes"),
]


async def test_wrong_lists() -> None:
    async with running() as (client, _):
        for document, field in WRONG:
            assert set(fields(problem(await client.put(URL, json=document), 422))) == {field}
        problem(await client.get(URL), 404)


async def test_bodies_that_are_no_list() -> None:
    kind = {"Content-Type": "application/json"}
    async with running() as (client, _):
        for body in (b"", b"{", b"\xff", b'{"classes": ["\\ud800"]}', b"[" * 5000):
            problem(await client.put(URL, content=body, headers=kind), 400)
        commas = b'{"classes": [' + b"1," * 200_001 + b"1]}"
        assert (
            "too many values" in problem(await client.put(URL, content=commas, headers=kind), 400)["detail"]
        )
        problem(await client.put(URL, data={"classes": "a"}), 415)
        problem(await client.put(URL, content=b"{}"), 415)
        long = json.dumps({"classes": ["a"]}).encode() + b" " * MOST_BODY_BYTES
        problem(await client.put(URL, content=long, headers=kind), 413)
        charset = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert (await client.put(URL, content=b'{"classes": ["a"]}', headers=charset)).status_code == 201


async def test_two_services_share_their_lists(empty_redis: RedisServer) -> None:
    async with two(empty_redis) as (first, second):
        assert (await first.put(URL, json={"classes": CLASSES})).status_code == 201
        assert (await second.get(URL)).json() == STORED
        assert await own_sizes(second) == {"mine": 3}
        assert (await second.put(URL, json={"classes": ["a"]})).status_code == 200
        async with asyncio.timeout(WAIT):  # 2 s, and what slow machines add
            while (await first.get(URL)).json()["size"] != 1:
                await asyncio.sleep(0.02)


async def test_a_damaged_list_is_no_error_of_the_service(empty_redis: RedisServer) -> None:
    async with two(empty_redis) as (first, second):
        empty_redis.client().hset(KEY, "mine", "garbage")
        assert "PUT it again" in problem(await first.get(URL), 404)["detail"]
        problem(await post(first, {"vocabulary": "mine"}), 404)
        assert await own_sizes(first) == {}
        assert (await first.put(URL, json={"classes": CLASSES})).status_code == 200
        assert (await second.get(URL)).json() == STORED


async def test_redis_away_and_back() -> None:
    with redis_server() as server:
        async with running(redis_url=server.url) as (client, service):
            await client.put(URL, json={"classes": CLASSES})
            server.kill()
            age(service, 100)
            assert (await client.get(URL)).json() == STORED
            assert (await post(client, {"vocabulary": "mine"})).status_code == 200
            for call in (
                client.put(URL, json={"classes": ["a"]}),
                client.delete(URL),
                client.get("/v1/vocabularies/other"),
            ):
                answer = await call
                assert "does not answer" in problem(answer, 503)["detail"]
                assert answer.headers["retry-after"] == "1"
            assert (await client.get("/v1/vocabularies/voc-20")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            server.start()
            async with asyncio.timeout(WAIT):
                while (await client.put(URL, json={"classes": ["a"]})).status_code != 201:
                    await asyncio.sleep(0.02)
            assert (await client.get(URL)).json()["size"] == 1


def age(service: Service, seconds: float) -> None:
    """Makes all copies older."""
    clock = service.vocabularies._clock
    service.vocabularies._clock = lambda: clock() + seconds


async def test_no_metric_holds_a_name(values: dict[str, Any]) -> None:
    async with running(**values) as (client, service):
        await client.put("/v1/vocabularies/secret-list", json={"classes": ["secret-class"]})
        await client.get("/v1/vocabularies/secret-list")
        text = service.metrics.exposition().decode()
    assert "secret" not in text
    assert 'ebseg_cache_ops_total{cache="vocabulary",result="hit",tier="l1"} 1.0' in text
    assert '{code="201",model="",route="/v1/vocabularies/{name}",version=""} 1.0' in text


async def test_docs_know_the_routes() -> None:
    async with running() as (client, _):
        schema = (await client.get("/openapi.json")).json()
    put = schema["paths"]["/v1/vocabularies/{name}"]["put"]
    body = put["requestBody"]["content"]["application/json"]["schema"]
    assert body["additionalProperties"] is False
    assert body["required"] == ["classes"]
    details = {"$ref": "#/components/schemas/VocabularyDetails"}
    for status in ("200", "201"):
        assert put["responses"][status]["content"] == {"application/json": {"schema": details}}
    for status in ("400", "401", "408", "409", "413", "415", "422", "500", "503"):
        assert set(put["responses"][status]["content"]) == {"application/problem+json"}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["components"]["schemas"])
    assert "content" not in schema["paths"]["/v1/vocabularies/{name}"]["delete"]["responses"]["204"]
