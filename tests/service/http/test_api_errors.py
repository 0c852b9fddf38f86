"""What is refused, and how it is said."""

import asyncio
import base64
import contextlib
import json
import logging
import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.problems import MOST_FIELDS
from tests.service.bad_pictures import announcing
from tests.service.fakes import (
    BASE64,
    INFO,
    PNG,
    FakeEngine,
    encoded,
    fields,
    picture,
    post,
    problem,
    running,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("image", "status", "slug"),
    [
        (b"", 400, "bad-picture"),
        (b"just some text, whatever its name says\n", 415, "unsupported-media-type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported-media-type"),
        (b"%PDF-1.7 ...", 415, "unsupported-media-type"),
        (encoded(picture(60, 60))[:-40], 400, "bad-picture"),
        (encoded(picture(60, 60), "JPEG")[:-400], 400, "bad-picture"),
        (b"\xff\xd8\xff\xe0", 400, "bad-picture"),
        (announcing(60_000, 60_000), 413, "too-many-pixels"),
        (announcing(0, 10), 400, "bad-picture"),
    ],
)
async def test_pictures_that_cannot_be_used(image: bytes, status: int, slug: str) -> None:
    async with running() as (client, _):
        began = time.process_time()
        multipart = await post(client, image=image)
        document = {"classes": ["sky"], "image": base64.b64encode(image).decode()}
        plain = await client.post("/v1/segment", json=document)
        assert time.process_time() - began < 1
        good = await post(client)
    assert problem(multipart, status)["type"] == f"urn:ebseg:problem:{slug}"
    assert problem(plain, status)["type"] == f"urn:ebseg:problem:{slug}"
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "request"),
        ({"classes": ["a"], "vocabulary": "voc-20"}, "request"),
        ({"classes": []}, "classes"),
        ({"classes": 3}, "classes"),
        ({"classes": ""}, "classes.0"),
        ({"classes": '["sky"'}, "classes"),
        ({"classes": ["a", "b", "A "]}, "classes.2"),
        ({"classes": ["a", " "]}, "classes.1"),
        ({"classes": ["a" * 201]}, "classes.0"),
        ({"classes": ["a\u0000b"]}, "classes.0"),
        ({"classes": ["a", 3]}, "classes.1"),
        ({"classes": ["a", {"name": "b", "colour": "#000000"}]}, "classes.1.colour"),
        ({"classes": [{"name": "b", "color": "red"}]}, "classes.0.color"),
        ({"classes": [{"synonyms": ["b"]}]}, "classes.0.name"),
        ({"classes": [{"name": "a", "synonyms": "b"}]}, "classes.0.synonyms"),
        ({"classes": [str(i) for i in range(1025)]}, "classes"),
        ({"classes": ["a"], "templates": "vild2"}, "templates"),
        ({"classes": ["a"], "templates": ["no place"]}, "templates"),
        ({"classes": ["a"], "templates": []}, "templates"),
        ({"classes": ["a"], "templates": None}, "templates"),
        ({"classes": ["a"], "background": {"threshold": 1.5}}, "background.threshold"),
        ({"classes": ["a"], "background": {}}, "background.threshold"),
        ({"classes": ["a"], "outputs": ["rle", "jpeg"]}, "outputs.1"),
        ({"classes": ["a"], "outputs": []}, "outputs"),
        ({"classes": ["a"], "output_size": "large"}, "output_size"),
        ({"classes": ["a"], "output_size": {"long_side": 0}}, "output_size.long_side"),
        ({"classes": ["a"], "output_size": {"long_side": 16_000}}, "output_size"),
        ({"classes": ["a"], "balance": {"mean": "harmonic"}}, "balance.mean"),
        (
            {
                "classes": ["a"],
                "balance": {
                    "mean": "geometric",
                    "new": {"supervised": 1, "mask_attention": 0.5, "frozen": 0},
                    "trained": {"supervised": 1, "mask_attention": 0, "frozen": 0},
                },
            },
            "balance.new",
        ),
        (
            {
                "classes": ["a"],
                "balance": {"mean": "geometric", "new": {"supervised": 1, "mask_attention": 0, "frozen": 0}},
            },
            "balance",
        ),
        ({"classes": ["a"], "timeout_ms": 0}, "timeout_ms"),
        ({"classes": ["a"], "version": 0}, "version"),
        ({"classes": ["a"], "thresold": 0.5}, "thresold"),
        ({"vocabulary": "ade20k-847", "outputs": ["scores"], "output_size": {"long_side": 512}}, "outputs"),
    ],
)
async def test_fields_that_cannot_be_used(document: dict[str, Any], field: str) -> None:
    async with running() as (client, _):
        multipart = problem(await post(client, document), 422)
        plain = problem(await client.post("/v1/segment", json={**document, "image": BASE64}), 422)
    assert field in fields(multipart)
    assert fields(plain) == fields(multipart)


async def test_all_wrong_fields_are_told_at_once_up_to_a_bound() -> None:
    async with running() as (client, _):
        two = problem(await post(client, {"classes": ["a"], "x": 1, "outputs": ["y"]}), 422)
        many = problem(await post(client, {"classes": [{"name": "a", "y": 1}] * 1000}), 422)
    assert set(fields(two)) == {"x", "outputs.0"}
    assert fields(two)["x"] == "unknown field"
    assert len(many["errors"]) == MOST_FIELDS
    assert "and 999 more" in many["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"classes": [NaN}', b"\xff", b"[" * 5000])
async def test_broken_json(body: bytes) -> None:
    async with running() as (client, _):
        plain = await client.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
        files = {"image": ("p.png", PNG), "request": ("r.json", body)}
        multipart = await client.post("/v1/segment", files=files)
    assert problem(plain, 400)["type"] == "urn:ebseg:problem:malformed-request"
    assert problem(multipart, 400)["type"] == "urn:ebseg:problem:malformed-request"


async def test_json_that_is_no_object_or_has_no_picture() -> None:
    async with running() as (client, _):
        array = problem(await client.post("/v1/segment", json=[1]), 422)
        nothing = problem(await client.post("/v1/segment", json={"classes": ["a"]}), 422)
        letters = problem(await client.post("/v1/segment", json={"classes": ["a"], "image": "ä!"}), 422)
        many = await client.post("/v1/segment", json={"image": BASE64, "classes": ["a"], "x": [0] * 300_000})
    assert set(fields(array)) == {"request"}
    assert set(fields(nothing)) == {"image"}
    assert fields(letters)["image"].startswith("must be base64; character 0 is 'ä'. Send")
    assert "too many values" in problem(many, 400)["detail"]


async def test_form_that_cannot_be_used() -> None:
    url, image = "/v1/segment", ("image", ("p.png", PNG, "image/png"))
    request = {"request": json.dumps({"classes": ["a"]})}
    async with running() as (client, _):
        unknown = problem(await client.post(url, files=[image], data={"classes": "a", "colour": "red"}), 422)
        absent = problem(await client.post(url, files=[("picture", PNG)], data={"classes": "a"}), 422)
        text = problem(await client.post(url, data={"image": "x"}, files=[("request", b"{}")]), 422)
        twice = problem(await client.post(url, files=[image, image], data=request), 422)
        both = problem(await client.post(url, files=[image], data={**request, "classes": "a"}), 422)
        file = problem(await client.post(url, files=[image, ("classes", b"sky")]), 422)
        files = problem(await client.post(url, files=[image] * 3, data=request), 400)
        number = problem(
            await client.post(url, files=[image], data={"classes": "a", "background": "low"}), 422
        )
        side = problem(
            await client.post(url, files=[image], data={"classes": "a", "output_size": "big"}), 422
        )
    assert fields(unknown) == {"colour": "unknown field"}
    assert set(fields(absent)) == {"picture", "image"}
    assert set(fields(text)) == {"image"}
    assert fields(twice) == {"image": "given more than once; several images go to /v1/segment/batch"}
    assert fields(both) == {"classes": "give it inside the part request"}
    assert fields(file) == {"classes": "must be text, not a file"}
    assert "Too many files" in files["detail"]
    assert set(fields(number)) == {"background.threshold"}
    assert set(fields(side)) == {"output_size.long_side"}


async def test_broken_multipart() -> None:
    async with running() as (client, _):
        for boundary, body in (
            ("", b"--x\r\n"),
            ("; boundary=x", b"nonsense"),
            ("; boundary=x", b"--x\r\n\0"),
        ):
            headers = {"Content-Type": f"multipart/form-data{boundary}"}
            answer = await client.post("/v1/segment", content=body, headers=headers)
            assert problem(answer, 400)["type"] == "urn:ebseg:problem:malformed-request"


async def test_media_types_and_forms_that_are_not_taken() -> None:
    async with running() as (client, _):
        raw = await client.post("/v1/segment", content=PNG, headers={"Content-Type": "text/plain"})
        none = await client.post("/v1/segment", content=PNG)
        html = await post(client, headers={"Accept": "text/html"})
        more = await post(
            client, {"classes": ["a"], "outputs": ["png", "rle"]}, headers={"Accept": "image/png"}
        )
        same = await post(client, {"classes": ["a"], "outputs": ["png"]}, headers={"Accept": "image/png"})
    problem(raw, 415)
    problem(none, 415)
    assert "image/webp" in problem(html, 406)["detail"]
    assert set(fields(problem(more, 422))) == {"outputs"}
    assert same.status_code == 200


async def test_form_fields_are_utf_8() -> None:
    async with running() as (client, _):
        latin = b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\nb\xe4r\r\n--b--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        sent = await client.post("/v1/segment", content=latin, headers=headers)
        assert "classes is not UTF-8" in problem(sent, 400)["detail"]


async def test_compressed_bodies_are_refused_in_words() -> None:
    async with running() as (client, _):
        zipped = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        for sent in (
            await client.post("/v1/segment", content=b"x", headers=zipped),
            await client.put("/v1/vocabularies/mine", content=b"x", headers=zipped),
        ):
            assert "without a Content-Encoding" in problem(sent, 415)["detail"]
        assert (await post(client, headers={"Content-Encoding": "identity"})).status_code == 200


async def test_below_a_path_that_a_proxy_leaves() -> None:
    async with running(root_path="/tools/ebseg") as (client, _):
        near = problem(await client.get("/tools/ebseg/v1/model"), 404)
        other = await client.get("/tools/ebseg/v1/segment")
        bare = await client.get("/tools/ebseg")
        document = (await client.get("/tools/ebseg/openapi.json")).json()
        page = await client.get(bare.url.join(bare.headers["location"]))
    assert near["detail"].endswith("; did you mean /tools/ebseg/v1/models?")
    assert problem(other, 405)["detail"] == "this path does not take this method; use POST"
    # all of it is relative, so that it holds below further proxies
    assert (bare.status_code, bare.headers["location"]) == (308, "ebseg/")
    assert page.headers["content-type"].startswith("text/html")
    assert [server["url"] for server in document["servers"]] == ["."]


async def test_not_found() -> None:
    async with running() as (client, _):
        assert "at this path" in problem(await client.get("/nothing/here"), 404)["detail"]
        for near in ("/v1/segment/", "/segment"):
            assert problem(await client.post(near), 404)["detail"].endswith("; did you mean /v1/segment?")
        method = await client.get("/v1/segment")
        other = await client.patch("/v1/vocabularies/mine")
        problem(await post(client, {"vocabulary": "mine"}), 404)
        problem(await post(client, {"classes": ["a"], "model": "other"}), 404)
        wrong = problem(await post(client, {"classes": ["a"], "version": 4}), 404)
    problem(method, 405)
    assert method.headers["allow"] == "POST"
    assert problem(other, 405)["detail"] == "this path does not take this method; use DELETE or GET or PUT"
    assert other.headers["allow"] == "DELETE, GET, PUT"
    assert "loaded: 3" in wrong["detail"]


async def test_settings_bound_classes_and_pixels() -> None:
    async with running(max_classes=2, max_pixels=48) as (client, _):
        assert (await post(client)).status_code == 200
        names = problem(await post(client, {"classes": ["a", "b", "c"]}), 422)
        stored = problem(await post(client, {"vocabulary": "voc-20"}), 422)
        larger = problem(await post(client, image=encoded(picture(7, 7))), 413)
        out = problem(await post(client, {"classes": ["a"], "output_size": {"long_side": 9}}), 422)
    assert set(fields(names)) == {"classes"}
    assert set(fields(stored)) == {"vocabulary"}
    assert "7 x 7 = 49" in larger["detail"]
    assert set(fields(out)) == {"output_size"}


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 65, b"a\tb", "ü".encode()])
async def test_odd_request_ids_are_replaced(given: bytes) -> None:
    async with running() as (client, _):
        answer = await client.get("/livez", headers={b"X-Request-ID": given})
    assert len(answer.headers["x-request-id"]) == 32


async def test_an_error_in_the_engine_is_its_own_requests(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(error=RuntimeError("secret inside"))
    black = encoded(picture() * 0)
    with caplog.at_level(logging.ERROR, "service"):
        async with running(engine) as (client, _):
            answers = await asyncio.gather(*(post(client, image=image) for image in (PNG, black, PNG)))
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert "secret" not in answers[1].text
    assert problem(answers[1], 500)["type"] == "urn:ebseg:problem:internal-error"
    records = [record for record in caplog.records if record.name == "service.http.middleware"]
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert "secret inside" in str(records[0].exc_info[1])


async def test_full_queue_says_when_to_come_back() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine, max_pending=2) as (client, service):
        service.prices.observe(INFO, "predict", 48, 4.0)  # seconds that a picture of 6 x 8 pixels takes
        waiting = [asyncio.create_task(post(client)) for _ in range(2)]
        await until(lambda: engine.running.is_set() and service.admission.pending == 2)
        refused = await post(client)
        gate.set()
        answers = await asyncio.gather(*waiting)
        after = await post(client)
    seconds = int(refused.headers["retry-after"])
    assert f"{seconds} s" in problem(refused, 429)["detail"]
    assert seconds == 4  # until the first of the two is done
    assert [answer.status_code for answer in (*answers, after)] == [200, 200, 200]


async def test_deadline_counts_queueing_and_running() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    document = {"classes": ["a"], "timeout_ms": 1000}
    async with running(engine, max_pending=4) as (client, service):
        began = time.monotonic()
        first = asyncio.create_task(post(client, document))
        await until(engine.running.is_set)
        answers = await asyncio.gather(first, post(client, document))
        assert time.monotonic() - began > 0.9  # the gate is still closed: nothing else has ended them
        for answer in answers:
            assert " 1 s" in problem(answer, 504)["detail"]
        assert service.admission.pending == 0
        gate.set()
        good = await post(client)
    assert good.status_code == 200
    assert engine.batches == [1, 1]  # the one that waited in vain never ran


async def test_not_ready_while_loading_and_draining() -> None:
    gate = threading.Event()

    def load(folder: Path, **options: Any) -> FakeEngine:
        assert gate.wait(WAIT)
        return FakeEngine()

    async with running(load=load, ready=False) as (client, service):
        assert (await client.get("/livez")).json()["status"] == "alive"
        loading = [await client.get("/readyz"), await client.get("/startupz"), await post(client)]
        assert (await client.get("/v1/models")).json() == {"models": [], "missing": []}
        problem(await client.get("/v1/models/fake"), 404)
        gate.set()
        await until(lambda: service.state == "ready")
        for path, status in (("/readyz", "ready"), ("/startupz", "started")):
            assert (await client.get(path)).json()["status"] == status
        service.begin_drain()
        draining = [await client.get("/readyz"), await post(client)]
        assert (await client.get("/startupz")).status_code == 200
        assert (await client.get("/livez")).status_code == 200
    assert all("loading" in problem(answer, 503)["detail"] for answer in loading)
    assert all("shutting down" in problem(answer, 503)["detail"] for answer in draining)


async def test_a_model_that_cannot_be_loaded(caplog: pytest.LogCaptureFixture) -> None:
    def load(folder: Path, **options: Any) -> FakeEngine:
        raise RuntimeError("no such weights")

    called = []
    async with running(load=load, ready=False) as (client, service):
        service.on_failure = lambda: called.append(True)
        await until(lambda: service.state == "failed")
        answers = [await client.get(path) for path in ("/livez", "/readyz", "/startupz")]
    assert called == [True]
    assert str(service.failure) == "no such weights"
    assert all("could not be loaded" in problem(answer, 503)["detail"] for answer in answers)
    assert "no such weights" in caplog.text


async def test_client_that_hangs_up_frees_its_place() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine) as (client, service):
        first = asyncio.create_task(post(client))
        await until(engine.running.is_set)
        second = asyncio.create_task(post(client))
        await until(lambda: service.scheduler.depth == 1)
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second
        await until(lambda: service.admission.pending == 1)
        gate.set()
        answer: httpx.Response = await first
    assert answer.status_code == 200
    assert engine.batches == [1]
    assert not math.isnan(service.admission.retry_after())
