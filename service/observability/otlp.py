"""Finished requests as OpenTelemetry spans, sent by OTLP over HTTP. Needs the extra `otlp`."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from service.observability.tracing import FinishedRequest

_PATH = "/v1/traces"  # where collectors take traces, unless the URL names a path itself
_TIMEOUT_S = 3.0  # of one message, attempts to repeat it included
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


class OtlpSender:
    """Sends the spans of requests to a collector.

    Spans are made only now, off the requests' way, out of times that were taken there. `OTEL_*` variables
    hold for what this package has no setting for, such as a collector's headers or certificates.

    Args:
        endpoint: URL of the collector.
        timeout_s: of one message.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = _TIMEOUT_S):
        url = urlsplit(endpoint)
        if url.path in ("", "/"):
            endpoint = url._replace(path=_PATH).geturl()
        self._exporter = OTLPSpanExporter(endpoint, timeout=timeout_s)
        self._resource = Resource.create({"service.name": "ebseg"})
        self._scope = InstrumentationScope("ebseg")
        self._ids = RandomIdGenerator()

    def send(self, requests: Sequence[FinishedRequest]) -> None:
        """Sends the spans of some requests; the exporter logs what fails."""
        self._exporter.export([span for request in requests for span in self.spans_of(request)])

    def close(self) -> None:
        """Ends the pause between two attempts, and takes nothing more."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def spans_of(self, request: FinishedRequest) -> Iterator[ReadableSpan]:
        """The request's own span, then one a stage.

        Stages were timed one by one; their spans are put end to end, the last one up to the answer's headers.
        """
        trace = request.trace
        trace_id = int(trace.trace_id, 16)
        state = TraceState.from_header([trace.state])
        sampled = TraceFlags(TraceFlags.SAMPLED)
        own = SpanContext(trace_id, int(trace.span_id, 16), False, sampled, state)
        parent = None
        if trace.parent_id is not None:
            parent = SpanContext(trace_id, int(trace.parent_id, 16), True, sampled, state)
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "http.response.status_code": request.status,
            "ebseg.request_id": request.request_id,
        }
        if request.route is not None:
            attributes["http.route"] = request.route
        if request.model is not None:
            attributes["ebseg.model"] = request.model
        failed = request.status >= 500
        if failed:
            attributes["error.type"] = str(request.status)
        method = "HTTP" if request.method == "_OTHER" else request.method
        yield ReadableSpan(
            method if request.route is None else f"{method} {request.route}",
            own,
            parent,
            self._resource,
            attributes,
            kind=SpanKind.SERVER,
            status=_ERROR if failed else _UNSET,
            start_time=request.began_ns,
            end_time=request.began_ns + _ns(request.seconds),
            instrumentation_scope=self._scope,
        )
        for stage, begin, end in stage_times(request):
            yield ReadableSpan(
                stage,
                SpanContext(trace_id, self._ids.generate_span_id(), False, sampled, state),
                own,
                self._resource,
                start_time=begin,
                end_time=end,
                instrumentation_scope=self._scope,
            )


def stage_times(request: FinishedRequest) -> list[tuple[str, int, int]]:
    """Stages with their begin and end, Unix nanoseconds, none of them before the request's own begin."""
    times = []
    end = request.answered_s
    for stage, seconds in reversed(list(request.stages.items())):
        begin = max(0.0, end - seconds)
        times.append((stage, request.began_ns + _ns(begin), request.began_ns + _ns(end)))
        end = begin
    return times[::-1]


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
