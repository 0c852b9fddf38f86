"""What `ebseg bench service` measures: the service under load, beside what it could do at best.

The figures of a ratio are taken in turn, in rounds of one run; the ratio is that of their medians.
"""

import http.client
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from model.bench.engine import machine
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import Vocabulary
from service.bench.limit import LimitPool
from service.bench.pictures import class_names, jpeg, pictures
from service.bench.process import ServerProcess, address
from service.bench.requests import SEGMENT, segment_request
from service.bench.target import WAIT, BenchError, ServiceUnderLoad, batches
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, Job, unit_rows
from service.scheduling.picture_threads import cores
from service.scheduling.torch_engine import device_names, load_engine
from service.settings import Settings, load_settings

LITSERVE_PATH = "/predict"  # LitServe's own defaults
LITSERVE_READY = "/health"
PNG = b"\x89PNG"
Progress = Callable[[str], None]


class Terms(TypedDict):
    """What both measurements are made under.

    Attributes:
        connections: open at the same time.
        seconds: of a round, for each of those that are compared.
        rate: requests a second that arrive by themselves; None keeps all connections busy.
        rounds: in which all are measured.
        size: width and height of the pictures.
        classes: of the vocabulary.
    """

    connections: int
    seconds: float
    rate: float | None
    rounds: int
    size: tuple[int, int]
    classes: int


def bench_service(
    *, url: str | None, checkpoint: Path | None, progress: Progress, **terms: Unpack[Terms]
) -> dict[str, Any]:
    """Pictures a second over HTTP, over those of the bare engine in this process.

    The bare engine prepares, predicts and classifies the same pictures in batches of the size that the
    service's have under this load, with the same number of threads; what it does not do is decoding,
    encoding, queueing and talking. Answers are JSON with run-length encoding, the service's default.

    Args:
        url: of a running service; None starts one.
        checkpoint: a version folder; None takes the one that comes with ebseg.
        progress: notified of what is being done.
        terms: as `Terms` says.

    Raises:
        BenchError: the service cannot be reached, serves another checkpoint, or did not answer all requests.
        SettingsError: a setting of the environment.
        CheckpointError: the checkpoint cannot be loaded.
    """
    folder = (packaged_checkpoint() if checkpoint is None else checkpoint).resolve()
    names, sent = class_names(terms["classes"]), pictures(*terms["size"])
    seconds, rounds, connections = terms["seconds"], terms["rounds"], terms["connections"]
    settings = load_settings({"checkpoint": str(folder)})
    with ExitStack() as stack:
        server = None
        if url is None:
            progress("starting the service")
            args = ["serve", "--checkpoint", str(folder), "--host", "127.0.0.1"]
            server = stack.enter_context(ServerProcess.module("ebseg", *args, ready="/readyz"))
        progress("loading the bare engine")
        engine = _engine(folder, settings)
        bare = _Bare(engine, sent, names)
        stack.callback(bare.close)
        if server:
            server.wait()
        host, port = (server.host, server.port) if server else _address(str(url))
        requests = [
            segment_request(jpeg(one), {"classes": names}, host=host, accept="application/json")
            for one in sent
        ]
        target = ServiceUnderLoad(
            name="the service",
            host=host,
            port=port,
            requests=requests,
            expect=b"{",
            connections=connections,
            rate=terms["rate"],
        )
        served = json.loads(target.answer())["model"]
        if served["digest"] != engine.info.digest:
            raise BenchError(
                f"{url or 'the service'} serves {served['name']}/{served['version']}, whose weights are not "
                f"those of {folder}; give its folder as --checkpoint"
            )
        progress("warm-up")
        before = batches(_metrics(host, port))
        target.load(min(seconds, 5.0))
        batch = _batch(before, batches(_metrics(host, port)))
        bare.rate(batch, 0.0)
        bare_rates = []
        before = batches(_metrics(host, port))
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}: the bare engine, batches of {batch}")
            if server:
                server.pause()
            bare_rates.append(bare.rate(batch, seconds))
            if server:
                server.resume()
            progress(f"round {number} of {rounds}: the service, {connections} connections")
            target.measure(seconds)
        after = batches(_metrics(host, port))
    target.check()
    return {
        "bench": "service",
        "checkpoint": str(folder),
        "model": f"{engine.info.name}/{engine.info.version}",
        "device": engine.info.device,
        "dtype": engine.info.dtype,
        **_common(terms, requests),
        "service_batch_size_mean": (after[1] - before[1]) / max(1.0, after[0] - before[0]),
        "bare_batch_size": batch,
        **target.report(),
        "service_rounds": target.rates,
        "bare_rounds": bare_rates,
        "pictures_per_second": target.rate_median,
        "bare_pictures_per_second": statistics.median(bare_rates),
        "ratio": target.rate_median / statistics.median(bare_rates),
    }


def bench_instant(*, progress: Progress, **terms: Unpack[Terms]) -> dict[str, Any]:
    """The service around an engine that returns at once, over what decoding and encoding alone allow, and
    over the same engine under LitServe.

    The limit is the best that all cores do with nothing but `decode` and `label_png`, as processes or as
    threads, whichever is faster. Answers are indexed PNGs.

    Args:
        progress: notified of what is being done.
        terms: as `Terms` says.

    Raises:
        BenchError: a server did not answer all requests.
        ServerFailedError: one did not start.
    """
    seconds, rounds, connections = terms["seconds"], terms["rounds"], terms["connections"]
    size, classes, processors = terms["size"], terms["classes"], cores()
    sent, names = [jpeg(one) for one in pictures(*size)], class_names(classes)
    with ExitStack() as stack:
        progress("starting the service, LitServe and the pools of the limit")
        service = stack.enter_context(ServerProcess.module("service.bench.instant", ready="/readyz"))
        litserve = stack.enter_context(
            ServerProcess.module("service.bench.litserve_server", ready=LITSERVE_READY)
        )
        pools = {
            "processes": stack.enter_context(LimitPool(processors, 1, size, classes)),
            "threads": stack.enter_context(LimitPool(1, processors, size, classes)),
        }
        servers: list[tuple[ServerProcess, ServiceUnderLoad]] = []
        for name, server, path in (("service", service, SEGMENT), ("LitServe", litserve, LITSERVE_PATH)):
            target = ServiceUnderLoad(
                name=name,
                host=server.host,
                port=server.port,
                requests=[
                    segment_request(one, {"classes": names}, host=server.host, path=path, accept="image/png")
                    for one in sent
                ],
                expect=PNG,
                connections=connections,
                rate=terms["rate"],
            )
            server.wait()
            answer = target.answer()
            target.load(min(seconds, 2.0))
            server.pause()  # while others are measured
            servers.append((server, target))
        limits: dict[str, list[float]] = {name: [] for name in pools}
        for pool in pools.values():
            pool.rate(0.1)
        for number in range(1, rounds + 1):
            for name, pool in pools.items():
                progress(f"round {number} of {rounds}: the limit, {processors} {name}")
                limits[name].append(pool.rate(seconds))
            for server, target in servers:
                progress(f"round {number} of {rounds}: {target.name}, {connections} connections")
                server.resume()
                target.measure(seconds)
                server.pause()
    own, other = (target for _, target in servers)
    own.check()
    other.check()
    by_pool = {name: statistics.median(rates) for name, rates in limits.items()}
    pool_name = max(by_pool, key=lambda name: by_pool[name])
    return {
        "bench": "service-instant",
        **_common(terms, own.requests),
        "answer_bytes": len(answer),
        "cores": processors,
        **own.report(),
        "service_rounds": own.rates,
        "litserve_rounds": other.rates,
        "limit_rounds": limits,
        "litserve_latency_seconds": other.report()["latency_seconds"],
        "limit_pool": pool_name,
        "limit_pictures_per_second": by_pool[pool_name],
        "litserve_pictures_per_second": other.rate_median,
        "pictures_per_second": own.rate_median,
        "ratio_to_limit": own.rate_median / by_pool[pool_name],
        "ratio_to_litserve": own.rate_median / other.rate_median if other.rate_median else None,
    }


class _Bare:
    """The engine without a service, on a thread of its own as there: OpenMP waits in another way on the first
    thread that used it.
    """

    def __init__(self, engine: Engine, sent: Sequence[NDArray[np.uint8]], names: Sequence[str]):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bare")
        self.engine = engine
        self.pictures = itertools.cycle(sent)
        vocabulary = Vocabulary.of(names)
        self.job = Job(
            engines=(engine,),
            prepared=None,
            prediction=None,
            vocabulary=vocabulary,
            text=unit_rows(engine.embed(vocabulary.names, vocabulary.templates)),
            output_size=sent[0].shape[:2],
            threshold=0.0,
            balance=None,
            scores=False,
            deadline=Deadline(float("inf")),
        )

    def rate(self, batch: int, seconds: float) -> float:
        """Pictures a second over at least so long and one batch."""
        return self._thread.submit(self._rate, batch, seconds).result()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _rate(self, batch: int, seconds: float) -> float:
        count, began = 0, time.perf_counter()
        while not count or time.perf_counter() < began + seconds:
            prepared = [self.engine.prepare(next(self.pictures)) for _ in range(batch)]
            for prediction in self.engine.predict(prepared):
                self.engine.classify(prediction, self.job)
            count += batch
        return count / (time.perf_counter() - began)


def _engine(folder: Path, settings: Settings) -> Engine:
    devices = device_names(settings.device)
    if len(devices) > 1:
        raise BenchError(f"the bare engine runs on one device, not on {', '.join(devices)}; set EBSEG_DEVICE")
    return load_engine(folder, device=devices[0], dtype=settings.dtype)


def _address(url: str) -> tuple[str, int]:
    try:
        return address(url)
    except ValueError as error:
        raise BenchError(str(error)) from None


def _batch(before: tuple[float, float], after: tuple[float, float]) -> int:
    """Mean pictures of a batch between two looks, rounded; 1 where there was none."""
    count = after[0] - before[0]
    return max(1, round((after[1] - before[1]) / count)) if count else 1


def _metrics(host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=WAIT)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"the service's /metrics cannot be read: {error}") from None
    finally:
        connection.close()


def _common(terms: Terms, requests: Sequence[bytes]) -> dict[str, Any]:
    width, height = terms["size"]
    return {
        "load": "closed" if terms["rate"] is None else "open",
        "connections": terms["connections"],
        "rate": terms["rate"],
        "seconds": terms["seconds"],
        "rounds": terms["rounds"],
        "width": width,
        "height": height,
        "classes": terms["classes"],
        "request_bytes": round(statistics.mean(map(len, requests))),
        **machine(),
    }
