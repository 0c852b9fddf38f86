"""Repositories of the local hub: commits in memory, contents in files on disk."""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

LARGE = (".safetensors", ".pth", ".bin")  # kept as large files (LFS) whatever their size, as on the hub
LARGE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's content; `path` is read, never written."""

    path: Path
    size: int
    sha256: str
    oid: str  # git's name for it
    large: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid


@dataclass(frozen=True, slots=True)
class Page:
    """A file under /web/, which is no repository's.

    Attributes:
        path: its content.
        headers: of the answer, such as ETag.
        user: "NAME:PASSWORD" that is asked for.
        get_only: HEAD is refused, as under a signed address.
    """

    path: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    get_only: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of a repository."""

    oid: str
    files: Mapping[str, Blob]
    title: str
    at: datetime


@dataclass(slots=True)
class Repository:
    """A repository, its branches and who may see it.

    Attributes:
        branches: each one's newest commit.
        commits: all, by their hash.
        private: seen with a token only.
        gated: read with a token in `granted` only.
    """

    name: str
    branches: dict[str, Commit]
    commits: dict[str, Commit]
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)

    def commit_at(self, revision: str) -> Commit | None:
        """What a branch or a commit's hash means."""
        return self.branches.get(revision) or self.commits.get(revision)


class Repositories:
    """All repositories of a hub, with their contents under one folder."""

    def __init__(self, folder: Path):
        self._blobs = folder / "blobs"
        self._blobs.mkdir(parents=True)
        self._all: dict[str, Repository] = {}
        self._known: dict[str, Path] = {}  # large files by sha256
        self._lock = threading.RLock()
        self._count = 0

    def find(self, name: str) -> Repository | None:
        return self._all.get(name)

    def create(self, name: str, *, private: bool = False, gated: bool = False) -> Repository:
        """A new repository with one commit, as the hub makes it."""
        with self._lock:
            first = self._new_commit({}, "initial commit")
            repository = Repository(name, {"main": first}, {first.oid: first}, private, gated)
            self._all[name] = repository
            return repository

    def has(self, sha256: str) -> bool:
        """Whether a large file's content is here already."""
        return sha256 in self._known

    def partial(self) -> Path:
        """A place for an upload."""
        with self._lock:
            self._count += 1
            return self._blobs / f"upload-{self._count}"

    def keep(self, path: Path, sha256: str) -> None:
        """Takes an uploaded large file in."""
        with self._lock:
            self._known[sha256] = path.rename(self._blobs / sha256)

    def large_blob(self, sha256: str) -> Blob:
        """A large file that is here.

        Raises:
            KeyError: it is not.
        """
        path = self._known[sha256]
        return _blob(path, path.stat().st_size, sha256, large=True)

    def small_blob(self, content: bytes) -> Blob:
        """A file's content that came inside a commit."""
        written = self.partial()
        written.write_bytes(content)
        # renamed, since the same content may be there already, and be read this moment
        path = written.rename(self._blobs / hashlib.sha256(content).hexdigest())
        return _blob(path, len(content), path.name, large=False)

    def add(
        self,
        repository: str,
        files: Mapping[str, bytes | Path],
        *,
        branch: str = "main",
        copy: bool = False,
    ) -> Commit:
        """Commits files, for tests that do so behind the hub's routes.

        Args:
            repository: OWNER/NAME; made where it is missing.
            files: contents, or files on disk, which must stay as they are unless they are copied.
            branch: made from main where it is missing.
            copy: take copies of files on disk.
        """
        blobs: dict[str, Blob | None] = {}
        for name, content in files.items():
            if isinstance(content, bytes):
                path = self.partial()
                path.write_bytes(content)
            else:
                path = Path(shutil.copy(content, self.partial())) if copy else content
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            large = name.endswith(LARGE) or size > LARGE_BYTES
            blobs[name] = _blob(path, size, digest, large=large)
            if large:
                self._known[digest] = path
        found = self.find(repository) or self.create(repository)
        return self.change(found, branch, blobs, "files added")

    def remove(self, repository: str, *names: str, branch: str = "main") -> Commit:
        """Commits that files are gone."""
        return self.change(self._all[repository], branch, dict.fromkeys(names), "files removed")

    def change(
        self, repository: Repository, branch: str, changes: Mapping[str, Blob | None], title: str
    ) -> Commit:
        """Makes a commit on a branch; None removes a file."""
        with self._lock:
            files = dict((repository.branches.get(branch) or repository.branches["main"]).files)
            for name, blob in changes.items():
                if blob is None:
                    files.pop(name, None)
                else:
                    files[name] = blob
            commit = self._new_commit(files, title)
            repository.branches[branch] = repository.commits[commit.oid] = commit
            return commit

    def lock(self) -> threading.RLock:
        """Held while a branch is compared and moved."""
        return self._lock

    def _new_commit(self, files: Mapping[str, Blob], title: str) -> Commit:
        self._count += 1
        oid = hashlib.sha1(f"{self._count} {title}".encode()).hexdigest()
        return Commit(oid, files, title, datetime.now(UTC))


def children(commit: Commit, folder: str, *, recursive: bool) -> Iterator[tuple[str, Blob | None]]:
    """What lies in a folder, sorted; None stands for folders."""
    prefix = f"{folder}/" if folder else ""
    seen: set[str] = set()
    for name in sorted(commit.files):
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            inner = prefix + "/".join(parts[:depth])
            if inner not in seen:
                seen.add(inner)
                yield inner, None
        if recursive or len(parts) == 1:
            yield name, commit.files[name]


def _blob(path: Path, size: int, sha256: str, *, large: bool) -> Blob:
    if large:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    else:
        pointer = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    return Blob(path, size, sha256, oid, large)
