"""A file at a web address, in a cache of its own beside huggingface_hub's (`HF_HOME`, `HF_ASSETS_CACHE`).

What was fetched goes on where it stopped only if the server says by a strong ETag or a date that it is the
same file still, or if the user's digest will tell.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2
from huggingface_hub import cached_assets_path, constants, is_offline_mode

from model.errors import FetchError, UnreachableError
from model.fetch.fetching import Fetched, SourceFile, alone, finished
from model.fetch.refusals import RETRIED, again_after, refusal
from model.fetch.sources import WebFile
from model.fetch.transfer import (
    Location,
    Notify,
    Patience,
    Transfer,
    Tries,
    TryAgainError,
    answered,
    client,
    content_range,
    located,
)
from model.storage.files import Progress

_NO_HEAD = (400, 403, 405, 501)  # what servers answer that know or allow GET only


class WebFetcher:
    """Fetches one file from a web address.

    Args:
        file: which.
        pinned: the digest that the user wants, in hexadecimal digits.
        notify, progress: called with waits, and with bytes.
        patience: with the network.

    Raises:
        OSError: there is no folder for it.
    """

    def __init__(
        self, file: WebFile, pinned: str | None, *, notify: Notify, progress: Progress, patience: Patience
    ):
        self._file = file
        self._pinned = pinned
        self._notify = notify
        self._progress = progress
        self._patience = patience
        self._url, self._headers = _without_user(file.url)
        key = hashlib.sha256(self._url.encode()).hexdigest()[:32]
        self._folder = Path(cached_assets_path("ebseg", "pull", key, assets_dir=constants.HF_ASSETS_CACHE))
        self._whole = self._folder / "file"
        self._partial = self._folder / "file.incomplete"
        self._note = self._folder / "validator.json"
        self._location: Location | None = None

    def find(self) -> SourceFile:
        """What the server, or without it the cache, knows of the file.

        Raises:
            FetchError: the server refuses.
            UnreachableError: it does not answer, and the file is not here.
        """
        tries = Tries(self._file.name, self._notify, self._patience)
        known = self._whole if self._whole.exists() else None
        try:
            if is_offline_mode():
                raise UnreachableError(f"HF_HUB_OFFLINE is set, and {self._file} was not fetched before")
            with client(self._patience, constants.HF_HUB_DOWNLOAD_TIMEOUT) as http:
                self._location = located(lambda: self._locate(http), self._url, tries)
        except UnreachableError as error:
            if known is None:
                raise
            self._notify(f"{error}; {self._file.name} was fetched before, that file is taken")
            size = known.stat().st_size
            return SourceFile(where=str(self._file), size=size, here=size, whole=known)
        same = self._noted() is not None and self._noted() == _validator(self._location)
        if not same:
            known = None
        here = known or self._partial
        resumes = here.exists() and (same or self._pinned is not None)
        return SourceFile(
            where=str(self._file),
            size=self._location.size,
            here=here.stat().st_size if resumes else 0,
            whole=known,
            place=self._folder,
        )

    @contextmanager
    def fetched(self, found: SourceFile) -> Iterator[Fetched]:
        """The whole file, which no other process fetches meanwhile.

        Args:
            found: what `find` said.

        Raises:
            FetchError: the server refuses.
            OSError: the disk did not take it.
        """
        if self._location is None:
            assert found.whole is not None
            yield finished(found.whole, found, str(self._file), self._progress)
            return
        with alone(self._folder / "lock", self._file.name, self._notify):
            received = 0
            if not (self._whole.exists() and self._noted() == _validator(self._location) is not None):
                received = self._transfer()
            yield finished(self._whole, found, str(self._file), self._progress, received)

    def _transfer(self) -> int:
        """Fetches the rest; the bytes that came."""
        assert self._location is not None
        self._whole.unlink(missing_ok=True)
        with client(self._patience, constants.HF_HUB_DOWNLOAD_TIMEOUT) as http:
            transfer = Transfer(
                self._file.name,
                self._partial,
                lambda: self._prepared(self._locate(http)),
                http=http,
                notify=self._notify,
                progress=self._progress,
                patience=self._patience,
            )
            transfer.run(self._prepared(self._location))
        self._partial.rename(self._whole)
        return transfer.received

    def _locate(self, http: httpx2.Client) -> Location:
        """One question to the server."""
        for method, extra in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
            with answered(http, method, self._url, self._headers | extra, self._patience) as response:
                status = response.status_code
                if status in RETRIED:
                    raise TryAgainError(f"the server answers {status}", again_after(response))
                if method == "HEAD" and status in _NO_HEAD:
                    continue
                if status not in (200, 206):
                    raise refusal(response, self._file.name)
                if response.headers.get("Content-Type", "").startswith("text/html"):
                    raise FetchError(
                        f"{self._file} is a page, not a file: give the file's own address; or something in "
                        "between asks for a login, open it in a browser"
                    )
                length = response.headers.get("Content-Length", "")
                size = (
                    content_range(response)[1]
                    if status == 206
                    else int(length)
                    if length.isdecimal()
                    else None
                )
                return Location(
                    url=self._url,
                    headers=self._headers,
                    size=size,
                    condition=_condition(response),
                    etag=response.headers.get("ETag"),
                )
        raise refusal(response, self._file.name)

    def _prepared(self, location: Location) -> Location:
        """Keeps the partial file only if what comes belongs to it."""
        now = _validator(location)
        if self._pinned is None and (now is None or self._noted() != now):
            self._partial.unlink(missing_ok=True)
        if now is not None:
            self._note.write_text(json.dumps(now), encoding="utf-8")
        return location

    def _noted(self) -> list[object] | None:
        """The validator of what is here."""
        with suppress(OSError, ValueError):
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            return noted if isinstance(noted, list) else None
        return None


def _condition(response: httpx2.Response) -> str | None:
    """The value of If-Range for what a response describes: a strong ETag, or else a date."""
    etag: str | None = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    date: str | None = response.headers.get("Last-Modified")
    return date


def _validator(location: Location) -> list[object] | None:
    """What tells one content of an address from another."""
    return None if location.condition is None else [location.condition, location.size]


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """An address without user and password, and the header that says them."""
    parts = urlsplit(url)
    if parts.username is None:
        return urlunsplit(parts._replace(fragment="")), {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
    return urlunsplit(bare), {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
