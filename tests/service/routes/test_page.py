"""`/` and `/static/...` over HTTP; tests/browser looks at the page itself."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.routes.page import FOLDER, assets
from tests.service.fakes import problem, running
from training.storybook.classes import CLASSES

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


async def test_page_and_all_that_it_names_are_served() -> None:
    async with running() as (client, _):
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        interface = await client.get("/docs")
        named = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text + interface.text)
        assert len(named) >= 5
        seen, waiting = set(), [name.removeprefix("static/") for name in named]
        while waiting:
            path = waiting.pop()
            answer = await client.get(f"/static/{path}")
            assert answer.status_code == 200, path
            assert answer.content == (FOLDER / path).read_bytes()
            seen.add(path)
            imported = re.findall(r'from "\./([a-z]+\.js)"', answer.text) if path.endswith(".js") else []
            waiting += [f"js/{name}" for name in imported if f"js/{name}" not in seen]
        written = {path for path in assets() if path.endswith((".js", ".css"))}
        assert {path for path in seen if path.endswith((".js", ".css"))} == written  # none is left over


@pytest.mark.parametrize(
    ("path", "media", "cache"),
    [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/static/js/app.js", "text/javascript; charset=utf-8", "no-cache"),
        ("/static/css/base.css", "text/css; charset=utf-8", "no-cache"),
        ("/static/scenes.json", "application/json", "no-cache"),
        ("/static/icon.svg", "image/svg+xml", "no-cache"),
        ("/static/scenes/village.jpg", "image/jpeg", "public, max-age=86400"),
    ],
)
async def test_headers(path: str, media: str, cache: str) -> None:
    async with running() as (client, _):
        got = await client.get(path)
        head = await client.head(path)
        again = await client.get(path, headers={"If-None-Match": f'"x", W/{got.headers["etag"]}'})
        changed = await client.get(path, headers={"If-None-Match": '"x"'})
    assert got.headers["content-type"] == media
    assert got.headers["cache-control"] == cache
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in got.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(got.content))
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == got.headers["etag"]
    assert (changed.status_code, changed.content) == (200, got.content)


async def test_what_the_page_may_send_is_told_by_the_settings() -> None:
    async with running(max_bytes=12_345, max_pixels=678) as (client, _):
        answer = await client.get("/static/limits.json")
        assert answer.json() == {"max_bytes": 12_345, "max_pixels": 678}
        assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["no.js", "", "../routes/page.py", "..%2f..%2fpyproject.toml", "%2e%2e/app.py", "js", "js/"]
)
async def test_nothing_else_is_served(path: str) -> None:
    async with running() as (client, _):
        problem(await client.get(f"/static/{path}"), 404)


async def test_page_needs_no_key_and_no_model_and_is_counted_by_its_template() -> None:
    async with running(api_keys="a-key-for-the-page-1") as (client, _):
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/static/js/app.js")).status_code == 200
        assert (await client.post("/")).status_code == 405
        metrics = (await client.get("/metrics")).text
        labels = 'code="200",model="",route="/static/{path:path}",version=""'
        assert f"ebseg_requests_total{{{labels}}} 1.0" in metrics
        assert '"/static/' not in (await client.get("/openapi.json")).text


def test_scenes_ask_for_what_the_demo_asks_for() -> None:
    listed: dict[str, Any] = json.loads((FOLDER / "scenes.json").read_text(encoding="utf-8"))
    tree = ast.parse((ROOT / "samples" / "demo.py").read_text(encoding="utf-8"))
    (table,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCENES"
    ]
    assert {scene["name"]: scene["classes"] for scene in listed["scenes"]} == {
        name: [*present, *absent] for name, (present, absent) in table.items()
    }
    assert listed["words"] == list(CLASSES)


@pytest.mark.parametrize("name", ["village", "harbour", "street", "room"])
def test_scenes_of_the_page_are_the_samples(name: str) -> None:
    packaged = FOLDER / "scenes" / f"{name}.jpg"
    assert packaged.read_bytes() == (ROOT / "samples" / f"{name}.jpg").read_bytes(), f"copy it to {packaged}"
