"""A file over HTTP into a partial file, from whichever byte that has.

huggingface_hub's own download begins anew after an interruption (since its version 1 it writes to a file
that only one process knows), so the bytes are fetched here, for the hub as for any web address. A range is
asked for only where the answer must be of the same content: the partial file of a hub's file is named after
its digest, that of a web address has its validator beside it (`If-Range`).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2

from model.errors import FetchError, UnreachableError
from model.fetch.refusals import RETRIED, again_after, refusal, unreachable
from model.storage.files import Progress
from model.urls import shown

MOST_REDIRECTS = 10
_KEPT = "what was fetched is kept, start again to go on"
_REDIRECTS = (301, 302, 303, 307, 308)

T = TypeVar("T")
Notify = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a transfer keeps trying.

    Attributes:
        answer: seconds for a server's first answer, whatever it is that takes so long: a name, a connection.
        failures: in a row without a new byte, before it gives up.
        first_wait, longest_wait: seconds between tries; the wait doubles.
        longest_pause: seconds of all pauses that a server asks for (429, 503).
    """

    answer: float = 12.0
    failures: int = 5
    first_wait: float = 1.0
    longest_wait: float = 8.0
    longest_pause: float = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where the bytes are, as their server announced.

    Attributes:
        url: may hold secrets.
        headers: for the origin of `url` only.
        size: bytes; None where the server does not tell.
        condition: value of If-Range, None where the content cannot change under this address.
        etag: of the answer, to notice a changed file where there is no `condition`.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    size: int | None
    condition: str | None = None
    etag: str | None = None


class TryAgainError(Exception):
    """An answer that ended early, or one that says "later"; `wait` is what the server asks for, seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class Tries:
    """Counts what goes wrong, and waits in between.

    Args:
        name: of the file, for people.
        notify: called with each wait.
        patience: how many, how long.
    """

    def __init__(self, name: str, notify: Notify, patience: Patience):
        self.name = name
        self._notify = notify
        self._patience = patience
        self._failures = 0
        self._paused = 0.0

    def again(self, error: Exception, url: str, *, moved: bool, connected: bool) -> None:
        """Waits after an error.

        Args:
            error: a TryAgainError, or one of the network.
            url: that was asked.
            moved: new bytes came since the last error.
            connected: the server has been reached before, so an absence may be short.

        Raises:
            UnreachableError: enough was tried, or nobody is there.
        """
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx2.TransportError):
            absent = unreachable(error, url)
            if absent is not None and not connected:
                raise UnreachableError(absent) from None
            reason = absent or f"the connection was cut ({reason})"
        wait = error.wait if isinstance(error, TryAgainError) else None
        if moved:
            self._failures = 0
        self._failures += wait is None
        if self._failures > self._patience.failures:
            raise UnreachableError(
                f"{self.name}: {reason}, {self._failures} times in a row; {_KEPT}"
            ) from None
        if wait is None:
            wait = min(self._patience.first_wait * 2 ** (self._failures - 1), self._patience.longest_wait)
        else:
            self._paused += max(wait, self._patience.first_wait)
            if self._paused > self._patience.longest_pause:
                raise UnreachableError(f"{self.name}: {reason} for another {wait:.0f} s; {_KEPT}") from None
        self._notify(f"{self.name}: {reason}; going on in {wait:g} s")
        time.sleep(wait)


def client(patience: Patience, read_seconds: float) -> httpx2.Client:
    """A client that follows no redirect by itself; proxies and certificates as the environment says."""
    return httpx2.Client(
        follow_redirects=False,
        timeout=httpx2.Timeout(read_seconds, connect=patience.answer),
        headers={"User-Agent": "ebseg", "Accept-Encoding": "identity"},
    )


@contextmanager
def answered(
    http: httpx2.Client, method: str, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[httpx2.Response]:
    """The answer at the end of the redirects, its body not read; `headers` stay with the first origin.

    Raises:
        FetchError: too many redirects, or one from https to http.
        httpx2.HTTPError: the network.
    """
    own, extra = origin(url), headers
    for _ in range(MOST_REDIRECTS + 1):
        request = http.build_request(method, url, headers=extra)
        response = within(patience.answer, lambda r=request: http.send(r, stream=True))  # type: ignore[misc]
        try:
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or target is None:
                yield response
                return
        finally:
            response.close()
        target = urljoin(url, target)
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
            raise FetchError(f"{shown(url)} leads to {shown(target)}, which is not protected on its way")
        if origin(target) != own:
            kept = ("range", "if-range")
            extra = {name: value for name, value in headers.items() if name.lower() in kept}
        url = target
    raise FetchError(f"{shown(url)} leads on and on, {MOST_REDIRECTS} times are enough: check the address")


def located(locate: Callable[[], Location], url: str, tries: Tries) -> Location:
    """The first answer to where a file is.

    Raises:
        FetchError: the server refuses.
        UnreachableError: nobody is there, or too busy for too long.
    """
    while True:
        try:
            return locate()
        except (TryAgainError, httpx2.TransportError) as error:
            tries.again(error, url, moved=False, connected=False)


class Transfer:
    """One file on its way into `partial`.

    Args:
        name: of the file, for people.
        partial: what is there of it, and where the rest goes.
        locate: asks where the bytes are; again whenever an address has expired or the file has changed.
        http: a client that `client` made.
        notify, progress: called with waits, and with bytes.
        patience: with the network.
    """

    def __init__(
        self,
        name: str,
        partial: Path,
        locate: Callable[[], Location],
        *,
        http: httpx2.Client,
        notify: Notify,
        progress: Progress,
        patience: Patience,
    ):
        self.name = name
        self.partial = partial
        self._locate = locate
        self._http = http
        self._notify = notify
        self._progress = progress
        self._patience = patience
        self.received = 0

    def run(self, location: Location) -> None:
        """Fetches what is missing.

        Raises:
            FetchError: the server refuses, or the network stays away; `partial` keeps what is there.
            OSError: the disk did not take it; `partial` keeps what is there.
        """
        fresh, tries = True, Tries(self.name, self._notify, self._patience)
        while True:
            before = self.received
            try:
                if not fresh:  # an address may have expired meanwhile, or the file changed
                    location = self._locate()
                    fresh = True
                if self._fetch(location):
                    return
                raise TryAgainError("the connection was cut")
            except (TryAgainError, httpx2.TransportError) as error:
                fresh = False
                tries.again(error, location.url, moved=self.received > before, connected=self.received > 0)

    def _fetch(self, location: Location) -> bool:
        """One request; whether the file is whole now."""
        offset = self.partial.stat().st_size if self.partial.exists() else 0
        if location.size is not None:
            if offset == location.size:
                return True
            if offset > location.size:  # no part of this file
                offset = 0
        headers = dict(location.headers)
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if location.condition is not None:
                headers["If-Range"] = location.condition
        with answered(self._http, "GET", location.url, headers, self._patience) as response:
            offset = self._first_byte(response, location, offset)
            with open(self.partial, "r+b" if offset else "wb") as file:
                file.seek(offset)
                file.truncate()
                done = offset
                total = location.size or 0
                self._progress(f"fetching {self.name}", done, total)
                for chunk in response.iter_raw():  # as it comes: what is held back could be lost
                    done += len(chunk)
                    if location.size is not None and done > location.size:
                        raise FetchError(
                            f"{self.name}: the server sends more than the {location.size} bytes of it"
                        )
                    file.write(chunk)
                    file.flush()  # and is kept, even if this process is killed now
                    self.received += len(chunk)
                    self._progress(f"fetching {self.name}", done, total)
        return location.size is None or done == location.size

    def _first_byte(self, response: httpx2.Response, location: Location, offset: int) -> int:
        """Where in the file the answer's body begins."""
        status = response.status_code
        if status in RETRIED:
            raise TryAgainError(f"the server answers {status}", again_after(response))
        if status == 416:
            with suppress(FileNotFoundError):
                self.partial.unlink()
            raise TryAgainError("the server has no such part of the file")
        if status in (401, 403, 404, 410) and self.received:
            raise TryAgainError(f"the address has expired (the server answers {status})")
        if status not in (200, 206):
            raise refusal(response, self.name)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError(f"{self.name}: the server sends it compressed, though it was asked not to")
        if status == 206:
            begins, total = content_range(response)
            if begins != offset or (location.size is not None and total not in (None, location.size)):
                raise TryAgainError("the server sends another part than was asked for")
            return offset
        etag = response.headers.get("ETag")
        if location.etag is not None and etag is not None and etag != location.etag:
            raise TryAgainError("the file has changed on its server")
        length = response.headers.get("Content-Length")
        if location.size is not None and length is not None and length != str(location.size):
            raise TryAgainError("the file has changed on its server")
        if offset:
            self._notify(f"{self.name}: this server cannot go on in the middle of a file, it begins anew")
        return 0


def content_range(response: httpx2.Response) -> tuple[int | None, int | None]:
    """First byte and total of a Content-Range, None where it does not tell."""
    text = response.headers.get("Content-Range", "")
    with suppress(ValueError):
        unit, _, rest = text.partition(" ")
        span, _, total = rest.partition("/")
        if unit == "bytes":
            return int(span.partition("-")[0]), None if total == "*" else int(total)
    return None, None


def origin(url: str) -> tuple[str, str | None, int | None]:
    """What a credential belongs to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call returns or raises, if it takes no longer; looking a name up has no time-out of its own.

    Raises:
        httpx2.ConnectTimeout: it takes longer; the call is left to itself.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise httpx2.ConnectTimeout(f"no response in {seconds:.0f} s")
    return found[0]
