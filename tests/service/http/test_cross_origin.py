"""Pages of other sites: what browsers ask before a request, and what they may read of the answer."""

import httpx
import pytest

from service.settings import SettingsError, load_settings
from tests.service.fakes import PNG, post, problem, running

pytestmark = pytest.mark.anyio

HERE = "https://pages.example"
KEY = "a key of some length"


async def preflight(client: httpx.AsyncClient, origin: str, method: str = "POST") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-api-key,x-request-id",
    }
    return await client.options("/v1/segment", headers=headers)


async def test_without_the_setting_no_page_of_another_site_may_call() -> None:
    async with running() as (client, _):
        asked = await preflight(client, HERE)
        answer = await post(client, headers={"Origin": HERE})
    assert problem(asked, 405)
    assert answer.status_code == 200
    assert not [name for name in [*asked.headers, *answer.headers] if name.startswith("access-control")]


async def test_listed_pages_may_call_and_read_what_comes() -> None:
    async with running(cors_origins=f"{HERE}, https://*.inner.example:8443", api_keys=KEY) as (client, _):
        for origin in (HERE, "https://a.inner.example:8443", "https://a.b.inner.example:8443"):
            asked = await preflight(client, origin)
            assert asked.status_code == 200, asked.text  # browsers send no key with it
            assert asked.headers["access-control-allow-origin"] == origin
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert "origin" in asked.headers["vary"].lower()
            headers = {"Origin": origin, "X-API-Key": KEY}
            answer = await client.post(
                "/v1/segment?classes=a", content=PNG, headers=headers | {"Content-Type": "image/png"}
            )
            assert answer.status_code == 200, answer.text
            assert answer.headers["access-control-allow-origin"] == origin
            exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
            assert {"X-Request-ID", "X-EBSeg-Model", "Server-Timing", "Retry-After"} <= exposed
            assert "access-control-allow-credentials" not in answer.headers
            # what is refused is for those pages to read, too
            refused = await post(client, headers={"Origin": origin})
            assert problem(refused, 401)
            assert refused.headers["access-control-allow-origin"] == origin
        large = await client.post("/v1/segment", content=b"x", headers={"Origin": HERE, "X-API-Key": KEY})
        assert problem(large, 415)
        assert large.headers["access-control-allow-origin"] == HERE


@pytest.mark.parametrize(
    "origin",
    [
        "https://pages.example.evil",
        "https://evilpages.example",
        "http://pages.example",
        "https://pages.example:444",
        "https://inner.example:8443",
        "https://evilinner.example:8443",
        "https://a.inner.example:8443.evil",
        "https://a.inner.example",
        "https://evil/.inner.example:8443",
        "https://a.innerXexample:8443",
        "null",
    ],
)
async def test_others_may_not(origin: str) -> None:
    async with running(cors_origins=f"{HERE},https://*.inner.example:8443") as (client, _):
        asked = await preflight(client, origin)
        answer = await post(client, headers={"Origin": origin})
    assert asked.status_code == 400
    for one in (asked, answer):
        assert "access-control-allow-origin" not in one.headers


async def test_a_star_is_for_all_and_other_methods_are_refused() -> None:
    async with running(cors_origins="*") as (client, _):
        asked = await preflight(client, "https://anybody.example")
        other = await preflight(client, "https://anybody.example", "PATCH")
        answer = await post(client, headers={"Origin": "https://anybody.example"})
    assert (asked.status_code, other.status_code) == (200, 400)
    for one in (asked, answer):
        assert one.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in one.headers


@pytest.mark.parametrize(
    "value",
    [
        "pages.example",
        "ftp://pages.example",
        "https://pages.example/path",
        "https://user@pages.example",
        "https://pa*ges.example",
        "https://*",
        "https://*.",
        "https://*.*.example",
        "https://a, *",
        "null",
        "https://a,,https://b",
        "https://pages.example:port",
    ],
)
def test_what_is_no_origin_stops_the_service(value: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins: "):
        load_settings({"cors_origins": value})


def test_origins_are_read_as_browsers_send_them() -> None:
    given = load_settings({"cors_origins": "HTTPS://Pages.Example/, http://localhost:3000,http://[::1]:8080"})
    assert given.cors_origins == ("https://pages.example", "http://localhost:3000", "http://[::1]:8080")
