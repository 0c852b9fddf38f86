"""Spans on the wire: a receiver that decodes what a collector would get."""

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.observability.otlp import OtlpSender, stage_times
from service.observability.tracing import FinishedRequest, TraceContext, Tracing
from service.settings import Settings
from tests.service.fakes import FakeEngine, encoded, picture, post, running
from tests.service.observability.trace_ids import SPAN, TRACE
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio

STAGES = ["decode", "text", "queue", "predict", "classify", "encode"]


class Collector:
    """Takes traces by OTLP over HTTP, and answers with a status."""

    def __init__(self) -> None:
        self.status = 200
        self.paths: list[str] = []
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                collector.paths.append(self.path)
                if collector.status == 200:
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def attributes(span: Span) -> dict[str, object]:
    return {
        item.key: item.value.int_value if item.value.HasField("int_value") else item.value.string_value
        for item in span.attributes
    }


async def test_a_request_as_its_callers_child(collector: Collector) -> None:
    before = time.time_ns()
    parent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=x"}
    async with running(FakeEngine(seconds=0.01), otlp_endpoint=collector.url) as (client, _):
        answer = await post(client, {"classes": ["my-secret-class"]}, headers=parent)
        assert answer.status_code == 200
    after = time.time_ns()
    assert set(collector.paths) == {"/v1/traces"}
    own, *stages = collector.spans
    assert own.name == "POST /v1/segment"
    assert own.kind == Span.SPAN_KIND_SERVER
    assert own.trace_id.hex() == TRACE
    assert own.parent_span_id.hex() == SPAN
    assert own.trace_state == "vendor=x"
    assert own.status.code == Status.STATUS_CODE_UNSET
    assert attributes(own) == {
        "http.request.method": "POST",
        "http.route": "/v1/segment",
        "http.response.status_code": 200,
        "ebseg.model": "fake/3",
        "ebseg.request_id": answer.headers["x-request-id"],
    }
    assert [span.name for span in stages if span.name in STAGES] == [span.name for span in stages]
    assert set(STAGES) - {"text"} <= {span.name for span in stages}
    assert all(span.parent_span_id == own.span_id for span in stages)
    assert all(span.trace_id == own.trace_id for span in stages)
    assert len({span.span_id for span in (own, *stages)}) == len(stages) + 1
    ends = [own.start_time_unix_nano]
    for span in stages:
        assert ends[-1] <= span.start_time_unix_nano <= span.end_time_unix_nano
        ends.append(span.end_time_unix_nano)
    assert before <= own.start_time_unix_nano
    assert ends[-1] <= own.end_time_unix_nano <= after
    predict = next(span for span in stages if span.name == "predict")
    assert 0.01e9 <= predict.end_time_unix_nano - predict.start_time_unix_nano < 5e9
    resource = collector.requests[0].resource_spans[0].resource
    assert {"service.name": "ebseg"}.items() <= {
        item.key: item.value.string_value for item in resource.attributes
    }.items()
    assert b"my-secret-class" not in collector.requests[0].SerializeToString()


async def test_what_is_recorded(collector: Collector) -> None:
    black = encoded(picture() * 0)
    async with running(FakeEngine(error=RuntimeError("x")), otlp_endpoint=f"{collector.url}/own/path") as (
        client,
        _,
    ):
        await client.get("/v1/models")
        await client.get("/my-secret-path?q=my-secret-query")
        await client.request("SECRET", "/v1/models")
        await post(client, image=black)
        await client.get("/livez")  # of no interest
        await client.get("/livez", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})  # but to its caller
        await client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})  # who says no
    roots = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    told = [(span.name, attributes(span)["http.response.status_code"]) for span in roots]
    assert told == [
        ("GET /v1/models", 200),
        ("GET", 404),
        ("HTTP /v1/models", 405),
        ("POST /v1/segment", 500),
        ("GET /livez", 200),
    ]
    assert len({span.trace_id for span in roots}) == 5
    assert not any(span.parent_span_id for span in roots[:4])
    assert [span.status.code for span in roots].count(Status.STATUS_CODE_ERROR) == 1
    assert attributes(roots[3])["error.type"] == "500"
    assert set(collector.paths) == {"/own/path"}
    assert not any(b"secret" in request.SerializeToString().lower() for request in collector.requests)


async def test_a_collector_that_refuses_disturbs_nobody(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    async with running(otlp_endpoint=collector.url) as (client, _):
        assert (await post(client)).status_code == 200
    assert collector.paths == ["/v1/traces"]
    assert "Failed to export" in caplog.text


@pytest.mark.parametrize("there", [True, False])
async def test_stopping_does_not_wait_for_a_collector_that_is_down(
    collector: Collector, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 503
    # else the port of the discard protocol, where nobody listens
    url = collector.url if there else "http://127.0.0.1:9"
    stubborn = OtlpSender(url, timeout_s=10 * WAIT)
    traces = Tracing(Settings(), sender=stubborn, interval_s=0.001, stop_s=0.2)
    traces.add(made())
    async with asyncio.timeout(WAIT):
        await traces.stop()
    assert "export" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "ebseg-traces"]


def made(**stages: float) -> FinishedRequest:
    return FinishedRequest(
        trace=TraceContext(TRACE, SPAN),
        request_id="id",
        method="POST",
        route="/v1/segment",
        status=200,
        model=None,
        began_ns=1_000_000_000_000,
        answered_s=1.0,
        seconds=1.5,
        stages=stages,
    )


def test_stages_end_with_the_answers_headers() -> None:
    second = 1_000_000_000
    begin = 1000 * second
    assert stage_times(made(decode=0.2, encode=0.3)) == [
        ("decode", begin + second // 2, begin + 7 * second // 10),
        ("encode", begin + 7 * second // 10, begin + second),
    ]
    # some of it at the same time: nothing begins before the request
    times = stage_times(made(decode=0.9, text=0.8))
    assert [(stage, start - begin, end - begin) for stage, start, end in times] == [
        ("decode", 0, second // 5),
        ("text", second // 5, second),
    ]
    assert stage_times(made()) == []


def test_an_endpoint_without_a_path_gets_the_usual_one(collector: Collector) -> None:
    for url, path in (
        (collector.url, "/v1/traces"),
        (f"{collector.url}/", "/v1/traces"),
        (f"{collector.url}/a", "/a"),
    ):
        sender = OtlpSender(url)
        sender.send([made()])
        sender.close()
        assert collector.paths.pop() == path
