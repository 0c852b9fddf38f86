"""What a test lets go wrong at the local hub, and what the hub has heard."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        on: regular expression that is searched in "METHOD /path"; paths are not decoded.
        times: how often; None is for ever.
        status: answer with this and `headers`, and do nothing.
        cut_after: hang up after so many bytes of the body; -1 hangs up before the answer's first byte. Where
            something is uploaded, so many bytes of it are read first.
        lose_answer: do what was asked, and hang up instead of answering.
        wait: seconds before the answer begins.
        bytes_per_second: how slowly a body comes.
        wrong_bytes: the right length, but one bit is another.
        digest: sent as the file's sha256 instead of the real one; it becomes the ETag.
        size: sent as the file's size.
        no_ranges: ranges are ignored, all of the file comes.
        location: redirect there, instead of an answer; {path} stands for the request's, {hub} and {cdn} for
            the two addresses, which serve the same routes. A path may begin with /moved, too.
    """

    on: str
    times: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    lose_answer: bool = False
    wait: float = 0.0
    bytes_per_second: float | None = None
    wrong_bytes: bool = False
    digest: str | None = None
    size: int | None = None
    no_ranges: bool = False
    location: str | None = None
    met: int = 0  # how often it has happened


GATE = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}
"""Headers of the 403 (with a token) and 401 (without one) at a gate."""


def too_many(seconds: int, on: str = "", times: int | None = 1) -> Fault:
    """429, with the time to wait."""
    return Fault(on, times, status=429, headers={"Retry-After": str(seconds)})


@dataclass(slots=True)
class Heard:
    """A request.

    Attributes:
        host: "hub" or "cdn".
        range: of the header, as it came.
        token: that came with it.
        status: of the answer; 0 until there is one.
        received, sent: bytes of the two bodies.
    """

    host: str
    method: str
    path: str
    range: str | None
    token: str | None
    status: int = 0
    received: int = 0
    sent: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Switches one on; earlier ones go first."""
        re.compile(fault.on)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Switches all off."""
        with self._lock:
            self._faults.clear()

    @contextmanager
    def during(self, fault: Fault) -> Iterator[Fault]:
        """One for as long as the block lasts."""
        self.add(fault)
        try:
            yield fault
        finally:
            with self._lock:
                if fault in self._faults:
                    self._faults.remove(fault)

    def take(self, request: Heard) -> Fault:
        """The first that is for this request, counted; one without effect where there is none."""
        with self._lock:
            for fault in self._faults:
                if re.search(fault.on, str(request)) and (fault.times is None or fault.met < fault.times):
                    fault.met += 1
                    return fault
        return Fault("")
