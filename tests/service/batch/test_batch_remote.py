"""`RemoteSegmenter`: a request is looked at once here, whatever the number of pictures, and arrives whole."""

import json
import time
from contextlib import closing
from threading import Event
from typing import Any

import pytest

from ebseg_client import BusyError, ConnectionFailedError, KeyRefusedError, Retry
from service.batch import remote
from service.batch.remote import RemoteSegmenter
from service.batch.worker import WorkerFailed
from service.schemas.segment import SegmentRequest
from tests.service.cli_calls import run
from tests.service.fakes import PNG, live
from tests.service.scripted_server import ANSWER, Answer, breaking, problem, scripted
from tests.waiting import WAIT

PICTURES = 5
SHARES = {"supervised": 0.2, "mask_attention": 0.7, "frozen": 0.1}
REQUEST: dict[str, Any] = {
    "classes": [
        {"name": "sky", "color": "#87ceeb", "threshold": 0.5},
        {"name": "tree", "synonyms": ["bush"], "trained": True},
        {"name": "car", "ignore": True},
    ],
    "templates": ["a photo of a {}."],
    "synonym_mode": "mean",
    "balance": {"mean": "arithmetic", "trained": SHARES, "new": SHARES},
    "background": None,
    "output_size": {"long_side": 320},
    "model": "m",
    "version": 2,
    "frame": 3,
    "palette": ["#ff0000"],
    "tiling": {"size": 512, "overlap": 64},
}


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What validates requests, each time that it does."""
    calls: list[str] = []

    def counted(name: str) -> None:
        own = getattr(SegmentRequest, name)

        def call(*args: Any, **more: Any) -> Any:
            calls.append(name)
            return own(*args, **more)

        monkeypatch.setattr(SegmentRequest, name, call)

    counted("model_validate")
    counted("model_validate_json")
    return calls


def test_a_request_is_validated_once_for_all_pictures(validated: list[str]) -> None:
    with live() as (url, _):
        request = {"classes": ["sky", "tree of rows"]}
        with closing(RemoteSegmenter(url, request, api_key=None, threads=2)) as segmenter:
            rows = list(segmenter.segment([{"id": str(index), "bytes": PNG} for index in range(PICTURES)]))
    assert [row["error"] for row in rows] == [None] * PICTURES
    # here, and by the service, which knows the document again
    assert validated == ["model_validate", "model_validate_json"]


def test_the_command_leaves_the_look_to_the_service(
    validated: list[str], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(PICTURES):
        (tmp_path / f"{index}.png").write_bytes(PNG)
    with live() as (url, _):
        words = ("--classes", "sky, tree of files", "--url", url, "--json")
        assert run("segment", tmp_path, *words, "--timeout", "1000") == 0  # no less for later pictures
    assert len(capsys.readouterr().out.splitlines()) == PICTURES
    assert validated == ["model_validate_json"]


def test_every_field_of_the_request_arrives() -> None:
    with scripted(Answer()) as server:
        with closing(RemoteSegmenter(server.url, REQUEST, api_key=None, threads=1)) as segmenter:
            (row,) = segmenter.segment([{"id": "a", "bytes": PNG}])
        sent = server.heard[0].document
    assert row["error"] is None
    assert sent.pop("timeout_ms") > 0
    assert sent.pop("outputs") == ["png"]
    of_other_outputs = {"regions", "subject"}
    assert (
        REQUEST.keys() | {"outputs", "timeout_ms", "vocabulary"} | of_other_outputs
        == SegmentRequest.model_fields.keys()
    )
    assert SegmentRequest.model_validate(sent) == SegmentRequest.model_validate(REQUEST)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own attempts follow each other at once."""
    monkeypatch.setattr("ebseg_client.sync_client.Retry", lambda: Retry(first_wait=0))
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)


@pytest.mark.usefixtures("hasty")
def test_a_busy_service_costs_time_and_no_row() -> None:
    """Longer than the client itself tries; what says something of the image is its row's error."""
    attempts = Retry().attempts
    answers = [problem(429, "too-many-requests")] * (2 * attempts + 1) + [problem(503, "loading")] * attempts
    with scripted(*answers, Answer(), problem(503, "out-of-memory"), Answer()) as server:
        with closing(RemoteSegmenter(server.url, REQUEST, api_key=None, threads=1)) as segmenter:
            rows = list(segmenter.segment([{"id": name, "bytes": PNG} for name in "abc"]))
        assert len(server.heard) == len(answers) + 3
    assert [row["error"] for row in rows] == [None, "T: out-of-memory [503] (request theirs)", None]


@pytest.mark.usefixtures("hasty")
def test_a_service_that_stays_busy_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would want a million rows that say so."""
    monkeypatch.setattr(remote, "PATIENCE_S", 1.0)
    with (
        scripted(problem(429, "too-many-requests")) as server,
        closing(RemoteSegmenter(server.url, REQUEST, api_key=None, threads=2)) as segmenter,
        pytest.raises(BusyError) as caught,
    ):
        list(segmenter.segment([{"id": name, "bytes": PNG} for name in "ab"]))
    failed = WorkerFailed.of(caught.value, server.url)
    assert (failed.usable, failed.trace) == (True, "")
    assert failed.text.startswith(f"{server.url}: T: too-many-requests [429]")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("retry_after", [None, 100])
def test_a_fault_ends_the_pauses_of_others_and_is_what_is_told(
    retry_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two requests at a time the first is told to come back, here or in the client's own attempts."""
    monkeypatch.setattr(remote, "PAUSE_S", 100.0)
    attempts = Retry().attempts if retry_after is None else 1
    busy = [problem(429, "too-many-requests", retry_after)] * attempts
    paused = Event()

    class Late(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            assert paused.wait(WAIT)
            return super().get(name, default)

    with scripted(*busy, problem(401, "unauthorized")) as server:
        segmenter = RemoteSegmenter(
            server.url, REQUEST, api_key=None, threads=2, waits=lambda why: paused.set()
        )
        if retry_after is not None:
            monkeypatch.setattr(segmenter._client, "_wait", pausing(segmenter._client._wait, paused))
        began = time.monotonic()
        with closing(segmenter), pytest.raises(KeyRefusedError):
            list(segmenter.segment([{"id": "a", "bytes": PNG}, Late(id="b", bytes=PNG)]))
        assert time.monotonic() - began < 50
        assert len(server.heard) == attempts + 1


def pausing(own: Any, paused: Event) -> Any:
    def wait(seconds: float) -> None:
        paused.set()
        own(seconds)

    return wait


@pytest.mark.usefixtures("hasty")
def test_who_stops_early_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 100.0)
    paused = Event()
    with (
        scripted(Answer(), problem(429, "too-many-requests")) as server,
        closing(
            RemoteSegmenter(server.url, REQUEST, api_key=None, threads=1, waits=lambda why: paused.set())
        ) as segmenter,
    ):
        rows = segmenter.segment([{"id": name, "bytes": PNG} for name in "ab"])
        assert next(rows)["error"] is None
        assert paused.wait(WAIT)
        began = time.monotonic()
        rows.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 50


@pytest.mark.usefixtures("hasty")
def test_a_service_that_hangs_up_is_asked_again() -> None:
    """As often as its pod takes to be replaced: more than the client itself tries."""
    broken, told = 2 * Retry().attempts, list[str]()
    body = json.dumps(ANSWER).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
    with (
        breaking(broken, head + str(len(body)).encode() + b"\r\n\r\n" + body) as (url, served),
        closing(RemoteSegmenter(url, REQUEST, api_key=None, threads=1, waits=told.append)) as segmenter,
    ):
        (row,) = segmenter.segment([{"id": "a", "bytes": PNG}])
    assert (row["error"], len(served), told) == (None, broken + 1, [remote.AWAY] * 2)


@pytest.mark.usefixtures("hasty")
def test_a_service_that_stays_away_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_S", 1.0)
    told: list[str] = []
    with (
        closing(
            RemoteSegmenter("http://127.0.0.1:9", REQUEST, api_key=None, threads=1, waits=told.append)
        ) as segmenter,
        pytest.raises(ConnectionFailedError),
    ):
        list(segmenter.segment([{"id": "a", "bytes": PNG}]))
    assert set(told) == {remote.AWAY}
