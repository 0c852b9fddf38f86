"""The host's memory: what is reserved, refused, and given back."""

import functools
import resource
import select
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from ebseg_client import drawing
from model.confidence.background import of_card
from model.vocabulary.classes import Vocabulary
from service.errors import HostMemoryError, TooMuchMemoryError
from service.http.negotiate import Form
from service.scheduling import host_memory
from service.scheduling.engine import EngineResult
from service.scheduling.host_memory import HostAccount, HostBytes, answer_bytes, decoding_bytes, usable
from service.schemas.segment import SegmentRequest
from service.segmentation import encode, render, run_lengths
from service.segmentation.answer import SegmentationResult, encode_answer
from tests.service.fakes import INFO, PNG, FakeEngine, encoded, live, picture, problem
from tests.service.inference_protocol.wire import body, connected, head, read_answer, segment
from tests.waiting import WAIT, wait_until


def test_bytes_are_taken_held_kept_and_given_back() -> None:
    host = HostBytes(100, lambda: 7)
    one, two = host.open(), host.open()
    one.take(10)
    one.take(10)
    one.hold(60)
    one.hold(50)
    assert (one.nbytes, host.reserved) == (70, 70)
    with pytest.raises(HostMemoryError) as full:
        two.take(31)
    assert full.value.retry_after == 7
    two.take(30)
    with pytest.raises(TooMuchMemoryError, match="alone needs"):
        two.hold(71)
    one.keep(5)
    one.keep(50)  # never takes more
    assert host.reserved == 35
    for account in (one, one, two):
        account.close()
    one.take(1000)  # of a request that is over
    assert host.reserved == 0


def test_bodies_on_their_way_have_half_and_the_longest_silent_of_larger_ones_goes() -> None:
    host = HostBytes(100, lambda: 7)
    ended: list[str] = []
    with ExitStack() as stack:
        accounts = {}
        for name, nbytes in (("first", 20), ("second", 20), ("small", 5)):
            account = accounts[name] = host.open()
            stack.enter_context(suppress(HostMemoryError))  # of those that had to go
            stack.enter_context(account.arriving(functools.partial(ended.append, name)))
            account.arrive(nbytes)
        assert (host.arriving, host.reserved) == (45, 45)
        accounts["first"].arrive(1)  # now the second one is the longest silent
        late = host.open()
        with late.arriving(lambda: ended.append("late")):
            late.arrive(10)
            assert ended == ["second"]
            assert (host.arriving, host.reserved) == (36, 36)
            with pytest.raises(HostMemoryError) as full:
                late.arrive(25)  # it would be the largest
            assert full.value.retry_after == 7
        assert (host.arriving, host.reserved) == (26, 36)  # it is here, and holds what it took
        late.hold(30)  # the other half is for all else
        with pytest.raises(TooMuchMemoryError, match="alone needs"), host.open().arriving(ended.clear) as _:
            accounts["small"].arrive(46)
    assert ended == ["second"]
    assert (host.arriving, host.reserved) == (0, 66)
    with pytest.raises(HostMemoryError), (gone := host.open()).arriving(lambda: None):
        gone.close()


def test_retry_after_is_the_time_of_answers_and_bodies_where_only_they_can_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Mock(monotonic=Mock(return_value=1000.0))
    monkeypatch.setattr("service.scheduling.host_memory.time", clock)
    host = HostBytes(100, lambda: 7, body_s=30.0, answer_s=60.0)
    first, second, busy, late = (host.open() for _ in range(4))

    def refused(nbytes: int) -> int:
        with pytest.raises(HostMemoryError) as full:
            late.take(nbytes)
        return full.value.retry_after

    for answer in (first, second):
        answer.hold(50)
        answer.keep(40)
        clock.monotonic.return_value += 10.0
    busy.hold(15)
    # now is 1020: 5 are free, 15 under way, 40 are gone by 1060 at the latest, 40 by 1070
    assert (refused(20), refused(21), refused(60), refused(61)) == (7, 40, 40, 50)
    first.close()  # it was read before
    late.take(45)


def test_retry_after_of_a_body_is_the_time_of_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Mock(monotonic=Mock(return_value=1000.0))
    monkeypatch.setattr("service.scheduling.host_memory.time", clock)
    host = HostBytes(100, lambda: 7, body_s=30.0)
    small, large = host.open(), host.open()
    with small.arriving(lambda: None):
        small.arrive(20)
        clock.monotonic.return_value += 12.0
        with large.arriving(lambda: None), pytest.raises(HostMemoryError) as full:
            large.arrive(40)
        assert full.value.retry_after == 18


def test_a_prepared_picture_is_reserved_until_its_answer() -> None:
    """A small picture becomes a large one for the network: 3 bytes a pixel of it."""

    class Enlarging(FakeEngine):
        def cost(self, size: tuple[int, int]) -> int:
            return 100 * size[0] * size[1]

    gate = threading.Event()
    engine = Enlarging(gate=gate)
    with live(engine) as (url, service), ThreadPoolExecutor(1) as clients:
        sent = clients.submit(segment, url, encoded(picture(100, 100)))
        assert engine.running.wait(WAIT)
        held = answer_bytes(10_000, 2, frozenset({"rle"}))
        wait_until(lambda: 0 <= service.memory.reserved - held - 3_000_000 < 10_000)  # and the body
        gate.set()
        assert sent.result().status_code == 200
        wait_until(lambda: service.memory.reserved == 0)


def test_a_burst_subsides_once() -> None:
    host = HostBytes(1 << 30)
    one, two = host.open(), host.open()
    one.take(10 << 20)
    one.close()
    assert not host.subsided()  # of little nothing is left
    one = host.open()
    one.take(200 << 20)
    two.take(60 << 20)
    assert not host.subsided()
    one.close()
    assert host.subsided()
    assert not host.subsided()
    two.take(10 << 20)
    two.close()
    assert host.subsided()


def test_threads_leave_nothing_behind() -> None:
    host = HostBytes(1000)

    def work(index: int) -> None:
        account = host.open()
        try:
            account.take(index % 300)
            account.hold(index % 500)
            assert host.reserved <= 1000
            account.keep(3)
        except HostMemoryError:
            pass
        finally:
            account.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(2000)))
    assert host.reserved == 0


def test_what_a_thread_reserves_while_its_request_ends_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostBytes(100)
    move = host._move
    for reserve in (HostAccount.take, HostAccount.hold):
        account = host.open()
        closer = threading.Thread(target=account.close)

        def ending_meanwhile(account: HostAccount, change: int, closer: threading.Thread = closer) -> None:
            if change > 0:
                closer.start()
                closer.join(0.2)  # all the time that it would need, were nothing in its way
            move(account, change)

        monkeypatch.setattr(host, "_move", ending_meanwhile)
        reserve(account, 10)
        closer.join()
        assert host.reserved == 0


def test_the_default_is_what_the_cgroup_and_the_limits_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(host_memory, "_CGROUPS", (str(group),))
    group.write_text("max\n")
    machine = usable()
    group.write_text(f"{64 << 30}\n")
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    group.write_text(f"{resident + (1 << 30)}\n")
    assert usable() == pytest.approx(min(machine, 1 << 30), rel=0.05)
    host = HostBytes(None)
    host.settle(256 << 20)
    assert host.most == pytest.approx(0.6 * (768 << 20), rel=0.1)
    given = HostBytes(123)
    given.settle(0)
    assert given.most == 123
    numbers = [int(number) * 4096 for number in Path("/proc/self/statm").read_text().split()]
    for limited, used in ((resource.RLIMIT_AS, numbers[0]), (resource.RLIMIT_DATA, numbers[5])):
        limits = {limited: used + (512 << 20)}
        monkeypatch.setattr(resource, "getrlimit", lambda what, limits=limits: (limits.get(what, -1), -1))
        assert usable() == pytest.approx(512 << 20, rel=0.05)


def test_the_largest_answers_are_priced_as_measured() -> None:
    """A picture of 8 x 8 with long_side 7071, npy and png, took 725 MB; an overlay of 48 megapixels waits."""
    tiny = answer_bytes(7071 * 7071, 2, frozenset(["npy", "png"]))
    assert 0.9 * 725e6 <= tiny <= 1.3 * 725e6
    assert decoding_bytes(48_000_000) >= 48_000_000 * 7
    assert answer_bytes(100, 150, frozenset(["scores"])) >= 100 * 150 * 2 * 3


JSON, OF_PNG = "application/json", ("png", "confidence", "soft_mask", "cutout")
OTHERS = ("npy", "overlay", "rle", "polygons", "regions", "coco", "panoptic", "geojson", "scores")


@pytest.mark.parametrize(
    ("output", "form"),
    [*((name, JSON) for name in (*OF_PNG, *OTHERS)), *((name, "image/png") for name in OF_PNG)],
)
def test_no_form_takes_more_than_is_reserved(
    output: str, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image that is noise, as far as Python and NumPy allocate: Pillow keeps pixels of its own."""
    for module in (encode, render, drawing):
        monkeypatch.setattr(module, "BLOCK", 1 << 12)
    monkeypatch.setattr(run_lengths, "BAND", 1 << 12)
    encode_answer(noise_segmented(output, 40), form)  # what is loaded once is no form's
    side = 520
    tracemalloc.start()
    try:
        segmentation = noise_segmented(output, side)
        tracemalloc.reset_peak()
        answer = encode_answer(segmentation, form)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak >= 6 * side * side + len(answer.body)
    assert peak <= answer_bytes(side * side, 2, frozenset([output])) + (1 << 18)


def noise_segmented(output: str, side: int) -> SegmentationResult:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 3, (side // 40, side // 40), np.uint16).repeat(40, 0).repeat(40, 1)
    scores = None
    if output in {"soft_mask", "scores"}:
        scores = generator.integers(0, 1 << 14, (2, side, side), np.uint16).view(np.float16)
    return SegmentationResult(
        vocabulary=Vocabulary.of(["a", "b"]),
        given_colors=[None, None],
        spec=SegmentRequest.model_validate({"classes": ["a", "b"]}),
        info=INFO,
        result=EngineResult(
            labels=np.ones_like(coarse) if output == "cutout" else coarse,
            confidence=generator.random((side, side), np.float32),
            scores=scores,
            trained=[True, True],
        ),
        picture=generator.integers(0, 256, (side, side, 3), np.uint8)
        if output in {"overlay", "cutout"}
        else None,
        background=of_card(None),
        outputs=frozenset([output]),
        request_id="id",
        seconds={},
        began=0.0,
        caches=None,
        check=lambda: None,
    )


def test_one_request_above_the_bound_and_many_together() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with live(engine, max_host_bytes=5 << 18) as (url, service), ThreadPoolExecutor(8) as clients:
        reported = problem(segment(url, encoded(picture(8, 8)), output_size="2000"), 413)
        assert reported["type"] == "urn:ebseg:problem:too-much-memory"
        middle = encoded(picture(200, 200))  # 0.52 MB while it is decoded, 0.6 MB after
        sent = [clients.submit(segment, url, middle) for _ in range(8)]
        wait_until(lambda: sum(future.done() for future in sent) == 6)
        assert service.memory.reserved <= 5 << 18
        gate.set()
        answers = [future.result() for future in sent]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 6
        for answer in refused:
            assert problem(answer, 429)["type"] == "urn:ebseg:problem:memory-full"
            assert int(answer.headers["retry-after"]) >= 1
        wait_until(lambda: service.memory.reserved == 0)
        assert segment(url, middle).status_code == 200
        wait_until(lambda: service.memory.reserved == 0)


def test_bodies_on_their_way_are_bounded_by_bytes_and_hold_no_place() -> None:
    with live(max_host_bytes=1 << 20, body_timeout_s=30, max_pending=1) as (url, service):
        with connected(url) as connection:
            connection.sendall(head(900_000) + body()[:-20] + b"x" * 250_000)
            wait_until(lambda: service.memory.reserved > 250_000)
            assert service.admission.pending == 0
            assert segment(url).status_code == 200
            noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
            assert segment(url, encoded(noise)).status_code == 429
        wait_until(lambda: service.memory.reserved == 0)


def test_stalled_uploads_leave_room_for_other_requests() -> None:
    """They may hold half, and give way to whoever sends less."""
    with live(max_host_bytes=4 << 20, stall_s=30, body_timeout_s=30) as (url, service), ExitStack() as stack:
        stalled = [stack.enter_context(connected(url)) for _ in range(12)]
        for connection in stalled:  # 500 KB each: without a bound the ninth would find nothing left
            connection.sendall(head(900_000) + body()[:-20] + b"x" * 500_000)
        wait_until(lambda: service.memory.arriving > 3 * 500_000)
        noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
        began = time.monotonic()
        for picture_file in (PNG, encoded(noise)):  # 0.1 KB and 270 KB, 900 KB while it is decoded
            assert segment(url, picture_file).status_code == 200
        assert time.monotonic() - began < WAIT / 2
        assert 500_000 < service.memory.arriving <= 2 << 20
        wait_until(lambda: service.memory.reserved == service.memory.arriving)
        wait_until(lambda: sum(map(readable, stalled)) >= 8)
        answers = [read_answer(connection) for connection in stalled if readable(connection)]
        assert all(answer.startswith(b"HTTP/1.1 429 ") for answer in answers)
        assert all(b"memory-full" in answer for answer in answers)
    assert service.memory.reserved == 0


def readable(connection: socket.socket) -> bool:
    """Whether there is something to read."""
    return bool(select.select([connection], [], [], 0.0)[0])


def test_an_answer_that_is_not_read_keeps_its_bytes_until_its_client_goes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    with live(FakeEngine()) as (url, service):
        with connected(url) as connection:
            size = b'--b\r\nContent-Disposition: form-data; name="output_size"\r\n\r\n4000\r\n'
            large = size + body(encoded(noise))
            connection.sendall(head(len(large), "Accept: application/x-npy") + large)
            wait_until(lambda: 32_000_000 <= service.memory.reserved <= 33_000_000)
            time.sleep(0.1)
            assert service.memory.reserved >= 32_000_000
            assert service.admission.pending == 0
        wait_until(lambda: service.memory.reserved == 0)
