"""Log lines."""

import json
import logging
import re
import sys

import pytest

from service.observability.logging import (
    MOST_CHARACTERS,
    JsonFormatter,
    TextFormatter,
    configure,
    request_id_var,
)
from service.observability.trace_context import TraceContext, trace_var
from tests.service.fakes import PNG, post, running


def line(record: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    made: dict[str, object] = json.loads(text)
    return made


def test_fields_extras_and_tracebacks() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("service.x", logging.ERROR, "x.py", 1, "at %d\n%s", (3, "ä"), info)
    record.route = "/v1/segment"
    record.request_id = "id-1"
    made = line(record)
    assert made["message"] == "at 3\nä"
    assert (made["level"], made["logger"], made["route"]) == ("error", "service.x", "/v1/segment")
    assert made["request_id"] == "id-1"
    assert "ValueError: two" in str(made["traceback"])
    assert str(made["time"]).endswith("+00:00")
    assert "args" not in made


def test_configured_logs_carry_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    token = request_id_var.set("id-2")
    trace_token = trace_var.set(TraceContext("a" * 32, "b" * 16))
    logging.getLogger("service.y").info("inside")
    request_id_var.reset(token)
    trace_var.reset(trace_token)
    logging.getLogger("service.y").debug("not this")
    logging.getLogger("service.y").info("outside")
    configure("warning", "text")
    logging.getLogger("service.y").warning("as text")
    lines = capsys.readouterr().err.splitlines()
    inside, outside = (json.loads(text) for text in lines[:2])
    assert (inside["message"], inside["request_id"]) == ("inside", "id-2")
    assert (inside["trace_id"], inside["span_id"]) == ("a" * 32, "b" * 16)
    assert not {"request_id", "trace_id", "span_id"} & set(outside)
    assert lines[2].endswith("WARNING service.y as text")
    assert len(lines) == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_is_text_on_a_terminal_alone(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure("info", "auto")
    logging.getLogger("service.y").info("hello")
    logging.getLogger("uvicorn.error").info("Started server process")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("INFO service.y hello") if terminal else json.loads(line)["message"] == "hello"


def test_lines_are_bounded() -> None:
    try:
        raise ValueError("x" * 20_000 + " the end")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    made = line(logging.LogRecord("a", logging.ERROR, "x.py", 1, "y" * 20_000, (), info))
    assert made["message"] == "y" * MOST_CHARACTERS
    assert len(str(made["traceback"])) == MOST_CHARACTERS
    assert str(made["traceback"]).endswith(" the end")


def test_text_lines_hold_the_extras_and_one_id() -> None:
    record = logging.LogRecord("service.access", logging.INFO, "x.py", 1, "request", (), None)
    vars(record).update(request_id="id-3", trace_id="a" * 32, route="/v1/segment", status=200, model=None)
    text = TextFormatter().format(record)
    assert text.endswith(" INFO service.access request [id-3] route=/v1/segment status=200")


@pytest.mark.anyio
async def test_probes_are_counted_but_neither_timed_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    quiet = ["/livez", "/readyz", "/startupz", "/v2/health/live", "/static/js/app.js", "/metrics"]
    with caplog.at_level(logging.INFO, "service.access"):
        async with running() as (client, _):
            for path in quiet:
                assert (await client.get(path)).status_code == 200
            await client.get("/v1/models")
            text = (await client.get("/metrics")).text
    assert [vars(record)["route"] for record in caplog.records] == ["/v1/models"]
    timed = re.findall(r'ebseg_request_duration_seconds_count{.*route="([^"]*)"', text)
    counted = re.findall(r'ebseg_requests_total{.*route="([^"]*)".*} [1-9]', text)
    assert timed == ["/v1/models"]
    assert sorted(counted) == sorted([*quiet[:4], "/static/{path:path}", "/metrics", "/v1/models"])
    assert "_created" not in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.anyio
async def test_access_lines_hold_the_route_and_no_users_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.access"):
        async with running() as (client, _):
            answer = await post(client, {"classes": ["secret-class"]}, params={"q": "secret"})
            sent = int(answer.request.headers["content-length"])
            await client.get("/a/secret/path")
            await client.request("SECRET", "/livez")
    records = [vars(record) for record in caplog.records if record.name == "service.access"]
    logged = [(record["method"], record["route"], record["status"], record["model"]) for record in records]
    assert logged == [
        ("POST", "/v1/segment", 200, "fake/3"),
        ("GET", "other", 404, None),
        ("_OTHER", "/livez", 405, None),
    ]
    assert all(0 < record["duration_ms"] < 5000 for record in records)
    assert records[0]["bytes_in"] == sent > len(PNG)
    assert records[0]["bytes_out"] == len(answer.content)
    assert records[1]["bytes_in"] == 0
    assert {record["client"] for record in records} == {"127.0.0.1"}
    assert "secret" not in json.dumps(records, default=str).lower()
