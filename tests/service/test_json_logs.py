"""Log lines."""

import json
import logging

import pytest

from service.logging import JsonFormatter, configure, request_id_var
from tests.service.fakes import post, running


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


@pytest.mark.usefixtures("own_logging")
def test_configured_logs_carry_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    token = request_id_var.set("id-2")
    logging.getLogger("service.y").info("inside")
    request_id_var.reset(token)
    logging.getLogger("service.y").debug("not this")
    logging.getLogger("service.y").info("outside")
    configure("warning", "text")
    logging.getLogger("service.y").warning("as text")
    lines = capsys.readouterr().err.splitlines()
    inside, outside = (json.loads(text) for text in lines[:2])
    assert (inside["message"], inside["request_id"]) == ("inside", "id-2")
    assert "request_id" not in outside
    assert lines[2].endswith("WARNING service.y as text [None]")
    assert len(lines) == 3


@pytest.mark.anyio
async def test_access_lines_hold_the_route_not_the_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.access"):
        async with running() as (client, _):
            await post(client)
            await client.get("/a/secret/path")
    records = [record for record in caplog.records if record.name == "service.access"]
    told = [(vars(record)["route"], vars(record)["status"]) for record in records]
    assert told == [("/v1/segment", 200), ("other", 404)]
    assert all(0 < vars(record)["duration_ms"] < 5000 for record in records)
    assert "secret" not in caplog.text
