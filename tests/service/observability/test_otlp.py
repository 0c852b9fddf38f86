"""Spans on the wire: what a collector gets of requests and their stages."""

import asyncio
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.observability.otlp import OtlpTracing, traces_url
from service.observability.trace_context import trace_var
from tests.service.fakes import FakeEngine, another, encoded, live, picture, post, running
from tests.service.observability.collector import Collector, attributes, collecting
from tests.service.observability.trace_ids import SPAN, TRACE
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio

STAGES = ["decode", "text", "queue", "predict", "classify", "encode"]
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with collecting() as made:
        yield made


def servers(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]


async def test_a_request_as_its_callers_child(collector: Collector) -> None:
    before = time.time_ns()
    parent = {"traceparent": PARENT, "tracestate": "vendor=x"}
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
    recorded = attributes(own)
    assert {
        "http.request.method": "POST",
        "http.route": "/v1/segment",
        "http.response.status_code": 200,
        "ebseg.model": "fake/3",
        "ebseg.request_id": answer.headers["x-request-id"],
    }.items() <= recorded.items()
    assert recorded.keys() <= {
        "http.request.method", "http.route", "http.response.status_code", "ebseg.model", "ebseg.request_id",
        "url.scheme", "server.address", "server.port", "client.address", "client.port",
        "network.protocol.version",
    }  # fmt: skip
    assert sorted(span.name for span in stages) == sorted(STAGES)
    assert all(span.parent_span_id == own.span_id for span in stages)
    assert all(span.trace_id == own.trace_id for span in stages)
    assert all(span.kind == Span.SPAN_KIND_INTERNAL for span in stages)
    assert len({span.span_id for span in (own, *stages)}) == len(stages) + 1
    ends = [own.start_time_unix_nano]
    for span in (one for one in stages if one.name != "text"):  # which goes beside the others
        assert ends[-1] <= span.start_time_unix_nano <= span.end_time_unix_nano
        ends.append(span.end_time_unix_nano)
    assert before <= own.start_time_unix_nano
    assert ends[-1] <= own.end_time_unix_nano <= after
    predict = next(span for span in stages if span.name == "predict")
    assert 0.01e9 <= predict.end_time_unix_nano - predict.start_time_unix_nano < 5e9
    assert collector.resource["service.name"] == "ebseg"
    assert b"my-secret-class" not in collector.said()


async def test_what_is_recorded(collector: Collector) -> None:
    black = encoded(picture() * 0)
    secret = {
        "User-Agent": "secret",
        "Authorization": "Bearer secret",
        "X-API-Key": "secret",
        "Cookie": "secret",
    }
    async with running(
        FakeEngine(error=RuntimeError("secret")), otlp_endpoint=f"{collector.url}/own/path"
    ) as (
        client,
        _,
    ):
        await client.get("/v1/models", headers=secret)
        await client.get("/my-secret-path?q=my-secret-query")
        await client.request("SECRET", "/v1/models")
        await post(client, image=black)
        await client.get("/livez")  # of no interest
        await client.get("/livez", headers={"traceparent": PARENT})  # but to its caller
        await client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})  # who says no
    roots = servers(collector.spans)
    recorded = [(span.name, attributes(span)["http.response.status_code"]) for span in roots]
    assert recorded == [
        ("GET /v1/models", 200),
        ("GET", 404),
        ("HTTP /v1/models", 405),
        ("POST /v1/segment", 500),
        ("GET /livez", 200),
    ]
    assert len({span.trace_id for span in roots}) == 5
    assert not any(span.parent_span_id for span in roots[:4])
    assert [span.status.code for span in roots] == [0, 0, 0, Status.STATUS_CODE_ERROR, 0]
    assert attributes(roots[3])["error.type"] == "500"
    stages = {span.name: span for span in collector.spans if span.parent_span_id == roots[3].span_id}
    assert stages.keys() == {"text", "decode", "queue", "predict"}
    assert {name for name, span in stages.items() if span.status.code != 0} <= {"predict", "text"}
    assert stages["predict"].status.code == Status.STATUS_CODE_ERROR
    assert attributes(stages["predict"]) == {"error.type": "RuntimeError"}
    assert set(collector.paths) == {"/own/path"}
    assert b"secret" not in collector.said().lower()


async def test_a_picture_that_is_none_fails_where_it_is_decoded(collector: Collector) -> None:
    async with running(otlp_endpoint=collector.url) as (client, _):
        assert (await post(client, image=b"no picture")).status_code == 415
    own, *stages = collector.spans
    decode = next(span for span in stages if span.name == "decode")
    assert (own.status.code, decode.status.code) == (0, Status.STATUS_CODE_ERROR)
    assert {span.name for span in stages} <= {"text", "decode"}


async def test_stages_stand_where_they_happened(collector: Collector) -> None:
    """Two pictures of one batch: the second waits in the queue while the first is predicted."""
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine, otlp_endpoint=collector.url, max_batch_size=1) as (client, service):
        first = asyncio.create_task(post(client))
        async with asyncio.timeout(WAIT):
            while not engine.running.is_set():
                await asyncio.sleep(0.001)
            second = asyncio.create_task(post(client, image=another()))
            while service.scheduler.depth == 0:
                await asyncio.sleep(0.001)
            gate.set()
            await asyncio.gather(first, second)
    early, late = servers(collector.spans)
    at = {(span.parent_span_id, span.name): span for span in collector.spans}
    predict, waited = at[early.span_id, "predict"], at[late.span_id, "queue"]
    assert predict.start_time_unix_nano < waited.start_time_unix_nano
    assert predict.end_time_unix_nano <= waited.end_time_unix_nano
    assert waited.end_time_unix_nano <= at[late.span_id, "predict"].start_time_unix_nano
    # what waits for the classes of another is in no stage of its own: it begins when it begins
    assert at[late.span_id, "classify"].start_time_unix_nano >= at[late.span_id, "predict"].end_time_unix_nano


async def test_waiting_that_ends_in_vain_is_told(collector: Collector) -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine, otlp_endpoint=collector.url, max_batch_size=1) as (client, _):
        first = asyncio.create_task(post(client))
        async with asyncio.timeout(WAIT):
            while not engine.running.is_set():
                await asyncio.sleep(0.001)
            answer = await post(client, {"classes": ["sky"], "timeout_ms": 50})
            assert answer.status_code == 504
            gate.set()
            await first
    late = next(span for span in servers(collector.spans) if attributes(span).get("error.type") == "504")
    queue = next(
        span for span in collector.spans if span.parent_span_id == late.span_id and span.name == "queue"
    )
    assert queue.status.code == late.status.code == Status.STATUS_CODE_ERROR
    assert queue.end_time_unix_nano - queue.start_time_unix_nano > 10e6


async def test_log_lines_have_the_ids_of_the_span(collector: Collector) -> None:
    async with running(otlp_endpoint=collector.url) as (client, _):
        await post(client, headers={"traceparent": PARENT})
        trace = trace_var.get()  # the client calls the app in this very task
    own = collector.spans[0]
    assert trace is not None
    assert (trace.trace_id, trace.span_id) == (own.trace_id.hex(), own.span_id.hex())


async def test_standard_variables_hold(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of ours: OpenTelemetry's own variables say where to, as whom, and with what."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=9")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    async with running() as (client, _):
        await client.get("/v1/models")
        await client.get("/v1/models")
    assert collector.paths == ["/v1/traces", "/v1/traces"]
    assert collector.headers[0]["x-tenant"] == "blue"
    assert {
        "service.name": "pictures", "deployment.environment.name": "test", "service.version": "9",
    }.items() <= collector.resource.items()  # fmt: skip


async def test_our_own_endpoint_wins(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=of-the-list")
    async with running(otlp_endpoint=collector.url) as (client, _):
        await client.get("/v1/models")
    assert len(collector.spans) == 1
    assert collector.resource["service.name"] == "of-the-list"


@pytest.mark.parametrize(
    ("sampler", "share", "parent", "spans"),
    [
        ("always_off", "", "", 0),
        ("always_off", "", PARENT, 0),
        ("parentbased_always_off", "", "", 0),
        ("parentbased_always_off", "", PARENT, 1),
        ("traceidratio", "0", PARENT, 0),
        ("parentbased_traceidratio", "1.0", "", 1),
    ],
)
async def test_samplers(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str, share: str, parent: str, spans: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    if share:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    headers = {"traceparent": parent} if parent else {}
    async with running(otlp_endpoint=collector.url) as (client, _):
        answer = await post(client, headers=headers)
        assert answer.status_code == 200
    assert len(servers(collector.spans)) == spans
    assert len(collector.spans) == spans * (1 + len(STAGES))


async def test_paths_that_are_excluded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "models,openapi")
    async with running(otlp_endpoint=collector.url) as (client, _):
        await client.get("/v1/models")
        await client.get("/v1/vocabularies")
    assert [span.name for span in collector.spans] == ["GET /v1/vocabularies"]


async def test_the_sdk_can_be_disabled(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with running(otlp_endpoint=collector.url) as (client, service):
        await client.get("/v1/models")
        assert service.tracing is None
    assert collector.paths == []


async def test_a_collector_that_refuses_disturbs_nobody(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    async with running(otlp_endpoint=collector.url) as (client, _):
        assert (await post(client)).status_code == 200
    assert collector.paths == ["/v1/traces"]
    assert "Failed to export" in caplog.text


async def test_a_collector_that_hangs_costs_no_request_anything(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    collector.gate.clear()
    with live(otlp_endpoint=collector.url) as (url, _), httpx.Client(base_url=url, timeout=WAIT) as client:
        for _ in range(60):  # far more spans than the queue takes
            assert client.get("/v1/models").status_code == 200
        assert collector.entered.wait(WAIT)
        for _ in range(20):
            assert client.get("/v1/models").status_code == 200
        assert len(collector.paths) == 1  # it has not answered the first message yet
        collector.gate.set()
    assert "Queue full" in caplog.text
    assert 16 <= len(collector.spans) < 80


@pytest.mark.parametrize("there", [True, False])
async def test_stopping_does_not_wait_for_a_collector_that_is_down(
    collector: Collector, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 503  # which makes the exporter try again
    # else the port of the discard protocol, where nobody listens
    tracing = OtlpTracing(collector.url if there else "http://127.0.0.1:9", stop_s=0.2)
    tracing.start()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(tracing.around(_ok)), base_url="http://test"
    ) as client:
        await client.get("/")
    began = time.perf_counter()
    async with asyncio.timeout(WAIT):
        await tracing.stop()
    assert time.perf_counter() - began < 5  # the exporter alone would go on for its 10 s
    assert "export" in caplog.text


async def _ok(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]


def test_an_endpoint_without_a_path_gets_the_usual_one() -> None:
    assert traces_url("http://c:4318") == traces_url("http://c:4318/") == "http://c:4318/v1/traces"
    assert traces_url("https://c/a?b=c") == "https://c/a?b=c"
    assert traces_url("https://c?b=c") == "https://c/v1/traces?b=c"
