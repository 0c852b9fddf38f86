"""One call as a sequence of requests and waits, without a socket: the same for both clients.

`exchange` is a generator. It yields what to do next, a `Send` or a `Wait`; a client does it and sends
back the answer, or what prevented one.
"""

import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx

from ebseg_client.errors import (
    AnswerError,
    ClientError,
    ConnectionFailedError,
    DeadlineError,
    ProblemError,
    problem_error,
)

T = TypeVar("T")
CONNECT_SECONDS = 5.0  # for one attempt at a connection
RETRIED = frozenset({408, 429, 502, 503})
HOPELESS = frozenset({"out-of-memory"})  # types of problems that the same request would meet again
SPREAD = 0.1  # of Retry-After; so much later at most, so that not all clients come back at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """When a request is sent again: refused for now (408, 429, 502, 503), or the connection failed.

    Attributes:
        attempts: how often it is sent at most; 1 for no retries.
        first_wait: before the second attempt, seconds; doubled for each further one.
        longest_wait: seconds. Each wait is shortened at random by up to half, and never shorter than the
            answer's Retry-After.
    """

    attempts: int = 5
    first_wait: float = 0.25
    longest_wait: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or self.longest_wait < 0:
            raise ValueError("a Retry has at least one attempt, and no negative waits")

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after an attempt, counted from 1."""
        steps = min(attempt - 1, 30)  # of doubling; more would not fit a float's range for ever
        own = min(self.longest_wait, self.first_wait * 2.0**steps) * random.uniform(0.5, 1)
        if retry_after is None:
            return own
        return max(own, retry_after * random.uniform(1, 1 + SPREAD))


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[T]):
    """What a method of the clients does.

    Attributes:
        method, path: of the request.
        body: httpx's arguments for the body, by the seconds that are left.
        parse: the answer to what the method returns; an AnswerError if it cannot.
        idempotent: doing it twice is as good as once, so it may be sent again when nobody knows whether it
            was done.
        expected: statuses below 400 apart, those that `parse` takes.
        retried: whether it is ever sent again.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    body: Callable[[float], dict[str, Any]] = field(default=lambda left: {})
    idempotent: bool = True
    expected: frozenset[int] = frozenset()
    retried: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Send this; its answer, or the exception that came instead, goes back."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    until: float  # by time.monotonic

    @property
    def timeout(self) -> httpx.Timeout:
        """For each step of this attempt."""
        left = max(0.001, self.until - time.monotonic())
        return httpx.Timeout(left, connect=min(left, CONNECT_SECONDS))


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for so many seconds; None goes back."""

    seconds: float


Reply = httpx.Response | Exception | None


def exchange(
    call: Call[T], *, seconds: float, retry: Retry, request_id: str
) -> Generator[Send | Wait, Reply, T]:
    """Runs a call.

    Args:
        call: what to do.
        seconds: for everything, waits included.
        retry: when to try again.
        request_id: of all attempts.

    Raises:
        ClientError: what came of the last attempt.
    """
    until = time.monotonic() + seconds
    attempt = 0
    while True:
        attempt += 1
        left = until - time.monotonic()
        send = Send(call.method, call.path, {"X-Request-ID": request_id}, call.body(left), until)
        reply = yield send
        error: ClientError
        if isinstance(reply, httpx.Response) and (reply.is_success or reply.status_code in call.expected):
            try:
                return call.parse(reply)
            except AnswerError as wrong:
                error, again = wrong, False
        elif isinstance(reply, httpx.Response):
            problem = _problem(reply)
            error, again = problem, may_help(problem, call)
        elif isinstance(reply, Exception):
            error, again = _failure(reply, seconds, until, call)
        else:
            raise TypeError(f"a response was expected, got {reply!r}")
        error.attempts = attempt
        error.request_id = error.request_id or request_id
        retry_after = error.retry_after if isinstance(error, ProblemError) else None
        wait = retry.wait(attempt, retry_after)
        if not (again and call.retried) or attempt >= retry.attempts or time.monotonic() + wait >= until:
            raise error
        yield Wait(wait)


def json_of(response: httpx.Response) -> Any:
    """The document of an answer.

    Raises:
        AnswerError: it holds none.
    """
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no type")
        url = response.request.url
        place = f"{url.scheme}://{url.netloc.decode()}{url.path}"  # no user, no password, no query
        raise AnswerError(
            f"{place} answered {response.status_code} with {kind} instead of JSON; is this an EBSeg service?"
        ) from None


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds them or a date; None if there is none, or it is wrong."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, at - time.time())


def _problem(response: httpx.Response) -> ProblemError:
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        document = None
    seconds = retry_after(response.headers.get("retry-after"))
    known = document if isinstance(document, dict) else None
    text = response.content.decode(errors="replace")  # whatever character set a proxy says it has
    if response.has_redirect_location:  # followed, the key would go to whoever is named there
        text = f"the service is said to be at {response.headers['location']}; give its own address"
    return problem_error(response.status_code, known, text, seconds)


def may_help(problem: ProblemError, call: Call[Any]) -> bool:
    """Whether the same request may succeed later. What the service itself refused, it did not do."""
    refused = problem.status in RETRIED and problem.type not in HOPELESS
    return refused and (call.idempotent or problem.is_own)


def _failure(error: Exception, seconds: float, until: float, call: Call[Any]) -> tuple[ClientError, bool]:
    """What an exception means, and whether the request may be sent again."""
    if isinstance(error, ClientError):
        return error, False
    message = str(error) or type(error).__name__
    if not isinstance(error, httpx.TransportError):
        return AnswerError(f"the response cannot be read: {message}"), False
    # a connection that was never made has carried nothing
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    if isinstance(error, httpx.TimeoutException) and (not unsent or time.monotonic() >= until):
        return DeadlineError(f"no response within {seconds:g} s ({type(error).__name__})"), False
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return ConnectionFailedError(message), False
    return ConnectionFailedError(f"the connection failed: {message}"), unsent or call.idempotent
