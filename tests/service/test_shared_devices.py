"""What many requests at once get of the devices: turns, shares, and nothing twice."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from statistics import median
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
import torch

from service.app import create_app
from service.runtime import Service
from service.scheduling.engine import EngineResult, Job, PreparedPicture
from service.scheduling.price import CHUNK_SECONDS
from service.scheduling.work import Request as WorkRequest
from service.segmentation.decode import decode
from service.server import build_server
from tests.service.fakes import (
    INFO,
    PNG,
    FakeEngine,
    FakePrediction,
    another,
    encoded,
    in_thread,
    picture,
    settings,
)
from tests.service.inference_protocol.wire import segment
from tests.waiting import WAIT, wait_until


@contextmanager
def serving(*engines: FakeEngine, **values: object) -> Iterator[tuple[str, Service]]:
    app = create_app(settings(**values), *engines)
    service: Service = app.state.service
    with in_thread(build_server(app, service.settings), ready=lambda: service.state == "ready") as url:
        own, service.scheduler.put = service.scheduler.put, Mock()  # type: ignore[method-assign]
        service.scheduler.put.side_effect = own
        yield url, service


def asked(service: Service) -> int:
    """Pictures that devices were asked for so far."""
    put: Mock = service.scheduler.put  # type: ignore[assignment]
    return sum(isinstance(call.args[0], WorkRequest) for call in put.call_args_list)


class LoggingEngine(FakeEngine):
    """Notes every step; the text tower takes its time by the prompt."""

    def __init__(self) -> None:
        super().__init__(seconds=0.02)
        self.prompt_s = 0.00002
        self.steps: list[tuple[str, float]] = []
        self.prompts = 0

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
        self.steps.append(("predict", 0.0))
        return super().predict(prepared)

    def classify(self, prediction: FakePrediction, job: Job) -> EngineResult:
        self.steps.append(("classify", 0.0))
        return super().classify(prediction, job)

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        seconds = self.prompt_s * len(names) * len(templates)
        self.steps.append(("embed", seconds))
        self.prompts += len(names) * len(templates)
        time.sleep(seconds)
        return super().embed(names, templates)


def test_a_thousand_new_names_hold_nobody_up_and_end_with_their_caller() -> None:
    engine = LoggingEngine()
    names = ",".join(f"new {number}" for number in range(1024))  # 81,920 prompts
    with serving(engine) as (url, _), ThreadPoolExecutor(1) as clients:
        for turn in range(8):  # enough steps of two sizes for a price that single slow ones do not move
            for count in (2, 64):
                classes = ",".join(f"warm {turn} {count} {number}" for number in range(count))
                assert segment(url, classes=classes).status_code == 200
        assert segment(url, classes="sky,tree").status_code == 200
        prompts = engine.prompts
        # all of them take 1.6 s
        impossible = segment(url, classes=names, templates="imagenet", timeout_ms="200")
        assert (impossible.status_code, engine.prompts) == (504, prompts)  # known at the door
        engine.prompt_s *= 10  # all of them take 16 s now, and nobody knows yet
        long = clients.submit(segment, url, classes=names, templates="imagenet", timeout_ms="5000")
        wait_until(lambda: engine.prompts > prompts or long.done())
        answered = 0
        while not long.done():
            before = len(engine.steps)
            assert segment(url, classes="sky,tree").status_code == 200
            answered += 1
            own = engine.steps[before:]
            last = max(at for at, (step, _) in enumerate(own) if step == "classify")
            embeds = [seconds for step, seconds in own[:last] if step == "embed"]
            # the step that ran when it came, and one in its turn; each is bounded, by the price that is known
            assert len(embeds) <= 2
            assert max(embeds, default=0) <= 10 * CHUNK_SECONDS
            assert httpx.get(f"{url}/livez", timeout=WAIT).status_code == 200
        assert answered > 5
        assert long.result().status_code == 504
        time.sleep(0.2)
        done = engine.prompts
        time.sleep(0.2)
        assert engine.prompts == done < 81_920 / 2  # nothing more is done for it
        # what was done is kept: who asks for some of the same again has nothing to wait for
        before = len(engine.steps)
        again = segment(url, classes="new 0,new 1", templates="imagenet")
        assert again.status_code == 200
        assert [step for step, _ in engine.steps[before:]].count("embed") == 0


def test_four_devices_take_one_each() -> None:
    together = threading.Barrier(4)

    class Meeting(FakeEngine):
        def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
            together.wait(WAIT)  # only if all four work at the same time
            return super().predict(prepared)

    engines = [Meeting(replace(INFO, device=f"fake:{index}")) for index in range(4)]
    for engine in engines:
        engine.batch = 1  # else two pictures go to one device while another one finishes its last answer
    with serving(*engines) as (url, _), ThreadPoolExecutor(4) as clients:
        for _ in range(3):
            answers = list(
                clients.map(lambda width: segment(url, another(encoded(picture(6, width)))), [8] * 4)
            )
            assert [answer.status_code for answer in answers] == [200] * 4
    assert [engine.batches for engine in engines] == [[1] * 3] * 4


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_the_same_picture_at_once_is_predicted_once_and_then_known_to_all_devices(kept: int) -> None:
    gate = threading.Event()
    engines = [FakeEngine(replace(INFO, device=f"fake:{index}"), gate=gate) for index in range(3)]
    with (
        serving(*engines, prediction_cache_bytes=kept) as (url, service),
        ThreadPoolExecutor(8) as clients,
    ):
        sent = [clients.submit(segment, url, PNG, classes=f"thing {number},sky") for number in range(8)]
        wait_until(lambda: asked(service) == 8)
        gate.set()
        answers = [future.result() for future in sent]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert [batch for engine in engines for batch in engine.batches] == [1]
        later = [segment(url, PNG, classes=f"other {number}") for number in range(6)]
    sources = [answer.json()["caches"]["prediction"] for answer in answers]
    assert sorted(sources) == ["joined"] * 7 + ["miss"]
    # what is known afterwards is the cache's
    assert [answer.json()["caches"]["prediction"] for answer in later] == ["hit" if kept else "miss"] * 6
    assert len([batch for engine in engines for batch in engine.batches]) == (1 if kept else 7)


@pytest.mark.parametrize(("shared", "predictions"), [(False, 2), (True, 1)])
def test_the_same_picture_of_another_key_is_joined_only_if_asked(shared: bool, predictions: int) -> None:
    """Or a caller would learn by the time that others send it."""
    keys, gate = ("first-key-of-32-characters-length", "other-key-of-32-characters-length"), threading.Event()
    named = ",".join(
        f"{name}:sha256:{sha256(key.encode()).hexdigest()}" for name, key in zip("ab", keys, strict=True)
    )
    engine = FakeEngine(gate=gate)
    with (
        serving(engine, api_keys=named, share_caches=shared) as (url, service),
        ThreadPoolExecutor(8) as clients,
    ):

        def client(key: str) -> httpx.Response:
            headers = {"X-API-Key": key}
            files, data = {"image": ("p", encoded(picture()))}, {"classes": "sky,tree"}
            return httpx.post(f"{url}/v1/segment", files=files, data=data, headers=headers, timeout=WAIT)

        sent = [clients.submit(client, key) for key in keys * 4]
        wait_until(lambda: asked(service) == 8)
        gate.set()
        assert [future.result().status_code for future in sent] == [200] * 8
    assert sum(engine.batches) == predictions


def test_new_names_in_every_request_do_not_tear_batches_apart() -> None:
    """With a text tower that costs nothing, as many requests share a batch as with known names.

    One of 16 clients is alone on the device, until all others' pictures are there: what is torn apart then
    makes more batches. They are counted, so no machine is too slow.
    """
    rounds, others = 6, 15
    counts = []
    for new in (False, True):
        gate = threading.Event()
        engine = FakeEngine(gate=gate)
        engine.batch = 16
        with (
            serving(engine, max_batch_size=16) as (url, service),
            ThreadPoolExecutor(1 + others) as clients,
        ):

            def client(number: int, turn: int, url: str = url, new: bool = new) -> int:
                classes = f"name {number} {turn}" if new else "sky,tree"
                return segment(url, classes=classes).status_code

            for turn in range(rounds):
                gate.clear()
                engine.running.clear()
                sent = [clients.submit(client, 0, turn)]
                assert engine.running.wait(WAIT)
                sent += [clients.submit(client, number, turn) for number in range(1, 1 + others)]
                wait_until(lambda: asked(service) == (1 + others) * (turn + 1))  # noqa: B023
                gate.set()
                assert [future.result(WAIT) for future in sent] == [200] * (1 + others)
        assert sum(engine.batches) == rounds * (1 + others)
        assert len(engine.embedded) >= (rounds if new else 1)
        counts.append(len(engine.batches))
    known, unknown = counts
    assert known / unknown >= 0.9, counts  # the rate of a device that works by batches


class AreaEngine(FakeEngine):
    """Takes its time by the padded area, one picture after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = 1

    def cost(self, size: tuple[int, int]) -> int:
        rows, columns = (side + -side % 32 for side in size)
        return rows * columns

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
        time.sleep(2e-6 * sum(one.cost for one in prepared))
        return super().predict(prepared)


def test_a_picture_of_one_column_makes_nobody_wait_or_leave() -> None:
    thin, ordinary = encoded(picture(1000, 1)), encoded(picture(96, 128))
    with serving(AreaEngine()) as (url, _), ThreadPoolExecutor(24) as clients:
        assert segment(url, thin).status_code == 200
        answers = list(
            clients.map(lambda image: segment(url, another(image), timeout_ms="20000"), [ordinary] * 24)
        )
        assert [answer.status_code for answer in answers] == [200] * 24


def test_batches_of_one_answer_the_first_before_the_last_is_predicted() -> None:
    """Mean latency of 8 at once, in predictions that ran before the answer: 4.5 of 8, not 8 of 8."""
    order: list[str] = []

    class OneByOne(FakeEngine):
        def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
            order.extend(["predict"] * len(prepared))
            return super().predict(prepared)

        def classify(self, prediction: FakePrediction, job: Job) -> EngineResult:
            order.append("classify")
            return super().classify(prediction, job)

    gate = threading.Event()
    engine = OneByOne(gate=gate)
    engine.batch = 1
    with serving(engine) as (url, service), ThreadPoolExecutor(8) as clients:
        gate.set()
        assert segment(url).status_code == 200  # its text is known from here on
        gate.clear()
        order.clear()
        engine.batches.clear()
        sent = [clients.submit(segment, url) for _ in range(8)]
        wait_until(lambda: service.scheduler.depth == 7)
        gate.set()
        assert [future.result().status_code for future in sent] == [200] * 8
    waits = [order[:at].count("predict") for at, step in enumerate(order) if step == "classify"]
    assert np.mean(waits) / 8 <= 0.65
    assert sum(engine.batches) == 8


def test_answers_of_small_pictures_do_not_wait_for_large_ones_to_be_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a small picture waits for after its turn on the device is no decode, however many there are."""
    decoding, go_on = threading.Semaphore(0), threading.Event()

    def slow(data: bytes, **options: object) -> object:
        if len(data) > 10_000:
            decoding.release()
            assert go_on.wait(WAIT)
        return decode(data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("service.segmentation.pipeline.decode", slow)
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with serving(engine, decode_threads=2) as (url, service), ThreadPoolExecutor(9) as clients:
        gate.set()
        for side in (8, 100) * 3:
            assert segment(url, encoded(picture(side, side))).status_code == 200
        gate.clear()
        engine.running.clear()
        small = clients.submit(segment, url)
        assert engine.running.wait(WAIT)
        large = [clients.submit(segment, url, encoded(noise)) for _ in range(8)]
        for _ in range(2):
            assert decoding.acquire(timeout=WAIT)
        wait_until(lambda: service.pictures.depth("decode") == 6)
        gate.set()
        assert small.result(WAIT).status_code == 200  # while both threads for pictures still decode
        text = httpx.get(f"{url}/metrics", timeout=WAIT).text
        assert 'ebseg_queue_depth{queue="decode"} 6.0' in text
        assert not any(future.done() for future in large)
        go_on.set()
        assert [future.result().status_code for future in large] == [200] * 8


def test_what_a_small_picture_waits_for_behind_large_ones_is_a_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both while it waits, as the oldest of the decodes, and afterwards, as a stage."""
    go_on = threading.Event()

    def slow(data: bytes, **options: object) -> object:
        if len(data) > 10_000:
            assert go_on.wait(WAIT)
        return decode(data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("service.segmentation.pipeline.decode", slow)
    noise = encoded(np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8))
    age, waited = 'ebseg_queue_oldest_age_seconds{queue="decode"}', "ebseg_stage_duration_seconds_sum{"
    with serving(FakeEngine(), decode_threads=2) as (url, service), ThreadPoolExecutor(9) as clients:

        def metric(start: str, *parts: str) -> float:
            text = httpx.get(f"{url}/metrics", timeout=WAIT).text
            lines = [line for line in text.splitlines() if line.startswith(start)]
            return sum(float(line.split()[-1]) for line in lines if all(part in line for part in parts))

        large = [clients.submit(segment, url, another(noise)) for _ in range(8)]
        wait_until(lambda: service.pictures.depth("decode") == 6)
        small = clients.submit(segment, url)
        wait_until(lambda: service.pictures.depth("decode") == 7)
        behind = time.monotonic()
        wait_until(lambda: metric(age) > 0.05)
        assert not small.done()
        held = time.monotonic() - behind
        go_on.set()
        answer = small.result(WAIT)
        assert [future.result(WAIT).status_code for future in large] == [200] * 8
        assert answer.status_code == 200
        assert metric(waited, 'stage="decode_wait"') >= 7 * held > 0  # seven of nine stood in line
        stages = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
        assert float(stages["decode_wait"]) / 1000 >= held * 0.99


def test_eight_devices_wait_for_hardly_anything_while_there_is_work() -> None:
    """Medians, so that a moment in which the machine is busy elsewhere is no fault of ours."""
    rounds, seconds = 6, 0.4

    class Timed(FakeEngine):
        def __init__(self, device: int) -> None:
            super().__init__(replace(INFO, device=f"fake:{device}"), seconds=seconds)
            self.batch = 1
            self.times: list[tuple[float, float]] = []

        def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
            began = time.monotonic()
            made = super().predict(prepared)
            self.times.append((began, time.monotonic()))
            return made

    engines = [Timed(device) for device in range(8)]
    count = 8 * rounds
    with serving(*engines) as (url, _), ThreadPoolExecutor(count) as clients:
        answers = clients.map(lambda width: segment(url, encoded(picture(6, 8 + width))), range(count))
        assert [answer.status_code for answer in answers] == [200] * count
    done = [len(engine.times) for engine in engines]
    assert sum(done) == count
    assert max(done) - min(done) <= 2
    steps = [end - begin for engine in engines for begin, end in engine.times]
    gaps = [after[0] - before[1] for engine in engines for before, after in pairwise(engine.times)]
    at_work = median(steps) / (median(steps) + median(gaps))
    assert at_work >= 0.95
