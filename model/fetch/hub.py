"""A file of the Hugging Face hub, or of a mirror of it, in huggingface_hub's own cache.

Where it lies, its digest, the token, the mirror (`HF_ENDPOINT`) and the cache are huggingface_hub's matter,
which reads its own variables; only the bytes are fetched by `model.fetch.transfer`. The cache's layout is the
documented one (`blobs/DIGEST`, `snapshots/COMMIT/FILE`, `refs/REVISION`), so that other tools find the file,
and we find what they fetched.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name

from model.errors import FetchError, UnreachableError
from model.fetch.fetching import Fetched, SourceFile, alone, finished
from model.fetch.refusals import RETRIED, again_after, hub_refusal
from model.fetch.sources import HubFile
from model.fetch.transfer import (
    Location,
    Notify,
    Patience,
    Transfer,
    Tries,
    TryAgainError,
    client,
    located,
    origin,
    within,
)
from model.storage.files import Progress
from model.storage.manifest import SHA256

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # part of a path


@dataclass(frozen=True, slots=True)
class _HubFile:
    """The hub's answer: the file's digest, the commit, and where the bytes are."""

    digest: str
    commit: str
    location: Location


class HubFetcher:
    """Fetches one file of the hub.

    Args:
        file: which.
        notify, progress: called with waits, and with bytes.
        patience: with the network.
    """

    def __init__(self, file: HubFile, *, notify: Notify, progress: Progress, patience: Patience):
        self._file = file
        self._notify = notify
        self._progress = progress
        self._patience = patience
        self._folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(
            repo_id=file.repository, repo_type="model"
        )
        self._hub_file: _HubFile | None = None

    def find(self) -> SourceFile:
        """What the hub, or without it the cache, knows of the file.

        Raises:
            FetchError: the hub refuses.
            UnreachableError: it does not answer, and the file is not in the cache.
        """
        tries = Tries(self._file.name, self._notify, self._patience)
        where = f"{self._file} at {constants.ENDPOINT}"
        try:
            located(
                self._locate,
                self._url(self._file.revision),
                tries,
            )
        except UnreachableError as error:
            cached = self._cached(self._file.revision)
            if cached is None:
                raise
            self._notify(f"{error}; {self._file.name} was fetched before, and is taken from the cache")
            return SourceFile(
                where=where, size=cached.stat().st_size, here=cached.stat().st_size, whole=cached
            )
        hub_file = self._answer()
        cached = self._cached(hub_file.commit)
        here = cached or self._partial(hub_file)
        return SourceFile(
            where=where,
            size=hub_file.location.size,
            here=here.stat().st_size if here.exists() else 0,
            whole=cached,
            sha256=hub_file.digest if SHA256.fullmatch(hub_file.digest) else None,
            place=self._folder,
        )

    @contextmanager
    def fetched(self, found: SourceFile) -> Iterator[Fetched]:
        """The whole file, which no other process fetches meanwhile.

        Args:
            found: what `find` said.

        Raises:
            FetchError: the hub refuses, or the file is not the one that the hub announced.
            OSError: the disk did not take it.
        """
        if found.whole is not None:
            commit = found.whole.parents[self._file.path.count("/")].name  # snapshots/COMMIT/FILE
            yield finished(found.whole, found, self._pinned(commit), self._progress)
            return
        hub_file = self._answer()
        source = self._pinned(hub_file.commit)
        blob, partial = self._folder / "blobs" / hub_file.digest, self._partial(hub_file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with alone(self._lock(hub_file), self._file.name, self._notify):
            if blob.exists():
                file = finished(blob, found, source, self._progress)
            else:
                received = self._transfer(hub_file, partial)
                file = finished(partial, found, source, self._progress, received)
                os.replace(partial, blob)
            self._publish(blob, hub_file.commit)
            yield file.at(blob)

    def _transfer(self, hub_file: _HubFile, partial: Path) -> int:
        """Fetches the rest; the bytes that came."""

        def again() -> Location:
            location = self._locate(hub_file.commit)
            if self._answer().digest != hub_file.digest:
                raise FetchError(f"{self._file} was replaced on the hub meanwhile: start again")
            return location

        with client(self._patience, constants.HF_HUB_DOWNLOAD_TIMEOUT) as http:
            transfer = Transfer(
                self._file.name,
                partial,
                again,
                http=http,
                notify=self._notify,
                progress=self._progress,
                patience=self._patience,
            )
            transfer.run(hub_file.location)
        return transfer.received

    def _locate(self, revision: str | None = None) -> Location:
        """One question to the hub."""
        file, hub = self._file, constants.ENDPOINT
        if is_offline_mode():
            raise UnreachableError(f"HF_HUB_OFFLINE is set, and {file} is not in {constants.HF_HUB_CACHE}")
        url = self._url(revision or file.revision)
        try:
            metadata = within(
                self._patience.answer,
                lambda: get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT),
            )
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in RETRIED:
                raise TryAgainError(f"{hub} answers {status}", again_after(error.response)) from None
            raise hub_refusal(error, file.repository, file.revision, file.path, hub) from None
        digest, commit = metadata.etag or "", metadata.commit_hash or ""
        if not (_SAFE.fullmatch(digest) and _SAFE.fullmatch(commit)):
            raise hub_refusal(FileMetadataError(), file.repository, file.revision, file.path, hub)
        location = Location(
            url=metadata.location, headers=self._credentials(metadata.location), size=metadata.size
        )
        self._hub_file = _HubFile(digest, commit, location)
        return location

    def _credentials(self, place: str) -> dict[str, str]:
        """The token goes to hubs only, never to where they keep their files."""
        scheme, host, _ = origin(place)
        hub = scheme == "https" and host in constants.HF_URL_HOSTS
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        if token is None or not (hub or origin(place) == origin(self._url(self._file.revision))):
            return {}
        return {"Authorization": f"Bearer {token}"}

    def _answer(self) -> _HubFile:
        """What the hub said last.

        Raises:
            UnreachableError: it was not asked.
        """
        if self._hub_file is None:
            raise UnreachableError(f"{constants.ENDPOINT} was not asked for {self._file}")
        return self._hub_file

    def _url(self, revision: str) -> str:
        return hf_hub_url(self._file.repository, self._file.path, revision=revision)

    def _pinned(self, commit: str) -> str:
        """The file's address at a commit: what a manifest says, so that others get the same."""
        return str(HubFile(self._file.repository, commit, self._file.path))

    def _partial(self, hub_file: _HubFile) -> Path:
        return self._folder / "blobs" / f"{hub_file.digest}.incomplete"

    def _lock(self, hub_file: _HubFile) -> Path:
        """Beside huggingface_hub's own locks; not the same, since we hold it until the file is imported."""
        return Path(constants.HF_HUB_CACHE) / ".locks" / self._folder.name / f"{hub_file.digest}.ebseg.lock"

    def _cached(self, revision: str) -> Path | None:
        """The file of a revision or commit, where the cache has it whole."""
        found = try_to_load_from_cache(self._file.repository, self._file.path, revision=revision)
        return Path(found) if isinstance(found, str) else None

    def _publish(self, blob: Path, commit: str) -> None:
        """Enters the blob under its commit and revision; a disk without links does without."""
        pointer = self._folder / "snapshots" / commit / self._file.path
        with suppress(OSError):
            pointer.parent.mkdir(parents=True, exist_ok=True)
            if not pointer.exists():
                pointer.unlink(missing_ok=True)
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
            if self._file.revision != commit:
                reference = self._folder / "refs" / self._file.revision
                reference.parent.mkdir(parents=True, exist_ok=True)
                reference.write_text(commit, encoding="utf-8")
