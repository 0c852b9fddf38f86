"""A collector of traces: a real HTTP server that decodes what it gets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.waiting import WAIT


class Collector:
    """Takes traces by OTLP over HTTP, and answers with a status, once its gate is open."""

    def __init__(self) -> None:
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                collector.paths.append(self.path)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200:
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.entered.set()
                collector.gate.wait(WAIT)
                try:
                    self.send_response(collector.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except ConnectionError:  # the sender has given up meanwhile
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        """All spans, by when they began."""
        found = [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    @property
    def resource(self) -> dict[str, object]:
        """What the first message says of its sender."""
        return attributes(self.requests[0].resource_spans[0].resource)

    def said(self) -> bytes:
        """All bytes that it got."""
        return b"".join(request.SerializeToString() for request in self.requests)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs."""
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.gate.set()
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def attributes(of: Span | Resource) -> dict[str, object]:
    """The attributes of a span or a resource."""
    found: dict[str, object] = {}
    for item in of.attributes:
        kind = item.value.WhichOneof("value")
        assert kind is not None
        found[item.key] = getattr(item.value, kind)
    return found
