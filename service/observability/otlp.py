"""Spans of requests and of their stages, by OpenTelemetry, to a collector. Needs the extra `otlp`.

The variables `OTEL_*` are read by OpenTelemetry's own code: name and attributes of the resource, sampler,
propagators, batches, and what the exporter sends to whom. A collector that is slow or dead costs spans, never
a request anything: they wait in a queue of bounded length for a thread of their own.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.http import get_excluded_urls, sanitize_method
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability.stages import Stage, stage_listener
from service.observability.trace_context import TraceContext
from service.settings import prefer_stable_telemetry_names

STOP_S = 3.0  # for what still waits when the service stops, and once more for a message under way
UNKNOWN_SERVICE = "unknown_service"  # what OpenTelemetry calls a service that nobody gave a name
# of no interest in a trace, unless their caller has one
PROBES = frozenset({"/livez", "/readyz", "/startupz", "/metrics", "/v2/health/live", "/v2/health/ready"})
# no variable may bring keys into spans, nor what anybody wrote without being asked for it
_KEPT_BACK = frozenset({b"authorization", b"x-api-key", b"cookie", b"host", b"user-agent"})
_SHOWN = ("type", "asgi", "http_version", "scheme", "server", "client")
_PATH = "/v1/traces"  # where collectors take traces, unless the URL names a path itself


class OtlpTracing:
    """Sends a span for each request, and one below it for each of its stages.

    Args:
        endpoint: URL of the collector; None leaves it to `OTEL_EXPORTER_OTLP_ENDPOINT` and its like.
        stop_s: how long `stop` lets the rest be sent, seconds; as long again for a message under way.
    """

    def __init__(self, endpoint: str | None, *, stop_s: float = STOP_S):
        prefer_stable_telemetry_names()
        self._exporter = OTLPSpanExporter(None if endpoint is None else traces_url(endpoint))
        self._provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
        self._processor: BatchSpanProcessor | None = None
        self._stop_s = stop_s

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, with a span for every request."""
        return RequestSpans(app, self._provider)

    def start(self) -> None:
        """Begins to send, on a thread of its own; spans of requests before that are lost."""
        if self._processor is None:
            self._processor = BatchSpanProcessor(self._exporter)
            self._provider.add_span_processor(self._processor)

    async def stop(self) -> None:
        """Sends what waits, for a bounded time, and ends the thread."""
        if self._processor is not None:
            await asyncio.to_thread(self._end, self._processor)

    def _end(self, processor: BatchSpanProcessor) -> None:
        # a daemon, since it may outlast its time: a message under way ends only by the exporter's own limit
        ending = threading.Thread(target=processor.shutdown, name="ebseg-traces-end", daemon=True)
        ending.start()
        ending.join(self._stop_s)
        if ending.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # cuts pauses between attempts short
            ending.join(self._stop_s)


class RequestSpans:
    """ASGI middleware: OpenTelemetry's own, which sees of a request only what a span may hold.

    Paths, queries and what else a user wrote stay out; the route's template says enough.

    Args:
        app: what is inside; it finds the ids of the span as `scope["state"]["trace"]`.
        provider: of the tracers.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider):
        self._app = app
        self._tracer = provider.get_tracer("ebseg")
        self._excluded = get_excluded_urls("ASGI")
        self._middleware = OpenTelemetryMiddleware(
            self._inside,
            default_span_details=lambda scope: (_verb(scope["method"]), {}),
            tracer_provider=provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] != "http" or not self._wanted(scope):
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _KEPT_BACK]
        seen: Scope = {
            **{
                key: scope[key]
                for key in ("type", "asgi", "http_version", "scheme", "server")
                if key in scope
            },
            "client": scope.get("client"),
            "method": sanitize_method(scope["method"]),
            "path": "",
            "query_string": b"",
            "headers": headers,
            "ebseg.scope": scope,
        }
        await self._middleware(seen, receive, send)
        if "ebseg.error" in seen:
            raise seen["ebseg.error"]

    def _wanted(self, scope: Scope) -> bool:
        path = scope["path"]
        if self._excluded.url_disabled(path):
            return False
        return path not in PROBES or any(name == b"traceparent" for name, _ in scope["headers"])

    async def _inside(self, seen: Scope, receive: Receive, send: Send) -> None:
        """What OpenTelemetry's middleware runs. Errors pass it by: their texts may hold what a user wrote."""
        scope: Scope = seen["ebseg.scope"]
        span = get_current_span()
        context = span.get_span_context()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["trace"] = TraceContext(format_trace_id(context.trace_id), format_span_id(context.span_id))
        token = stage_listener.set(_listener(self._tracer, span) if span.is_recording() else None)

        async def described(message: Message) -> None:
            if message["type"] == "http.response.start" and span.is_recording():
                _describe(span, scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, described)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            seen["ebseg.error"] = error
        finally:
            stage_listener.reset(token)


def traces_url(endpoint: str) -> str:
    """The endpoint, with the path where collectors take traces if it names none."""
    url = urlsplit(endpoint)
    return url._replace(path=_PATH).geturl() if url.path in ("", "/") else endpoint


def resource() -> Resource:
    """What spans say of this process: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, else our own name."""
    made = Resource.create()
    own: dict[str, str] = {}
    if str(made.attributes[SERVICE_NAME]).startswith(UNKNOWN_SERVICE):
        own[SERVICE_NAME] = "ebseg"
    return made.merge(Resource(own))


def _describe(span: Span, scope: Scope, status: int) -> None:
    """What is known of a request when its answer begins."""
    state = scope["state"]
    verb = _verb(sanitize_method(scope["method"]))
    route = getattr(scope.get("route"), "path", None)
    for name in ("request_id", "model"):
        if state.get(name) is not None:
            span.set_attribute(f"ebseg.{name}", state[name])
    if route is not None:
        span.set_attribute("http.route", route)
        span.update_name(f"{verb} {route}")
    if status >= 500:
        span.set_attribute("error.type", str(status))


def _verb(method: str) -> str:
    return "HTTP" if method == "_OTHER" else method


def _listener(tracer: Tracer, request: Span) -> Callable[[Stage], None]:
    """Makes spans of stages, below the request's own; from any thread."""
    context = set_span_in_context(request)

    def ended(stage: Stage) -> None:
        span = tracer.start_span(stage.name, context, SpanKind.INTERNAL, start_time=stage.began_ns)
        if stage.error is not None:
            span.set_attribute("error.type", stage.error.__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=stage.ended_ns)

    return ended
