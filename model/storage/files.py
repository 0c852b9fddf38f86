"""Files of a checkpoint folder: written to the disk for good, read with errors that name the file."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4 << 20  # bytes hashed at a time

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done and bytes in all."""


def silent(step: str, done: int, total: int) -> None:
    """The progress that nobody watches."""


def refuse_taken(target: Path) -> None:
    """Raises CheckpointError if `target` exists and is anything but an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(
            f"{target} exists already; versions are never overwritten, take the next number"
        )


@contextmanager
def renamed_into(target: Path) -> Iterator[Path]:
    """Gives a hidden sibling folder to write into; it becomes `target` at the end, or vanishes on an error.

    Raises:
        CheckpointError: another process filled `target` meanwhile.
        OSError: the disk did not take it.
    """
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    written = folder
    try:
        folder.mkdir()
        yield folder
        sync(folder)
        refuse_taken(target)
        os.rename(folder, target)  # takes an empty folder's place, and fails on one filled just now
        written = target
        sync(target.parent)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # not empty: someone else's version
                parent.rmdir()
        raise


@contextmanager
def replacing(path: Path, *, beside: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Gives a hidden file to write; at the end it is on the disk and takes the place of `path`, whole.

    On an error it vanishes, and what lay at `path` stays. A link stays a link: the file that it leads to is
    replaced. What is no file (a terminal, a pipe, /dev/null) is given as it is, to write to.

    Args:
        path: the file to be; its folder exists.
        beside: the hidden file lies next to this, where it must not lie next to `path`; on the same disk.
        durable: wait for the disk. Who writes many files waits for all at the end, see `sync_below`.

    Yields:
        An empty file that has the suffix of `path`.

    Raises:
        OSError: the disk did not take it.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    folder = target.parent if beside is None else beside.absolute().parent
    partial = folder / f".{target.stem[:40]}.{uuid.uuid4().hex}.partial{target.suffix[:40]}"
    try:
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors makes its files private, and others may be to read it
        if durable:
            sync(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync(target.parent)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file in place of an older one, whole or not at all, as `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Writes a new file, through to the disk."""
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(path: Path, tensors: "dict[str, Tensor]") -> None:
    """Writes tensors as safetensors, through to the disk.

    Raises:
        OSError: the disk did not take it.
    """
    import safetensors.torch  # here: whoever only looks at files need not load torch
    from safetensors import SafetensorError

    path.touch(exist_ok=False)
    mode = path.stat().st_mode
    try:
        safetensors.torch.save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"{path.name} cannot be written: {error}") from error
    path.chmod(mode)  # safetensors makes it private to this user, and a service may run as another
    sync(path)


def read_tensors(path: Path, *, mapped: bool = False) -> "dict[str, Tensor]":
    """The tensors of a safetensors file.

    Args:
        path: of the file.
        mapped: leave them in the file and read what is touched, which costs no memory of its own; but a file
            that is cut in place then ends the process. By default they are read, into memory of their own.

    Raises:
        CheckpointError: it is none, or is damaged.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load_file(path, backend="mmap" if mapped else "pread")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is no safetensors file, or is damaged: {error}") from error


def sha256(path: Path, progress: Progress = silent) -> str:
    """Digest of a file, in hexadecimal digits."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"hashing {path.name}", done, size)
    return digest.hexdigest()


def refuse_existing(path: Path) -> None:
    """Raises CheckpointError if there is something at `path`, or no folder to put it in."""
    if os.path.lexists(path):
        raise CheckpointError(f"{path} exists already, choose another name or remove it first")
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path.absolute().parent} is not a folder, make it first")


def refuse_unreadable(path: Path) -> None:
    """Raises CheckpointError if a file cannot be read."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_below(folder: Path) -> None:
    """Waits until all files and folders in a folder, and itself, are on the disk.

    One pass at the end costs far less than a wait for each file: by then most of them are there.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))
