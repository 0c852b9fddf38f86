"""What both clients are made with, and how they name things."""

import re
import ssl
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from ebseg_client.errors import AnswerError, InputError

TIMEOUT = 60.0  # seconds for a call
CONNECTIONS = 16  # open at a time, and kept for the next calls
CLOSED = "the client was closed"
MOST_BYTES = 1 << 30  # of an answer; scores of many classes are the largest


def options(url: str, api_key: str | None, connections: int, verify: bool | ssl.SSLContext) -> dict[str, Any]:
    """httpx's arguments for a client.

    Raises:
        InputError: the address or the key cannot be used.
    """
    if not _is_address(url):
        # it is not repeated: a password may be in it
        begin = "" if isinstance(url, str) and "://" in url else "; put http:// or https:// before this one"
        raise InputError(
            f"the address of a service is http://HOST:PORT or https://HOST, as in http://127.0.0.1:8000{begin}"
        )
    headers = {"User-Agent": "ebseg-client", "Accept": "application/json"}
    if api_key is not None:
        if not isinstance(api_key, str) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", api_key):
            raise InputError("the API key is empty or holds characters that no header can")
        headers["Authorization"] = f"Bearer {api_key}"
    if connections < 1:
        raise InputError(f"at least one connection is needed, got {connections}")
    return {
        "base_url": url,
        "headers": headers,
        "limits": httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        "verify": verify,
    }


def _is_address(url: object) -> bool:
    if not isinstance(url, str) or re.search(r"\s", url):
        return False
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    named = parts.scheme in ("http", "https") and parts.host != ""
    return named and (parts.port is None or 0 < parts.port < 1 << 16)


def checked_timeout(seconds: float) -> float:
    """The time of a call.

    Raises:
        InputError: it is none.
    """
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise InputError(f"a timeout is a number of seconds above 0, got {seconds!r}")
    return float(seconds)


def new_request_id() -> str:
    """Names a call in its errors and in the service's log."""
    return uuid.uuid4().hex


class Body:
    """An answer's body as it arrives, within bounds of time and size."""

    def __init__(self, until: float):
        self._until = until
        self._parts: list[bytes] = []
        self._bytes = 0

    def add(self, part: bytes) -> None:
        """Takes a part.

        Raises:
            httpx.ReadTimeout: the time is over, though each part came quickly.
            AnswerError: it is too large.
        """
        self._parts.append(part)
        self._bytes += len(part)
        if self._bytes > MOST_BYTES:
            raise AnswerError(f"a response of more than {MOST_BYTES} bytes")
        if time.monotonic() > self._until:
            raise httpx.ReadTimeout("the response came too slowly")

    def response(self, streamed: httpx.Response) -> httpx.Response:
        """The whole answer; its content is decoded already."""
        headers: Mapping[str, str] = {
            name: value
            for name, value in streamed.headers.items()
            if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
        }
        return httpx.Response(
            streamed.status_code, headers=headers, content=b"".join(self._parts), request=streamed.request
        )
