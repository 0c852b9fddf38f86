"""Pictures that a request names by their URL, from a real web server."""

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.remote_pictures.fetcher import PictureFetcher
from service.runtime import Service
from tests.service.certificates import self_signed
from tests.service.fakes import BASE64, PNG, fields, post, problem, running
from tests.service.remote_pictures.picture_server import PictureServer, picture_server
from tests.service.remote_pictures.test_addresses import HOSTILE
from tests.waiting import until

pytestmark = pytest.mark.anyio
NAMES = ("pictures.test", "a.cdn.test")


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running_server:
        yield running_server


def hosts(server: PictureServer) -> dict[str, Any]:
    """Settings under which the server's names may be asked, wherever they are."""
    listed = ["127.0.0.1", *NAMES[:1], "*.cdn.test"]
    return {"url_private_hosts": [f"{one}:{server.port}" for one in listed]}


def resolving(service: Service, *addresses: Sequence[str]) -> list[str]:
    """Answers of the resolver from now on, the last one for ever, and the names it is asked."""
    left, names = list(addresses), list[str]()

    async def resolve(host: str, port: int) -> Sequence[str]:
        names.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    service.remote_pictures.close()
    service.remote_pictures = PictureFetcher(service.settings, resolve)
    return names


async def ask(client: httpx.AsyncClient, url: str, **more: Any) -> httpx.Response:
    return await client.post("/v1/segment", json={"url": url, "classes": ["sky", "tree"], **more})


def same(answer: httpx.Response, expected: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"] == expected.json()["classes"]


async def test_good_urls_are_served_as_the_picture_itself(server: PictureServer) -> None:
    base = f"127.0.0.1:{server.port}"
    server.redirects = {
        "/near": "a.png",
        "/far": f"http://a.cdn.test:{server.port}/b.png",
        "/near-far": "/far",
    }
    good = [
        f"http://{base}/a.png",
        f"HTTP://{base}/a.png?signed=1&key=%2F#part",
        f"http://{base}",
        f"http://{base}/ü/a%20b.png",
        f"http://{base}/chunked",
        f"http://pictures.test:{server.port}/a.png",
        f"http://PICTURES.test:{server.port}/a.png",
        f"http://a.cdn.test:{server.port}/a.png",
        f"http://{base}/near",
        f"http://{base}/far",
        f"http://{base}/near-far",
    ]
    async with running(**hosts(server)) as (client, service):
        resolving(service, ["127.0.0.1"])
        expected = await post(client)
        for url in good:
            same(await ask(client, url), expected)
        files = {"url": (None, good[0]), "classes": (None, "sky,tree")}
        form = await client.post("/v1/segment", files=files)
        same(form, expected)
        document = {"url": (None, good[0]), "request": (None, json.dumps({"classes": ["sky", "tree"]}))}
        same(await client.post("/v1/segment", files=document), expected)
        assert service.memory.reserved == 0
    assert {(encoding, key) for _, _, encoding, key in server.asked} == {("identity", None)}
    assert {host for _, host, _, _ in server.asked} == {
        base, f"pictures.test:{server.port}", f"a.cdn.test:{server.port}"
    }  # fmt: skip
    assert ("/%C3%BC/a%20b.png", base, "identity", None) in server.asked


async def test_hostile_urls_are_refused_by_the_service(server: PictureServer) -> None:
    listed = ["pictures.example", "*.cdn.example", "odd.example:8443"]
    options: dict[str, Any] = {"url_hosts": listed, "url_private_hosts": f"127.0.0.1:{server.port}"}
    async with running(**options, url_buckets="s3://shelf") as (client, service):
        names = resolving(service, ["127.0.0.1"])
        for url in HOSTILE:
            if url != f"http://127.0.0.1:{server.port}/":
                assert fields(problem(await ask(client, url), 422)).keys() == {"url"}, url
    assert names == []
    assert server.asked == []


async def test_an_address_of_ipv6() -> None:
    with picture_server(ipv6=True) as server:
        async with running(url_private_hosts=f"[::1]:{server.port}") as (client, _):
            assert (await ask(client, f"http://[0:0::1]:{server.port}/a.png")).status_code == 200
        assert server.asked[0][1] == f"[::1]:{server.port}"


async def test_without_the_setting_nothing_is_asked(server: PictureServer) -> None:
    async with running() as (client, service):
        names = resolving(service, ["127.0.0.1"])
        answer = await ask(client, f"http://127.0.0.1:{server.port}/a.png")
    assert "fetches no images" in fields(problem(answer, 422))["url"]
    assert server.asked == []
    assert names == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]],
)
async def test_a_public_host_at_a_private_address_is_refused(
    server: PictureServer, addresses: list[str]
) -> None:
    async with running(url_hosts=f"pictures.test:{server.port}") as (client, service):
        resolving(service, addresses)
        answer = await ask(client, f"http://pictures.test:{server.port}/a.png")
    assert "not public" in fields(problem(answer, 422))["url"]
    assert server.asked == []


async def test_a_resolver_that_changes_its_mind_is_asked_once(server: PictureServer) -> None:
    """What was checked is what is dialled."""
    async with running(**hosts(server)) as (client, service):
        names = resolving(service, ["127.0.0.1"], ["192.0.2.1"])
        assert (await ask(client, f"http://pictures.test:{server.port}/a.png")).status_code == 200
        assert names == ["pictures.test"]
    # the other way: a public answer first; were it looked up again, the server would be asked
    async with running(url_hosts=f"pictures.test:{server.port}", url_timeout_s=0.05) as (client, service):
        names = resolving(service, ["203.0.114.1"], ["127.0.0.1"])
        asked = len(server.asked)
        answer = await ask(client, f"http://pictures.test:{server.port}/a.png")
    assert problem(answer, 424)["type"].endswith("picture-not-fetched")
    assert names == ["pictures.test"]
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "from this host"),
        ("http://127.0.0.1/", "from this host"),
        ("http://[::1]/", "from this host"),
        ("//localhost/", "from this host"),
        ("http://u:p@127.0.0.1/", "must be http"),
        ("http://[::1/", "must be http"),
        ("file:///etc/passwd", "must be http"),
        ("s3://bucket/key", "bucket"),
        ("gopher://127.0.0.1/", "must be http"),
        ("data:image/png;base64,AAAA", "must be http"),
        ("http://2130706433/", "must be http"),
        ("http://127.0.0.1:1/", "from this host"),
        ("http://[::ffff:127.0.0.1]/", "from this host"),
        ("//pictures.test@169.254.169.254/", "must be http"),
        ("http://PICTURES.TEST./", "must be http"),
    ],
)
async def test_a_redirect_is_held_against_the_same_rules(server: PictureServer, place: str, why: str) -> None:
    server.redirects = {"/away": place}
    async with running(**hosts(server), url_buckets="s3://bucket") as (client, _):
        answer = await ask(client, f"http://127.0.0.1:{server.port}/away")
    if "[::1/" in place:
        assert problem(answer, 424)
    else:
        assert why in fields(problem(answer, 422))["url"]
    assert len(server.asked) == 1


async def test_a_redirect_to_a_public_host_is_looked_up_and_checked(server: PictureServer) -> None:
    server.redirects = {"/away": f"http://inner.test:{server.port}/a.png"}
    async with running(**hosts(server), url_hosts=f"inner.test:{server.port}") as (client, service):
        names = resolving(service, ["127.0.0.1"])
        answer = await ask(client, f"http://pictures.test:{server.port}/away")
    assert "not public" in fields(problem(answer, 422))["url"]
    assert names == ["pictures.test", "inner.test"]
    assert len(server.asked) == 1


async def test_redirects_that_go_on_for_ever_end(server: PictureServer) -> None:
    server.redirects = {"/round": "/round"}
    async with running(**hosts(server)) as (client, _):
        answer = await ask(client, f"http://127.0.0.1:{server.port}/round")
    assert "more than 3 times" in problem(answer, 424)["detail"]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/missing", 424, "status 404"),
        ("/gzip", 424, "compressed"),
        ("/no-http", 424, "cannot be asked"),
        ("/cut", 424, "cannot be asked"),
        ("/endless-head", 424, "cannot be asked"),
        ("/huge", 413, "too large"),
        ("/endless", 413, "too large"),
        ("/nothing", 400, "empty"),
        ("/endless-chunks", 413, "too large"),
        ("/no-chunk", 424, "cannot be asked"),
        ("/two-lengths", 424, "cannot be asked"),
        ("/no-length", 424, "cannot be asked"),
        ("/more", 400, "cut short"),
        ("/packed", 415, "gzip-compressed data"),
    ],
)
async def test_a_server_that_sends_no_picture(
    server: PictureServer, path: str, status: int, why: str
) -> None:
    async with running(**hosts(server), max_bytes=200_000) as (client, service):
        answer = await ask(client, f"http://127.0.0.1:{server.port}{path}")
        assert why in problem(answer, status)["detail"]
        assert service.memory.reserved == 0
        assert (await post(client)).status_code == 200
    if path in ("/endless", "/endless-chunks"):
        assert server.gone.wait(60)  # it was hung up on, and what was read stayed small
        assert server.sent < 20_000_000


@pytest.mark.parametrize("path", ["/slow", "/silent"])
async def test_a_server_that_takes_its_time_loses_it(server: PictureServer, path: str) -> None:
    url = f"http://127.0.0.1:{server.port}{path}"
    async with running(**hosts(server), url_timeout_s=0.2) as (client, service):
        assert "within 0.2 s" in problem(await ask(client, url), 424)["detail"]
        late = problem(await ask(client, url, timeout_ms=50), 504)
        assert "timeout_ms" in late["detail"]
        assert service.memory.reserved == 0


async def test_a_client_that_hangs_up_ends_the_fetching(server: PictureServer) -> None:
    async with running(**hosts(server), url_timeout_s=600) as (client, service):
        asking = asyncio.create_task(ask(client, f"http://127.0.0.1:{server.port}/silent"))
        await until(lambda: server.asked)
        asking.cancel()
        await asyncio.wait([asking])
        await until(lambda: service.memory.reserved == 0)


async def test_no_host_and_no_server(server: PictureServer) -> None:
    async with running(url_private_hosts="127.0.0.1:9,*.nowhere.test") as (client, _):
        assert "cannot be asked" in problem(await ask(client, "http://127.0.0.1:9/"), 424)["detail"]
        # RFC 6761: there is never such a host
        unknown = await ask(client, "http://a.nowhere.test/")
        assert "there is no host a.nowhere.test" in problem(unknown, 424)["detail"]


async def test_the_second_address_is_tried_where_the_first_does_not_answer(server: PictureServer) -> None:
    async with running(**hosts(server)) as (client, service):
        resolving(service, ["127.0.0.2", "127.0.0.1"])
        assert (await ask(client, f"http://pictures.test:{server.port}/a.png")).status_code == 200


@pytest.mark.parametrize(("name", "good"), [("pictures.test", True), ("b.cdn.test", False)])
async def test_a_certificate_is_compared_with_the_name(tmp_path: Path, name: str, good: bool) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    self_signed(certificate, key, *NAMES)
    with picture_server((certificate, key)) as server:
        async with running(**hosts(server)) as (client, service):
            resolving(service, ["127.0.0.1"])
            service.remote_pictures._tls = ssl.create_default_context(cafile=certificate)
            answer = await ask(client, f"https://{name}:{server.port}/a.png")
        assert answer.status_code == (200 if good else 424), answer.text
        assert len(server.asked) == good


BOTH: list[Callable[[str], dict[str, Any]]] = [
    lambda url: {"json": {"url": url, "image": BASE64, "classes": ["a"]}},
    lambda url: {"json": {"classes": ["a"]}},
    lambda url: {"data": {"url": url, "classes": "a"}, "files": {"image": ("a.png", PNG)}},
    lambda url: {"files": [("url", (None, url)), ("url", (None, url)), ("classes", (None, "a"))]},
    lambda url: {"data": {"classes": "a"}, "files": {"url": ("a.png", PNG)}},
    lambda url: {"files": {"classes": (None, "a")}},
]


@pytest.mark.parametrize("body", BOTH)
async def test_a_picture_comes_in_one_way(
    server: PictureServer, body: Callable[[str], dict[str, Any]]
) -> None:
    async with running(**hosts(server)) as (client, _):
        answer = await client.post("/v1/segment", **body(f"http://127.0.0.1:{server.port}/a.png"))
        assert problem(answer, 422)["errors"]
        query = await client.post(
            "/v1/segment?url=http://a/&classes=a", content=PNG, headers={"Content-Type": "image/png"}
        )
        assert "url" in fields(problem(query, 422))
    assert server.asked == []
