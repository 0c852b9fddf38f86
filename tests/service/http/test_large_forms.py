"""Large forms: off the event loop, copied once, whatever the pieces that they come in."""

import re
import threading
import time
import tracemalloc
from itertools import pairwise
from statistics import median

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import FormData, UploadFile

from service.errors import MalformedRequestError
from service.http import parsed_request
from service.http.multipart import parsed_form, read_form
from tests.service.fakes import encoded, live
from tests.service.http.test_multipart import END, FILE, PART, PIECES, TYPE
from tests.service.inference_protocol.wire import HEADERS, body, connected, head, read_answer, segment
from tests.waiting import WAIT

NOISE = encoded(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))  # 360 kB
UNUSUAL = b'Content-Disposition: form-data; name=image; filename="p"'


def items(form: FormData | None) -> list[tuple[str, str | bytes]] | None:
    if form is None:
        return None
    return [(name, one if isinstance(one, str) else one.file.read()) for name, one in form.multi_items()]


def cut(text: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in pairwise(bounds)]


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 10_000), max_size=40))
def test_forms_are_read_alike_however_they_are_cut(pieces: list[bytes], places: list[int]) -> None:
    for text in (b"".join(pieces), PART + FILE + END, PART + b"".join(pieces) + END):
        try:
            whole = items(read_form(TYPE, [text], max_files=2))
        except MalformedRequestError:
            with pytest.raises(MalformedRequestError):
                read_form(TYPE, cut(text, places), max_files=2)
        else:
            assert items(read_form(TYPE, cut(text, places), max_files=2)) == whole
            assert (
                items(read_form(TYPE, [text[at : at + 1] for at in range(len(text))], max_files=2)) == whole
            )


def test_a_picture_is_copied_once() -> None:
    picture = bytes(5_000_000)
    chunks = cut(body(picture), list(range(0, 6_000_000, 1 << 16)))
    tracemalloc.start()
    try:
        form = read_form(TYPE, chunks, max_files=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert form is not None
    image = form["image"]
    assert isinstance(image, UploadFile)
    assert image.file.read() == picture
    assert peak < 1.1 * len(picture)


def test_what_is_unusual_is_parsed_in_memory_and_within_bounds() -> None:
    unusual = b"--b\r\n" + UNUSUAL + b"\r\n\r\n" + bytes(3_000_000) + b"\r\n--b--\r\n"
    assert read_form(TYPE, [unusual], max_files=2) is None
    assert items(parsed_form(TYPE, cut(unusual, [9, 70_000]), max_files=2, max_fields=2)) == [
        ("image", bytes(3_000_000))
    ]
    for text, words in (
        (PART * 3 + END, "Too many fields"),
        (FILE * 3 + END, "Too many files"),
        (PART.replace(b"sky", bytes(1 << 21)) + END, "Part exceeded"),
    ):
        with pytest.raises(MalformedRequestError, match=words):
            parsed_form(TYPE, [text], max_files=2, max_fields=2)
    with pytest.raises(MalformedRequestError, match="the form is cut short"):
        parsed_form(TYPE, [b"no border"], max_files=2, max_fields=2)
    with pytest.raises(MalformedRequestError, match="boundary"):
        parsed_form("multipart/form-data", [PART + END], max_files=2, max_fields=2)


def test_the_event_loop_takes_no_large_form_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def watched(*given: object, **options: int) -> FormData | None:
        threads.append(threading.current_thread().name)
        return read_form(*given, **options)  # type: ignore[arg-type]

    def parsed(*given: object, **options: int) -> FormData:
        threads.append(threading.current_thread().name)
        return parsed_form(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(parsed_request, "read_form", watched)
    monkeypatch.setattr(parsed_request, "parsed_form", parsed)
    with live() as (url, service):
        small = segment(url).json()
        assert not threads.pop().startswith("ebseg-picture")
        large = segment(url, NOISE)
        assert large.status_code == 200
        unusual = re.sub(
            rb"Content-Disposition: form-data; name=.image.[^\r]*", UNUSUAL, body(NOISE), count=1
        )
        other = httpx.post(f"{url}/v1/segment", content=unusual, headers=HEADERS, timeout=WAIT)
        assert service.memory.reserved == 0
    assert len(threads) == 3
    assert all(name.startswith("ebseg-picture") for name in threads)
    assert other.json()["classes"] == large.json()["classes"] != small["classes"]


def test_five_megabytes_cost_the_event_loop_little_more_than_five_kilobytes() -> None:
    """Of its thread's own time; where the loop took the form apart, it was 27 times as much."""
    with live() as (url, _), connected(url) as connection:
        (loop,) = [thread for thread in threading.enumerate() if thread.name.endswith("(run)")]
        clock = time.pthread_getcpuclockid(loop.ident or 0)
        took: dict[int, list[float]] = {5_000: [], 5_000_000: []}
        for _ in range(15):
            for size, times in took.items():
                content = body(bytes(size))  # no image, which the engine has nothing to do with
                before = time.clock_gettime(clock)
                connection.sendall(head(len(content)) + content)
                assert read_answer(connection).startswith(b"HTTP/1.1 415 ")
                times.append(time.clock_gettime(clock) - before)
    small, large = (median(times[3:]) for times in took.values())
    assert large < 10 * small, took


def test_large_and_small_pieces_of_a_body_stay_in_order() -> None:
    whole = body(NOISE)
    sizes = [20_000, 1, 1, 40_000, 3, 16_384, 16_383, 70_000, *[1] * 50, len(whole)]
    with live() as (url, _), connected(url) as connection:
        expected = segment(url, NOISE).json()
        connection.sendall(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        at = 0
        framed = bytearray()
        for size in sizes:
            piece = whole[at : at + size]
            at += len(piece)
            framed += b"%x\r\n%s\r\n" % (len(piece), piece)
        connection.sendall(framed + b"0\r\n\r\n")
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (
        httpx.Response(200, content=answer.partition(b"\r\n\r\n")[2]).json()["classes"] == expected["classes"]
    )
