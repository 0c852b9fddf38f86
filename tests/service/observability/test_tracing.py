"""Trace context of requests, and how finished ones wait for a collector."""

import logging
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from service.observability import tracing
from service.observability.tracing import BATCH, FinishedRequest, TraceContext, Tracing, parse_state, trace_of
from service.settings import Settings, SettingsError
from tests.service.fakes import post, running
from tests.service.observability.trace_ids import SPAN, TRACE
from tests.waiting import until

pytestmark = pytest.mark.anyio


def context(*parents: str, state: Sequence[str] = ()) -> TraceContext:
    headers = [(b"traceparent", parent.encode("latin-1")) for parent in parents]
    headers += [(b"tracestate", line.encode("latin-1")) for line in state]
    return trace_of([(b"host", b"h"), *headers])


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f" 00-{TRACE}-{SPAN}-01\t", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_callers_go_on(parent: str, sampled: bool) -> None:
    made = context(parent, state=["a=1"])
    assert (made.trace_id, made.parent_id, made.sampled, made.state) == (TRACE, SPAN, sampled, "a=1")
    assert made.span_id not in (SPAN, context(parent).span_id)
    assert len(made.span_id) == 16


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        [f"00-{TRACE}-{SPAN}"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-001"],
        [f"00-{TRACE}-{SPAN}-01-"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"0-{TRACE}-{SPAN}-01"],
        [f"cc-{TRACE}-{SPAN}-01more"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}g-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00_{TRACE}_{SPAN}_01"],
        [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"],
        ["\xff" * 55],
    ],
)
def test_a_new_trace_where_the_caller_has_no_valid_one(parents: list[str]) -> None:
    made, other = context(*parents, state=["a=1"]), context(*parents)
    assert made.trace_id not in (TRACE, other.trace_id)
    assert (len(made.trace_id), len(made.span_id)) == (32, 16)
    assert int(made.trace_id, 16) > 0
    assert (made.parent_id, made.sampled, made.state) == (None, True, "")


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([], ""),
        (["a=1"], "a=1"),
        (["a=1, \tb=2", "t61rcwkgmze@sys=x/y"], "a=1,b=2,t61rcwkgmze@sys=x/y"),
        (["a=1,,b=2,"], "a=1,b=2"),
        (["0tenant@system=v"], "0tenant@system=v"),
        (["a=x y"], "a=x y"),
        (["a=" + "v" * 256], "a=" + "v" * 256),
        (["a=" + "v" * 257], ""),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["0a=1"], ""),
        (["a"], ""),
        (["a="], ""),
        (["=1"], ""),
        (["a=b=c"], ""),
        (["a =1"], ""),
        (["a=\xff"], ""),
        ([",".join(f"k{i}=1" for i in range(32))], ",".join(f"k{i}=1" for i in range(32))),
        ([",".join(f"k{i}=1" for i in range(33))], ""),
    ],
)
def test_state(lines: list[str], state: str) -> None:
    assert parse_state(lines) == state


def finished(number: int = 0) -> FinishedRequest:
    return FinishedRequest(
        trace=TraceContext(TRACE, f"{number + 1:016x}"),
        request_id=str(number),
        method="GET",
        route=None,
        status=200,
        model=None,
        began_ns=0,
        answered_s=0.0,
        seconds=0.0,
        stages={},
    )


class FakeSender:
    """Keeps what it gets; waits for the gate first, fails if told to."""

    def __init__(self, gate: threading.Event | None = None, error: Exception | None = None):
        self.gate = gate
        self.error = error
        self.batches: list[int] = []
        self.ids: list[str] = []
        self.entered = threading.Event()
        self.closed = threading.Event()

    def send(self, requests: Sequence[FinishedRequest]) -> None:
        self.entered.set()
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(len(requests))
        self.ids += [request.request_id for request in requests]

    def close(self) -> None:
        self.closed.set()
        if self.gate is not None:
            self.gate.set()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ebseg-traces"]


async def test_batches_in_order_and_the_rest_at_the_end() -> None:
    sender = FakeSender()
    traces = Tracing(Settings(), sender=sender, interval_s=60.0)
    for number in range(BATCH + 3):
        traces.add(finished(number))
    assert threads() == ["ebseg-traces"]
    await traces.stop()
    assert sender.batches == [BATCH, 3]
    assert sender.ids == [str(number) for number in range(BATCH + 3)]
    assert sender.closed.is_set()
    traces.add(finished())  # too late, and no harm
    assert threads() == []


async def test_without_a_collector_nothing_runs() -> None:
    traces = Tracing(Settings())
    traces.add(finished())
    assert not traces.active
    assert threads() == []
    await traces.stop()


async def test_sent_while_running() -> None:
    sender = FakeSender()
    traces = Tracing(Settings(), sender=sender, interval_s=0.002)
    traces.add(finished())
    await until(lambda: sender.ids == ["0"])
    traces.add(finished(1))
    await until(lambda: sender.ids == ["0", "1"])
    await traces.stop()


async def test_a_slow_collector_costs_spans_not_requests(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "MOST_WAITING", 10)
    gate = threading.Event()
    sender = FakeSender(gate)
    traces = Tracing(Settings(), sender=sender, interval_s=0.001)
    traces.add(finished())
    await until(sender.entered.is_set)
    for number in range(1, 31):  # the collector answers none of it until the gate opens
        traces.add(finished(number))
    assert traces.dropped == 20
    with caplog.at_level(logging.WARNING, "service.observability.tracing"):
        gate.set()
        await until(lambda: caplog.records)
    await traces.stop()
    assert vars(caplog.records[0])["dropped"] == 20
    assert len(sender.ids) == 11


async def test_stopping_is_bounded() -> None:
    sender = FakeSender(threading.Event())
    traces = Tracing(Settings(), sender=sender, interval_s=0.001, stop_s=0.05)
    for number in range(3 * BATCH):
        traces.add(finished(number))
    await until(sender.entered.is_set)
    began = time.perf_counter()
    await traces.stop()  # the collector does not answer: only the time limit ends this
    assert time.perf_counter() - began > 0.04
    assert threads() == []
    assert len(sender.batches) == 1  # the one under way; the rest was given up


async def test_what_fails_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    sender = FakeSender(error=RuntimeError("no"))
    traces = Tracing(Settings(), sender=sender, interval_s=0.001)
    traces.add(finished())
    await until(lambda: "could not be sent" in caplog.text)
    sender.error = None
    traces.add(finished(1))
    await until(lambda: sender.ids == ["1"])
    await traces.stop()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.observability.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"opentelemetry.*pip install 'ebseg\[otlp\]'"):
        Tracing(Settings(otlp_endpoint="http://localhost:4318"))


async def test_logs_of_a_request_carry_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.access"):
        async with running() as (client, _):
            await post(client, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
            trace = tracing.trace_var.get()  # the client calls the app in this very task
    assert trace is not None
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, SPAN, False)
