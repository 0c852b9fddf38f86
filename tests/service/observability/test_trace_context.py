"""Trace context of requests, by their headers."""

import logging

import pytest

from service.observability.trace_context import TraceContext, trace_of, trace_var
from tests.service.fakes import post, running
from tests.service.observability.trace_ids import SPAN, TRACE

pytestmark = pytest.mark.anyio


def context(*parents: str) -> TraceContext:
    headers = [(b"traceparent", parent.encode("latin-1")) for parent in parents]
    return trace_of([(b"host", b"h"), *headers])


@pytest.mark.parametrize(
    "parent",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-03",
        f"00-{TRACE}-{SPAN}-fe",
        f" 00-{TRACE}-{SPAN}-01\t",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-brings",
    ],
)
def test_callers_go_on(parent: str) -> None:
    made = context(parent)
    assert made.trace_id == TRACE
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
    made, other = context(*parents), context(*parents)
    assert made.trace_id not in (TRACE, other.trace_id)
    assert (len(made.trace_id), len(made.span_id)) == (32, 16)
    assert int(made.trace_id, 16) > 0


async def test_logs_of_a_request_carry_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.access"):
        async with running() as (client, _):
            await post(client, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
            trace = trace_var.get()  # the client calls the app in this very task
    assert trace is not None
    assert trace.trace_id == TRACE
    assert trace.span_id != SPAN
