"""The picture itself as the body with the request in the query, and pictures that travel as text."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from service.schemas.picture_text import picture_bytes
from tests.service.fakes import PNG, encoded, fields, picture, post, problem, running

pytestmark = pytest.mark.anyio
TEXT = base64.b64encode(PNG).decode()


async def raw(
    client: httpx.AsyncClient, query: str, body: bytes = PNG, media: str = "image/png", headers: Any = None
) -> httpx.Response:
    return await client.post(
        f"/v1/segment?{query}", content=body, headers={"Content-Type": media} | (headers or {})
    )


def masks(answer: httpx.Response) -> dict[str, Any]:
    """What an answer says of the picture, without ids and times."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return {name: document[name] for name in ("size", "classes", "background", "model")}


async def test_it_answers_as_the_form_does() -> None:
    request = {"classes": ["sky", "tree"], "background": {"threshold": 0.3}, "outputs": ["rle", "polygons"]}
    queries = [
        "classes=sky,tree&background=0.3&outputs=rle,polygons",
        "classes=sky&classes=tree&background=0.3&outputs=rle&outputs=polygons",
        'classes=["sky","tree"]&background=0.3&outputs=["rle","polygons"]',
        str(httpx.QueryParams({"request": json.dumps(request)})),
    ]
    async with running() as (client, _):
        form = masks(await post(client, request))
        for query in queries:
            assert masks(await raw(client, query)) == form
        for media in ("image/jpeg", "IMAGE/PNG; q=1", "application/octet-stream"):  # the content tells
            assert masks(await raw(client, queries[0], media=media)) == form
        jpeg = encoded(picture(), "JPEG")
        assert masks(await raw(client, queries[0], jpeg)) == masks(await post(client, request, image=jpeg))
        mask = await raw(client, "classes=sky,tree", headers={"Accept": "image/png"})
        assert (
            mask.content
            == (await post(client, {"classes": ["sky", "tree"]}, headers={"Accept": "image/png"})).content
        )


async def test_a_body_without_a_length_and_in_pieces() -> None:
    async def pieces() -> Any:
        for at in range(0, len(PNG), 10):
            yield PNG[at : at + 10]
            await asyncio.sleep(0)

    async with running() as (client, _):
        headers = {"Content-Type": "image/png"}
        streamed = await client.post("/v1/segment?classes=sky", content=pieces(), headers=headers)
        assert masks(streamed) == masks(await raw(client, "classes=sky"))


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("", "request", "give either classes or vocabulary"),
        ("classes=a&colour=red", "colour", "unknown field"),
        ("classes=a&image=x", "image", "unknown field"),
        ("classes=a&model=m&model=n", "model", "given more than once"),
        ("classes=a&background=low", "background.threshold", "number"),
        ('classes=["a"', "classes", "JSON"),
        ('request={"classes":["a"]}&classes=b', "classes", "inside request"),
        ("classes=a&templates=plain&output_size=big", "output_size.long_side", "whole number"),
    ],
)
async def test_queries_that_cannot_be_used(query: str, field: str, message: str) -> None:
    async with running() as (client, _):
        reported = fields(problem(await raw(client, query), 422))
    assert set(reported) == {field}
    assert message in reported[field]


async def test_other_faults() -> None:
    async with running(max_bytes=5000, max_pixels=48) as (client, _):
        assert "not UTF-8" in problem(await raw(client, "classes=%ff"), 400)["detail"]
        many = "&".join("a" * 9000)
        assert "more than 8192 fields" in problem(await raw(client, many), 400)["detail"]
        problem(await raw(client, "classes=a", b"no picture"), 415)
        problem(await raw(client, "classes=a", b""), 400)
        problem(await raw(client, "classes=a", encoded(picture(60, 60))[:-40]), 413)
        problem(await raw(client, "classes=a", b"x" * 5001), 413)
        packed = await raw(client, "classes=a", headers={"Content-Encoding": "gzip"})
        assert "Content-Encoding" in problem(packed, 415)["detail"]
        # what curl --data-binary says unless asked otherwise
        form = problem(await raw(client, "classes=a", media="application/x-www-form-urlencoded"), 415)
        assert "an image as image/jpeg" in form["detail"]
        assert "'application/x-www-form-urlencoded'" in form["detail"]


async def test_a_query_beside_a_form_or_a_document_is_refused() -> None:
    async with running() as (client, _):
        form = await client.post("/v1/segment?classes=sky", files={"image": PNG}, data={"classes": "tree"})
        document = {"image": TEXT, "classes": ["tree"]}
        whole = await client.post("/v1/segment?classes=sky&model=m", json=document)
        other = await client.post("/v1/segment?utm=1", json=document)
    assert set(fields(problem(form, 422))) == {"classes"}
    assert set(fields(problem(whole, 422))) == {"classes", "model"}
    assert other.status_code == 200  # not ours


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;charset=x;BASE64,{TEXT}",
        f"data:;base64,{TEXT.replace('+', '%2B').replace('/', '%2F')}",
        base64.encodebytes(PNG).decode(),
        f"data:image/png;base64,{base64.encodebytes(PNG).decode()}",
        TEXT.replace("A", "A\r\n ", 3),
    ],
)
async def test_pictures_as_text(text: str) -> None:
    assert picture_bytes(text) == picture_bytes(text.encode()) == PNG
    async with running() as (client, _):
        answer = await client.post("/v1/segment", json={"image": text, "classes": "sky"})
        tensors = [
            {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]},
            {"name": "classes", "shape": [1], "datatype": "BYTES", "data": ["sky"]},
        ]
        infer = await client.post("/v2/models/fake/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    assert infer.status_code == 200, infer.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"data:image/png,{TEXT}", "a data URL is taken in base64 only"),
        (f"data:image/png;base64{TEXT}", "a data URL is taken in base64 only"),
        (f"data:{'x' * 300};base64,{TEXT}", "a data URL is taken in base64 only"),
        ("https://pictures.example/a.png", "this is a URL, which goes into the field url; send"),
        (f"{TEXT[:20]}-{TEXT[20:]}", "character 20 is '-', which only the form for URLs has"),
        (f"{TEXT[:5]}!{TEXT[5:]}", "character 5 is '!'. Send an image's bytes"),
        ("ünique", "character 0 is 'ü'"),
        (TEXT.rstrip("=")[:-1] + "=" * (TEXT[-1] == "x"), "cut short"),
        ("data:image/png;base64,ab", "cut short"),
    ],
)
async def test_text_that_is_no_picture_says_what_was_seen(text: str, message: str) -> None:
    async with running() as (client, _):
        reported = problem(await client.post("/v1/segment", json={"image": text, "classes": "sky"}), 422)
    assert message in fields(reported)["image"]
