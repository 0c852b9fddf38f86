"""What a connection's end looks like, from both sides."""

import json
import socket
from typing import Any

from service.runtime import Service
from tests.waiting import WAIT

GET = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"


def ended(service: Service, reason: str) -> float:
    """How many connections were ended for this reason."""
    value = service.metrics.registry.get_sample_value("ebseg_connections_ended_total", {"reason": reason})
    assert value is not None  # every reason is there from the start
    return value


def opened(service: Service) -> float:
    value = service.metrics.registry.get_sample_value("ebseg_connections")
    assert value is not None
    return value


def refusal(answer: bytes, status: int, slug: str) -> dict[str, Any]:
    """The problem document of an answer that no application has made."""
    top, _, text = answer.partition(b"\r\n\r\n")
    lines = top.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), lines[0]
    headers = dict(line.split(": ", 1) for line in lines[1:])
    document: dict[str, Any] = json.loads(text)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"] == document["request_id"]
    assert int(headers["content-length"]) == len(text)
    assert document["type"] == f"urn:ebseg:problem:{slug}"
    assert document["detail"]
    if status == 503:
        assert int(headers["retry-after"]) >= 1
    return document


def is_gone(connection: socket.socket) -> bool:
    """Whether the server has ended it, by whatever is left to read."""
    connection.settimeout(WAIT)
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True


def refusal_of_application(answer: bytes, status: int, slug: str) -> dict[str, Any]:
    top, _, text = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 %d " % status)
    document: dict[str, Any] = json.loads(text)
    assert document["type"] == f"urn:ebseg:problem:{slug}"
    return document
