"""The versions of one model in a registry: `<registry>/<name>/<number>/`, in a folder or at any fsspec URL.

A version counts only if its manifest is there, sealed and of this place, and every file it lists has its
size: copies come in any order. Whatever else lies beside it, as a hidden folder, is passed over.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model.errors import DISK_FULL, CheckpointError, ModelError, NoSpaceError, UnfinishedError, causes
from model.storage.files import Progress, renamed_into, silent, sync
from model.storage.hub import HUB
from model.storage.manifest import FILES, MANIFEST, METRICS, Manifest, check_name, json_object
from model.urls import shown, without_secrets

_LOG = logging.getLogger(__name__)
# What file systems call a file's tag: another one means another content.
_TAGS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "content_hash")
# What they call the time of its last change. A folder's own files have more: a file that was replaced.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "ino")


class StoreError(CheckpointError):
    """A registry that does not answer, or not now: it says nothing about any version.

    Attributes:
        refused: it did answer, and lets nobody in with these credentials, or knows no such bucket or
            repository; to wait is of no use.
    """

    def __init__(self, message: str, *, refused: bool = False):
        super().__init__(message)
        self.refused = refused


class Versions:
    """One model's place in a registry, for reading.

    Args:
        location: REGISTRY/NAME: a path, a URL that fsspec knows (`s3://bucket/registry/ebseg-base`), or a
            place on the Hugging Face hub (`hf://owner/models@main/ebseg-base`, `hf://owner/ebseg-base`).
        options: for the URL's file system, as fsspec names them; by default, what its own configuration
            and environment say.

    Attributes:
        name: of the model.
        fs, root: fsspec's file system, and the place's path in it.
        folder: the place where it is a local folder, else None.

    Raises:
        CheckpointError: an unusable name, or a URL of an unknown kind or one whose package is missing.
    """

    def __init__(self, location: str | Path, **options: Any):
        self.location = str(location).rstrip("/")
        if not self.location:
            raise CheckpointError(f"name a model's place, REGISTRY/NAME, not {str(location)!r}")
        with store_errors(self.location):
            self.fs, root = _file_system(self.location, options)
        self.root = str(root).rstrip("/")
        self.name = self._name()
        check_name(self.name, 1)
        self.folder = Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def __str__(self) -> str:
        return shown(self.location)

    def entries(self) -> set[str]:
        """Names of all that lies there, hidden and half-written included; empty where there is no such place.

        Raises:
            StoreError: the store does not answer.
        """
        return set(self.sizes(self.root))

    def numbers(self) -> list[int]:
        """Versions that have a manifest, ascending.

        Raises:
            StoreError: the store does not answer.
        """
        return [number for number in self.candidates() if MANIFEST in self.sizes(self.path(number))]

    def stamps(self) -> dict[str, tuple[str, ...]]:
        """What lies at the place, each with what tells another content: size, tag, times; one listing.

        Raises:
            StoreError: the store does not answer.
        """
        return _stamps(self._listing(self.root))

    def candidates(self) -> list[int]:
        """Versions that have a folder, whole or not, ascending; one listing, whatever their number.

        Raises:
            StoreError: the store does not answer.
        """
        return version_numbers(self.entries())

    def models_inside(self) -> list[str]:
        """Names of models whose versions lie one folder further in, as where this is a whole registry.

        Raises:
            StoreError: the store does not answer.
        """
        names = [name for name in self.entries() if not name.startswith(".") and version_number(name) is None]
        return sorted(name for name in names if any(map(version_number, self.sizes(f"{self.root}/{name}"))))

    def fingerprint(self, number: int) -> str | None:
        """Changes with anything that a version holds: a name, a size, a time or a tag; None where nothing is.

        Raises:
            StoreError: the store does not answer.
        """
        path = self.path(number)
        found = self._listing(path)
        if not found:
            return None
        digest = hashlib.sha256(repr(sorted(_stamps(found).items())).encode())
        if MANIFEST in found and not any(tag in found[MANIFEST] for tag in _TAGS):
            with suppress(UnfinishedError):  # it vanished just now; the next look sees another listing
                digest.update(self.read(f"{path}/{MANIFEST}"))  # a clock may be too coarse to tell
        return digest.hexdigest()

    def newest(self) -> Manifest | None:
        """The manifest of the highest version that `check` accepts; damaged ones are logged and passed over.

        Raises:
            StoreError: the store does not answer.
        """
        for number in reversed(self.candidates()):
            sizes = self.sizes(self.path(number))
            if MANIFEST not in sizes:
                continue
            try:
                return self._checked(number, sizes)
            except StoreError:
                raise
            except CheckpointError as error:
                _LOG.warning("passed over: %s", error)
        return None

    def check(self, number: int) -> Manifest:
        """The manifest of a version that is whole as far as its sizes tell; `fetch` looks at the content.

        Raises:
            CheckpointError: there is no such version, or it is damaged.
            UnfinishedError: its files are not all there, or not whole.
            StoreError: the store does not answer.
        """
        return self._checked(number, self.sizes(self.path(number)))

    def metrics(self, number: int) -> dict[str, Any]:
        """The scores of a version, their digest compared.

        Raises:
            CheckpointError: there is no such version, or it is damaged.
        """
        content = self.read(f"{self.path(number)}/{METRICS}")
        if hashlib.sha256(content).hexdigest() != self.check(number).files[METRICS].sha256:
            raise CheckpointError(f"{self}/{number}: {METRICS} does not match its sha256")
        return json_object(content, f"{self}/{number}/{METRICS}")

    def fetch(self, number: int, target: Path, progress: Progress | None = None) -> Manifest:
        """Copies a version into a local folder, which appears whole and verified or not at all.

        Args:
            number: of the version.
            target: the folder to make.
            progress: notified of every file.

        Raises:
            CheckpointError: there is no such version, it is damaged, or the target is taken.
            UnfinishedError: its files are not all there, not whole, or just being replaced.
            StoreError: the store does not answer.
            NoSpaceError: the disk is full.
            OSError: it did not take it otherwise.
        """
        from model.storage.verify import verify

        manifest = self.check(number)
        report = progress or silent
        with _room_in(target.parent), renamed_into(target.absolute()) as folder:
            for name in (*FILES, MANIFEST):
                self._copy(f"{self.path(number)}/{name}", folder / name, report)
            if verify(folder, progress=report) != manifest:
                raise UnfinishedError(f"{self}/{number} changed while it was fetched")
        return manifest

    def path(self, number: int) -> str:
        """A version's path in the file system."""
        return f"{self.root}/{number}"

    def sizes(self, path: str) -> dict[str, int]:
        """Names and bytes of what lies in a folder; empty where there is none.

        Raises:
            StoreError: the store does not answer.
        """
        return {
            name: 0 if entry.get("type") == "directory" else int(entry["size"] or 0)
            for name, entry in self._listing(path).items()
        }

    def read(self, path: str) -> bytes:
        """A small file.

        Raises:
            UnfinishedError: it is missing.
            StoreError: the store does not answer.
        """
        with store_errors(self.location):
            self.fs.invalidate_cache()  # a listing from before the file was there would hide it
            content: bytes = self.fs.cat_file(path)
        return content

    def _listing(self, path: str) -> dict[str, dict[str, Any]]:
        """What lies in a folder, by name, as the file system describes it."""
        with store_errors(self.location):
            while True:
                self.fs.invalidate_cache()  # others write here as well
                try:
                    found = self.fs.ls(path, detail=True)
                    break
                except FileNotFoundError:
                    # a file that was renamed while a folder was listed is no missing folder
                    if self.folder is None or not Path(path).is_dir():
                        return {}
        named = ((str(entry["name"]).rstrip("/"), entry) for entry in found)
        # some stores list a mark for the folder itself
        return {name.rpartition("/")[2]: entry for name, entry in named if name != path}

    def _name(self) -> str:
        last = self.root.rpartition("/")[2]
        if not self.location.startswith(HUB):
            return last
        from model.storage.hub.files import place_of

        place = place_of(self.location)
        return last if place.path_in_repo else place.id.rpartition("/")[2]  # a repository for one model

    def _checked(self, number: int, sizes: dict[str, int]) -> Manifest:
        place = f"{self}/{number}"
        if MANIFEST not in sizes:
            kind = UnfinishedError if sizes else CheckpointError
            raise kind(f"{place} has no {MANIFEST}: there is no such version, or it is not finished")
        content = self.read(f"{self.path(number)}/{MANIFEST}")
        with _errors_of(place):
            manifest = Manifest.from_json(content)
            if (manifest.name, manifest.version) != (self.name, number):
                raise CheckpointError(f"{MANIFEST} is of {manifest.name} version {manifest.version}")
            manifest.refuse_other_files(sizes)
        return manifest

    def _copy(self, path: str, target: Path, progress: Progress) -> None:
        with store_errors(self.location):
            self.fs.get_file(path, str(target), callback=counted(f"fetching {target.name}", progress))
        sync(target)


def _file_system(location: str, options: dict[str, Any]) -> tuple[Any, str]:
    """fsspec's file system for a location, and the path in it."""
    if not location.startswith(HUB):
        fs, root = fsspec.core.url_to_fs(location, **options)
        return fs, str(root)
    from model.storage.hub.files import HubFileSystem, place_of

    place_of(location)
    return HubFileSystem(**options), location.removeprefix(HUB)


def version_number(name: str) -> int | None:
    """The number of a version folder's name, None for anything else ("01" included)."""
    plain = name.isascii() and name.isdigit() and name == str(int(name)) and name != "0"
    return int(name) if plain else None


def version_numbers(names: Iterable[str]) -> list[int]:
    """The numbers among names, ascending."""
    return sorted(number for name in names if (number := version_number(name)) is not None)


def counted(step: str, progress: Progress) -> "fsspec.callbacks.Callback":
    """fsspec's callback that tells `progress` the bytes done and in all."""

    def notify(size: int | None, value: int) -> None:
        if size:
            progress(step, value, size)

    hook: Callable[..., None] = notify
    return fsspec.callbacks.Callback(hooks={"tell": hook})


def _stamps(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Size, tag and times of files, as far as their file system tells them."""
    stamps = {}
    for name, entry in entries.items():
        times = _TIMES if any(time in entry for time in _TIMES) else ("created",)
        stamped = ("size", *_TAGS, *times)
        stamps[name] = tuple(f"{key}={entry[key]}" for key in stamped if key in entry)
    return stamps


@contextmanager
def _errors_of(place: str) -> Iterator[None]:
    """Puts the place before the message of whatever is wrong there."""
    try:
        yield
    except UnfinishedError as error:
        raise UnfinishedError(f"{place}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error


@contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """Says of a full disk that it is one, whoever else it was that failed by it."""
    try:
        yield
    except (OSError, CheckpointError) as error:
        if any(isinstance(one, OSError) and one.errno in DISK_FULL for one in causes(error)):
            raise NoSpaceError(f"no space left on {folder}: make room there") from error
        raise


@contextmanager
def store_errors(location: str) -> Iterator[None]:
    """Puts what a store's client raises, each has exceptions of its own, into one sentence.

    `FileExistsError` passes: it is the answer to an exclusive write.
    """
    try:
        yield
    except (ModelError, FileExistsError):
        raise
    except ImportError as error:  # fsspec's own message names the package to install
        raise CheckpointError(
            f"{shown(location)}: {error}; it is needed for this kind of registry"
        ) from error
    except FileNotFoundError as error:  # the store answers: something is not there
        reason = without_secrets(f"{type(error).__name__}: {error}")
        raise UnfinishedError(f"{shown(location)}: {reason}") from error
    except Exception as error:
        stamped = f"{shown(location)}: {without_secrets(_in_words(error, location))}"
        raise StoreError(stamped, refused=is_refusal(error, location)) from error


# Of botocore, which need not be installed: what it says before it asks anybody.
_UNUSABLE = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")


def is_refusal(error: Exception, location: str = "") -> bool:
    """Whether a store lets nobody in with these credentials, so that to wait is of no use."""
    if isinstance(error, PermissionError) or type(error).__name__ in _UNUSABLE:
        return True
    if not location.startswith(HUB):
        return False
    from model.storage.hub import errors

    return errors.is_refusal(error)


def _in_words(error: Exception, location: str) -> str:
    if not location.startswith(HUB):
        return f"{type(error).__name__}: {error}"
    from model.storage.hub.errors import in_words
    from model.storage.hub.files import place_of

    return in_words(error, place_of(location).id)
