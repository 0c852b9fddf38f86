"""Keys: who gets in."""

import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.errors import ForbiddenError, UnauthorizedError
from service.http.auth import NEEDED, ApiKeys, install_security, is_protected, require_admin, shown_key
from service.http.middleware import Requests
from service.http.problems import problem_response
from service.observability.metrics import Metrics
from service.settings import Settings, SettingsError, load_settings, to_toml
from tests.service.fakes import post, problem, running

pytestmark = pytest.mark.anyio

KEY, OTHER, ADMIN = "key-of-a-client-1", "key-of-a-client-2", "key-of-an-admin-1"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def scope(path: str = "/v1/segment", root_path: str = "", **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "root_path": root_path, "headers": raw}


KEYS = ApiKeys(api=[digest(KEY), digest(OTHER)], admin=[digest(ADMIN)])


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([], None),
        ([(b"authorization", b"Bearer k-1")], b"k-1"),
        ([(b"authorization", b"bEARER   k-1 ")], b"k-1"),
        ([(b"x-api-key", b"k-2")], b"k-2"),
        ([(b"authorization", b"Bearer k-1"), (b"x-api-key", b"k-2")], b"k-2"),
        ([(b"authorization", b"Basic azox")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", b"Bearerk-1")], None),
        ([(b"x-api-key", b" ")], None),
        ([(b"authorization", b"Bearer k-1"), (b"x-api-key", b"")], b"k-1"),
        ([(b"x-api-key", "schlüssel".encode())], "schlüssel".encode()),
    ],
)
def test_keys_in_headers(headers: list[tuple[bytes, bytes]], shown: bytes | None) -> None:
    assert shown_key(headers) == shown


@pytest.mark.parametrize(
    ("path", "protected"),
    [
        ("/v1/segment", True),
        ("/v1", True),
        ("/v1/", True),
        ("/v2", True),
        ("/v2/models/m/infer", True),
        ("/v2/healthy", True),
        ("/v2/health/ready", False),
        ("/v1/health/ready", True),
        ("/livez", False),
        ("/metrics", False),
        ("/docs", False),
        ("/openapi.json", False),
        ("/", False),
        ("/static/page.js", False),
        ("/v10/x", False),
    ],
)
def test_protected_paths(path: str, protected: bool) -> None:
    assert is_protected(path) is protected


def test_without_keys_all_but_administration_is_open() -> None:
    ApiKeys().check(scope())
    ApiKeys(admin=[digest(ADMIN)]).check(scope())
    ApiKeys().check(scope(x_api_key="any"))


@pytest.mark.parametrize("key", [KEY, OTHER, ADMIN])
def test_good_keys_open(key: str) -> None:
    KEYS.check(scope(x_api_key=key))
    KEYS.check(scope(authorization=f"Bearer {key}"))


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", KEY[:-1], KEY.upper(), digest(KEY), "ü" * 9000])
def test_all_others_do_not(key: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        KEYS.check(scope(x_api_key=key))
    assert not key or key not in caught.value.detail


def test_a_prefix_that_a_proxy_cuts_off_opens_nothing() -> None:
    with pytest.raises(UnauthorizedError):
        KEYS.check(scope("/api/v1/segment", root_path="/api"))
    KEYS.check(scope("/api/livez", root_path="/api"))


def test_every_digest_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (KEY, OTHER, ADMIN):
        compared.clear()
        KEYS.check(scope(x_api_key=key))
        assert [known.hex() for known in compared] == [digest(KEY), digest(OTHER), digest(ADMIN)]


def test_administration() -> None:
    KEYS.check_admin(scope(authorization=f"Bearer {ADMIN}"))
    with pytest.raises(UnauthorizedError):
        KEYS.check_admin(scope())
    for key in (KEY, "wrong"):
        with pytest.raises(ForbiddenError, match="admin key"):
            KEYS.check_admin(scope(x_api_key=key))
    for keys in (ApiKeys(), ApiKeys(api=[digest(KEY)])):
        for shown in (scope(), scope(x_api_key=KEY)):
            with pytest.raises(ForbiddenError, match="EBSEG_ADMIN_KEYS"):
                keys.check_admin(shown)


def test_settings_hold_digests_only() -> None:
    settings = Settings(api_keys=f"{KEY}, sha256:{digest(OTHER)}", admin_keys=ADMIN)  # type: ignore[arg-type]
    keys = ApiKeys.of(settings)
    keys.check(scope(x_api_key=OTHER))
    keys.check_admin(scope(x_api_key=ADMIN))
    for key in (KEY, ADMIN):
        assert key not in repr(settings) + repr(vars(keys))


def admin_app() -> FastAPI:
    """One route for administrators."""

    async def on_error(request: Request, error: Exception) -> Response:
        return problem_response(error, "id")

    app = FastAPI()
    app.add_exception_handler(ForbiddenError, on_error)
    app.add_exception_handler(UnauthorizedError, on_error)
    app.state.keys = ApiKeys(admin=[digest(ADMIN)])

    @app.post("/v1/models/{name}:pin", dependencies=[Depends(require_admin)])
    async def pin(request: Request) -> str:
        return "pinned"

    return app


@pytest.fixture
async def admin_client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(admin_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_admin_dependency(admin_client: httpx.AsyncClient) -> None:
    async def status(**headers: str) -> int:
        return (await admin_client.post("/v1/models/m:pin", headers=headers)).status_code

    assert await status(authorization=f"Bearer {ADMIN}") == 200
    assert await status() == 401
    assert await status(authorization="Bearer wrong-but-long-enough") == 403


async def test_over_http(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running(api_keys=f"{KEY},{OTHER}", admin_keys=ADMIN) as (client, service):
            missing = await post(client)
            wrong = await post(client, headers={"X-API-Key": "wrong-" + KEY})
            good = [await post(client, headers={"X-API-Key": key}) for key in (KEY, ADMIN)]
            good.append(await client.get("/v1/models", headers={"Authorization": f"Bearer {OTHER}"}))
            unknown = await client.get("/v1/nothing")
            open_paths = ("/livez", "/readyz", "/startupz", "/metrics", "/docs", "/openapi.json")
            opened = [await client.get(path) for path in open_paths]
            exposition = service.metrics.exposition().decode()
    for answer in (missing, wrong):
        document = problem(answer, 401)
        assert document["type"] == "urn:ebseg:problem:unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert "X-API-Key" in missing.json()["detail"]
    assert [answer.status_code for answer in good] == [200] * 3
    problem(unknown, 401)  # what is there is not shown to strangers
    assert [answer.status_code for answer in opened] == [200] * 6
    assert 'ebseg_rejected_total{reason="unauthorized"} 3.0' in exposition
    reported = caplog.text + exposition + missing.text + wrong.text
    assert not [key for key in (KEY, OTHER, ADMIN) if key in reported or digest(key) in reported]


async def test_refused_before_the_body_is_read() -> None:
    sent: list[Message] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("this is behind the door")

    async def receive() -> Message:
        raise AssertionError("nobody reads a stranger's body")

    async def send(message: Message) -> None:
        sent.append(message)

    door = Requests(inside, metrics=Metrics(), routes=[], keys=KEYS)
    await door(scope() | {"method": "POST"}, receive, send)
    assert [message.get("status") for message in sent] == [401, None]


async def test_a_stranger_with_a_large_body_gets_the_answer() -> None:
    async with running(api_keys=KEY, max_bytes=10) as (client, _):
        answer = await client.post("/v1/segment", content=b"x" * 100_000)
    problem(answer, 401)  # not 413: nobody looked at its bytes
    assert answer.headers["connection"] == "close"


async def test_documented() -> None:
    async with running(api_keys=KEY) as (client, _):
        schema = (await client.get("/openapi.json")).json()
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    segment = schema["paths"]["/v1/segment"]["post"]
    assert segment["security"] == [{"bearer": []}, {"apiKey": []}]
    assert "401" in segment["responses"]
    assert "security" not in schema["paths"]["/livez"]["get"]


def test_written_into_openapi() -> None:
    def schema() -> dict[str, Any]:
        return {
            "paths": {
                "/v1/segment": {"post": {"responses": {"200": {}}}},
                "/v1/models": {"get": {"responses": {"200": {}}}},
                "/v2/models/{model}/infer": {"post": {"responses": {"200": {}}}},
                "/v1/models/{name}:pin": {"post": {"responses": {"200": {}}, "security": NEEDED}},
                "/livez": {"get": {"responses": {"200": {}}}},
            }
        }

    open_, closed = schema(), schema()
    install_security(open_, required=False)
    install_security(closed, required=True)
    for made in (open_, closed):
        pin = made["paths"]["/v1/models/{name}:pin"]["post"]
        assert pin["security"] == [{"bearer": []}, {"apiKey": []}]
        assert pin["responses"].keys() == {"200", "401", "403", "429"}
        assert made["paths"]["/livez"]["get"] == {"responses": {"200": {}}}
    assert open_["paths"]["/v1/segment"]["post"] == {"responses": {"200": {}}}
    segment = closed["paths"]["/v1/segment"]["post"]
    assert segment["security"] == NEEDED
    assert segment["responses"].keys() == {"200", "401", "403", "429"}
    refusal = segment["responses"]["403"]
    assert (
        refusal["description"]
        == "Not permitted: another key is needed, or administration is off (`forbidden`)"
    )
    shown = refusal["content"]["application/problem+json"]
    assert shown["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert shown["examples"]["forbidden"]["value"]["status"] == 403
    models = closed["paths"]["/v1/models"]["get"]["responses"]
    assert models.keys() == {"200", "401", "429"}  # a key for reading is enough
    infer = closed["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
    shown = infer["403"]["content"]["application/json"]
    assert shown["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
    assert shown["example"]["error"]


NAMED = f"shop:sha256:{digest(KEY)}"


@pytest.mark.parametrize(
    ("entry", "reported"),
    [
        (
            "Shop:sha256:" + "0" * 64,
            "the name is of a-z, .*; an entry with sha256: is NAME:sha256:HEX:OPTIONS",
        ),
        ("shop:sha256:" + "0" * 63, "HEX has 64 digits of 0-9 and a-f, this one 63 characters; an entry"),
        (f"sha256 {digest(KEY)}", "a colon is missing behind sha256; an entry"),
        (f"{NAMED}:owner", "'owner' is no option; an entry"),
        (f"{NAMED}:read:rate=fast", "'rate=fast' is no option; an entry"),
        (f"sha256:{digest('')}", "is the digest of nothing"),
        (f"{NAMED},door:sha256:{digest(KEY)}:read", f"the key sha256:{digest(KEY)[:8]}... is given twice"),
        (f"{KEY},sha256:{digest(KEY)}", "is given twice"),
        (f"{NAMED}:rate=0", "rate and concurrency of a key are above 0"),
        (f"{NAMED}:concurrency=0:read", "rate and concurrency of a key are above 0"),
        (f"{NAMED},shop:sha256:{digest(OTHER)}", "two keys have the name shop"),
        (f"api-2:sha256:{digest(KEY)},{OTHER}", "two keys have the name api-2"),
    ],
)
def test_entries_that_cannot_be_used(entry: str, reported: str) -> None:
    with pytest.raises(SettingsError, match=reported):
        load_settings({"api_keys": entry})


def test_a_name_is_of_one_key_in_both_lists() -> None:
    """Or the requests of one would be counted for the other, and answered with its predictions."""
    with pytest.raises(SettingsError, match="api_keys and admin_keys: two keys have the name shop"):
        load_settings({"api_keys": NAMED, "admin_keys": f"shop:sha256:{digest(ADMIN)}"})


def test_entries_come_back_from_the_printed_settings(tmp_path: Path) -> None:
    entries = f"{NAMED}:read:rate=0.5:concurrency=3,sha256:{digest(OTHER)}"
    file = tmp_path / "c.toml"
    given = load_settings({"api_keys": entries})
    file.write_text(to_toml(given))
    assert load_settings(config=file).api_keys == given.api_keys


def test_names_and_roles() -> None:
    keys = ApiKeys(
        api=[f"{NAMED}:read", digest(OTHER), f"chief:sha256:{digest('chief' * 4)}:admin"],
        admin=[digest(ADMIN)],
    )

    def named(key: str, method: str) -> str:
        found = keys.check(scope(x_api_key=key) | {"method": method})
        assert found is not None
        return found.name

    assert named(KEY, "GET") == "shop"
    with pytest.raises(ForbiddenError, match="this key is for reading only"):
        named(KEY, "POST")
    assert named(OTHER, "POST") == "api-2"
    assert named(ADMIN, "POST") == "admin-1"
    for key in (ADMIN, "chief" * 4):
        keys.check_admin(scope(x_api_key=key))
    for key in (KEY, OTHER):
        with pytest.raises(ForbiddenError):
            keys.check_admin(scope(x_api_key=key))


async def test_the_log_and_a_metric_say_the_keys_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.access"):
        async with running(api_keys=f"{NAMED}:rate=1,{OTHER}") as (client, service):
            answers = [await post(client, headers={"X-API-Key": key}) for key in (KEY, OTHER, KEY)]
            await client.get("/livez")
            exposition = service.metrics.exposition().decode()
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert problem(answers[2], 429)["type"] == "urn:ebseg:problem:key-limited"
    assert answers[2].headers["retry-after"] == "1"
    logged = [vars(record)["key"] for record in caplog.records if record.name == "service.access"]
    assert logged == ["shop", "api-2", "shop"]
    for key, code, number in (("shop", 200, 1), ("shop", 429, 1), ("api-2", 200, 1)):
        assert f'ebseg_key_requests_total{{code="{code}",key="{key}"}} {number}.0' in exposition


async def test_an_admin_key_has_its_name_and_rate_where_others_need_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admin = f"chief:sha256:{digest(ADMIN)}:rate=1"
    with caplog.at_level(logging.INFO, "service.access"):
        async with running(admin_keys=admin) as (client, _):
            shown: list[dict[str, str]] = [{"X-API-Key": ADMIN}, {"X-API-Key": ADMIN}, {}, {"X-API-Key": KEY}]
            answers = [await post(client, headers=headers) for headers in shown]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200]
    logged = [vars(record)["key"] for record in caplog.records if record.name == "service.access"]
    assert logged == ["chief", "chief", None, None]


async def test_a_stranger_cannot_make_an_administrators_route_read() -> None:
    large = {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}
    async with running(admin_keys=ADMIN, max_bytes=10) as (client, _):
        stranger = await client.post("/v1/models/fake:pin", **large)  # type: ignore[arg-type]
    problem(stranger, 401)  # neither 413 nor 400: nobody looked at its bytes
    large["headers"] = {"Content-Type": "application/json", "X-API-Key": ADMIN}
    async with running(admin_keys=ADMIN) as (client, service):
        chief = await client.post("/v1/models/fake:pin", **large)  # type: ignore[arg-type]
        assert "at most 4096 bytes are taken here" in problem(chief, 413)["detail"]
        assert service.memory.reserved == 0


@pytest.mark.parametrize(("shared", "second"), [(False, ("miss", "embedded")), (True, ("hit", "l1"))])
async def test_what_caches_hold_is_another_keys_only_if_asked(shared: bool, second: tuple[str, str]) -> None:
    keys = f"{NAMED},{OTHER}"
    async with running(api_keys=keys, prediction_cache_bytes=1 << 20, share_caches=shared) as (
        client,
        _,
    ):
        answers = [await post(client, headers={"X-API-Key": key}) for key in (KEY, KEY, OTHER)]
    found = [answer.json()["caches"] for answer in answers]
    assert [(one["prediction"], one["text"]) for one in found] == [
        ("miss", "embedded"),
        ("hit", "l1"),
        second,
    ]
