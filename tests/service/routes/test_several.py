"""Several pictures a request."""

import asyncio
import email
import email.policy
import hashlib
import json
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.fakes import PNG, FakeEngine, encoded, fields, picture, post, problem, running
from tests.service.remote_pictures.picture_server import picture_server
from tests.waiting import until

pytestmark = pytest.mark.anyio
URL = "/v1/segment/batch"
OTHER = encoded(np.rot90(picture()).copy())


async def several(
    client: httpx.AsyncClient, *pictures: bytes, document: dict[str, Any] | None = None, **options: Any
) -> httpx.Response:
    files = [("image", ("a.png", one)) for one in pictures]
    data = {"request": json.dumps({"classes": ["sky", "tree"]} if document is None else document)}
    return await client.post(URL, files=files, data=data, **options)


async def test_each_picture_gets_what_it_gets_alone() -> None:
    async with running() as (client, service):
        answer = await several(client, PNG, OTHER, PNG)
        alone = [await post(client, image=one) for one in (PNG, OTHER, PNG)]
        await until(lambda: service.memory.reserved == 0)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert [one["status"] for one in found] == [200] * 3
    for one, expected in zip(found, alone, strict=True):
        assert one["answer"]["classes"] == expected.json()["classes"]
        assert one["answer"]["size"] == expected.json()["size"]
        assert one["answer"]["request_id"] == answer.headers["x-request-id"]


async def test_one_bad_picture_spoils_no_other() -> None:
    async with running(max_pixels=1000) as (client, service):
        large = encoded(picture(100, 100))
        answer = await several(client, PNG, b"no picture", PNG[:40], large, b"", PNG)
        refused = service.metrics.rejected.labels("too-many-pixels")._value.get()
        await until(lambda: service.memory.reserved == 0 and service.admission.pending == 0)
    found = answer.json()
    assert [one["status"] for one in found] == [200, 415, 400, 413, 400, 200]
    assert found[3]["problem"]["type"] == "urn:ebseg:problem:too-many-pixels"
    assert found[0]["answer"]["classes"] == found[5]["answer"]["classes"]
    assert refused == 1


async def test_a_picture_that_breaks_a_batch_fails_alone() -> None:
    black = encoded(np.zeros((6, 8, 3), np.uint8))
    white = encoded(np.full((6, 8, 3), 255, np.uint8))
    async with running(FakeEngine(error=RuntimeError("broken"))) as (client, _):
        answer = await several(client, white, black, white)
    found = answer.json()
    assert [one["status"] for one in found] == [200, 500, 200]
    assert "broken" not in answer.text


async def test_they_fill_batches() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    different = [encoded(picture() + np.uint8(number)) for number in range(9)]
    async with running(engine, max_batch_size=8) as (client, service):
        asking = asyncio.create_task(several(client, *different))
        await until(lambda: engine.running.is_set() and service.scheduler.depth + sum(engine.batches) == 9)
        gate.set()
        answer = await asking
    assert [one["status"] for one in answer.json()] == [200] * 9
    assert sum(engine.batches) == 9
    assert len(engine.batches) <= 3  # what came before the first began, and the rest together


async def test_multipart_out() -> None:
    async with running() as (client, _):
        answer = await several(client, PNG, b"no picture", headers={"Accept": "multipart/mixed, image/png"})
        alone = await post(client, headers={"Accept": "image/png"})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = list(email.message_from_bytes(head + answer.content, policy=email.policy.HTTP).iter_parts())
    assert [part.get_content_type() for part in parts] == ["image/png", "application/problem+json"]
    assert [part["X-Status"] for part in parts] == ["200", "415"]
    assert parts[0].get_payload(decode=True) == alone.content
    assert parts[0]["X-EBSeg-Model"] == alone.headers["x-ebseg-model"]
    assert json.loads(parts[1].get_content())["status"] == 415


async def test_forms_of_answers() -> None:
    async with running() as (client, _):
        png = problem(await several(client, PNG, headers={"Accept": "image/png"}), 406)
        both = await several(client, PNG, headers={"Accept": "multipart/mixed"})
        none = await several(client, PNG, headers={"Accept": "multipart/mixed;q=0, application/json"})
    assert "multipart/mixed" in png["detail"]
    assert both.headers["content-type"].startswith("multipart/mixed; boundary=")
    assert b"Content-Type: application/json" in both.content
    assert none.headers["content-type"] == "application/json"


async def test_limits_and_faults_of_the_whole() -> None:
    async with running(max_pictures=3, max_bytes=20_000) as (client, service):
        many = problem(await several(client, *[PNG] * 4), 422)
        nothing = problem(await client.post(URL, files={"classes": (None, "a")}), 422)
        query = problem(await client.post(f"{URL}?classes=a", files={"image": PNG}), 422)
        classes = problem(await several(client, PNG, document={"classes": []}), 422)
        unknown = problem(await several(client, PNG, document={"vocabulary": "nobody"}), 404)
        text = problem(await client.post(URL, files={"image": (None, "x"), "classes": (None, "a")}), 422)
        problem(await client.post(URL, json={"classes": ["a"]}), 415)
        problem(await several(client, b"x" * 20_001), 413)
        await until(lambda: service.memory.reserved == 0)
    assert "4 images are too many; 3 are taken" in fields(many)["image"]
    assert "no image" in fields(nothing)["image"]
    assert "classes" in fields(query)
    assert "classes" in fields(classes)
    assert unknown["type"].endswith("not-found")
    assert "image is a file" in fields(text)["image"]


async def test_by_url_beside_files() -> None:
    with picture_server() as server:
        host = f"127.0.0.1:{server.port}"
        async with running(url_private_hosts=host) as (client, _):
            files: list[tuple[str, Any]] = [
                ("image", ("a.png", PNG)),
                ("url", (None, f"http://{host}/a.png")),
                ("url", (None, "http://169.254.169.254/")),
                ("url", (None, f"http://{host}/missing")),
                ("classes", (None, "sky,tree")),
            ]
            answer = await client.post(URL, files=files)
    found = answer.json()
    assert [one["status"] for one in found] == [200, 200, 422, 424]
    assert found[0]["answer"]["classes"] == found[1]["answer"]["classes"]


async def test_places_and_keys_count_each_picture() -> None:
    key = "a key of some length"
    gate = threading.Event()
    async with running(FakeEngine(gate=gate), max_pending=2) as (client, service):
        asking = asyncio.create_task(several(client, *[PNG] * 4))
        await until(lambda: service.admission.pending == 2)
        gate.set()
        full = (await asking).json()
    assert sorted(one["status"] for one in full) == [200, 200, 429, 429]
    digest = hashlib.sha256(key.encode()).hexdigest()
    async with running(api_keys=f"shop:sha256:{digest}:use:rate=0.001:concurrency=9") as (client, _):
        problem(await several(client, PNG), 401)
        limited = await several(client, PNG, PNG, headers={"X-API-Key": key})
    assert [one["status"] for one in limited.json()] == [200, 429]
    assert limited.json()[1]["problem"]["type"].endswith("key-limited")


async def test_a_client_that_hangs_up_leaves_nothing_behind() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine) as (client, service):
        asking = asyncio.create_task(several(client, PNG, b"no picture", OTHER))
        await until(engine.running.is_set)
        asking.cancel()
        await asyncio.wait([asking])
        gate.set()
        await until(lambda: service.memory.reserved == 0 and service.admission.pending == 0)
        assert (await post(client)).status_code == 200
