"""Several pictures in one request, and pictures that the service fetches, with both clients."""

import itertools
from typing import Any

import pytest

from ebseg_client import (
    AnswerError,
    AsyncEBSegClient,
    BusyError,
    EBSegClient,
    FieldsRefusedError,
    InputError,
    PictureRefusedError,
    PictureUrl,
    Retry,
    Segmented,
)
from tests.service.fakes import PNG, FakeEngine, encoded, live, picture
from tests.service.remote_pictures.picture_server import picture_server
from tests.service.scripted_server import ANSWER, Answer, problem, scripted
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio
CLASSES = ["sky", "tree", "road"]
QUICK = Retry(attempts=4, first_wait=0.01, longest_wait=0.02)
GOOD = {"status": 200, "answer": ANSWER}


def refused(status: int, slug: str) -> dict[str, Any]:
    return {"status": status, "problem": problem(status, slug).body}


async def ask(asynchronous: bool, url: str, *arguments: Any, **options: Any) -> list[Segmented]:
    """What one of the clients gives."""
    if asynchronous:
        async with AsyncEBSegClient(url, timeout=WAIT, retry=QUICK) as other:
            return await other.segment_together(*arguments, **options)
    with EBSegClient(url, timeout=WAIT, retry=QUICK) as client:
        return client.segment_together(*arguments, **options)


async def both(url: str, *arguments: Any, **options: Any) -> list[list[Segmented]]:
    """What each of them gives."""
    return [await ask(asynchronous, url, *arguments, **options) for asynchronous in (False, True)]


async def test_pictures_of_one_request_have_answers_in_their_order() -> None:
    engine = FakeEngine()
    pictures = [encoded(picture(4, width)) for width in (3, 5)]
    with live(engine) as (url, _):
        for found in await both(url, [pictures[0], b"no picture", pictures[1]], CLASSES, background=0.5):
            assert [one.picture for one in found] == [pictures[0], b"no picture", pictures[1]]
            assert [found[0].get().width, found[2].get().width] == [3, 5]
            assert isinstance(found[1].error, PictureRefusedError)
            assert found[1].error.request_id
            assert found[0].get().background.threshold == 0.5


async def test_the_service_fetches_a_picture() -> None:
    with picture_server() as server, live(url_private_hosts=[f"127.0.0.1:{server.port}"]) as (url, service):
        there = PictureUrl(f"http://127.0.0.1:{server.port}/a.png")
        other = PictureUrl("http://elsewhere.test/a.png")
        with EBSegClient(url, timeout=WAIT) as client:
            expected, got = client.segment(PNG, CLASSES), client.segment(there, CLASSES)
            assert (got.labels == expected.labels).all()
            assert got.timings_ms["fetch"] > 0
            assert "fetch" not in expected.timings_ms
            with pytest.raises(FieldsRefusedError, match="url"):
                client.segment(other, CLASSES)
            with pytest.raises(InputError, match="not here"):
                got.overlay(there)
        for found in await both(url, [there, PNG, other], CLASSES):
            assert [one.result is not None for one in found] == [True, True, False]
            assert isinstance(found[2].error, FieldsRefusedError)
        labels = {"stage": "fetch", "model": "fake", "version": "3", "device": ""}
        assert service.metrics.registry.get_sample_value("ebseg_stage_duration_seconds_count", labels) == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_pictures_that_there_was_no_room_for_are_sent_again_alone(asynchronous: bool) -> None:
    busy = refused(429, "queue-full")
    first = [busy, GOOD, refused(400, "bad-picture"), busy]
    pictures = [b"<one>", b"<two>", b"<three>", b"<four>"]
    with scripted(Answer(body=first), Answer(body=[GOOD, busy]), Answer(body=[GOOD])) as server:
        found = await ask(asynchronous, server.url, pictures, CLASSES)
    sent = [[one for one in pictures if one in heard.body] for heard in server.heard]
    assert sent == [pictures, pictures[::3], pictures[3:]]
    assert [one.error is None for one in found] == [True, True, False, True]
    assert isinstance(found[2].error, PictureRefusedError)


async def test_patience_ends_with_the_attempts() -> None:
    with scripted(Answer(body=[refused(429, "queue-full")])) as server:
        for found in await both(server.url, [b"a"], CLASSES):
            assert isinstance(found[0].error, BusyError)
            assert found[0].error.attempts == QUICK.attempts
        assert len(server.heard) == 2 * QUICK.attempts
    with scripted(problem(429, "queue-full")) as server, EBSegClient(server.url, retry=QUICK) as client:
        with pytest.raises(BusyError):
            client.segment_together([b"a", b"b"], CLASSES)  # as a whole
        assert len(server.heard) == QUICK.attempts


@pytest.mark.parametrize("body", [{}, [], [GOOD, GOOD], "[]"])
async def test_answers_that_are_none_to_these_pictures(body: Any) -> None:
    with scripted(Answer(body=body)) as server, pytest.raises(AnswerError):
        await ask(False, server.url, [b"a"], CLASSES)


@pytest.mark.parametrize("entry", [3, {}, {"status": 200, "answer": {}}, {"status": "x", "problem": {}}])
async def test_an_answer_that_is_none_is_of_its_picture_alone(entry: Any) -> None:
    with scripted(Answer(body=[GOOD, entry])) as server, EBSegClient(server.url) as client:
        good, bad = client.segment_together([b"a", b"b"], CLASSES)
    assert good.get().width == 2
    assert isinstance(bad.error, AnswerError)


async def test_arguments_that_cannot_be_used(url: str) -> None:
    with EBSegClient(url) as client:
        for pictures, options, message in (
            ([], {}, "there is no image"),
            ([PNG], {"colour": 3}, "there is no option colour"),
            ([PictureUrl("")], {}, "an image's URL is a text"),
            (["https://a.test/a.png"], {}, r"PictureUrl\(\.\.\.\)"),
            (["\0"], {}, "cannot be read"),
        ):
            with pytest.raises(InputError, match=message):
                client.segment_together(pictures, CLASSES, **options)  # type: ignore[arg-type]
        with pytest.raises(FieldsRefusedError, match="17 images are too many; 16 are taken"):
            client.segment_together(itertools.repeat(PNG, 17), CLASSES)
