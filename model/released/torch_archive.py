"""Files that torch or detectron2 has written, as plain values and stored tensors; nothing in them is run.

    zip      torch.save since torch 1.6: a pickle, and beside it each storage's bytes as they are
    legacy   torch.save before: four pickles, a list of keys, the storages
    pickle   detectron2's .pkl: one pickle with numpy arrays

Numbers stay where they are: the file is mapped, and a tensor is a view of it until somebody writes to it.
"""

import mmap
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CheckpointError
from model.released.pickle_machine import MalformedPickleError, PickleMachine, printable
from model.released.stored_tensors import BUILDERS, Place, Storage, persistent_storage

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy file
LEGACY_PROTOCOL = 1001  # the second
PICKLE_BEGIN = b"\x80"
ZIP_BEGIN = b"PK\x03\x04"
LOCAL_HEADER = 30  # bytes before the name of a zip's entry
LARGEST_DIRECTORY = 32 << 20  # bytes of a zip's table of contents; a checkpoint has a hundredth of that
END_RECORD = 22  # bytes at a zip's end, before a comment
LONGEST_COMMENT = 0xFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchArchive:
    """A file's content.

    Attributes:
        content: plain values, stored tensors and arrays, and what is foreign.
        place_of: where a storage's numbers lie in the mapped file; CheckpointError if they are not there.
    """

    content: Any
    place_of: Callable[[Storage], Place]


def read_archive(path: Path) -> TorchArchive:
    """Reads a file of any of the three kinds.

    Raises:
        CheckpointError: no such file, none of the three, or damaged; the message names the file.
    """
    data = _mapped(path)
    try:
        if bytes(data[:4]) == ZIP_BEGIN:
            return _read_zip(path, data)
        if bytes(data[:1]) == PICKLE_BEGIN:
            return _read_pickles(data)
    except MalformedPickleError as error:
        raise CheckpointError(f"{path} is not a torch file, or is damaged: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    raise CheckpointError(f"{path} is not a torch file")


def _mapped(path: Path) -> memoryview:
    """The file's bytes; what is written to them stays in memory."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            is_folder = path.is_dir()
            raise CheckpointError(f"{path} cannot be read: {'Is a directory' if is_folder else 'Is no file'}")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except ValueError:
        raise CheckpointError(f"{path} is not a torch file: it is empty") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_pickles(data: memoryview) -> TorchArchive:
    storages: dict[str, Storage] = {}

    def noticed(pid: Any) -> Any:
        storage = persistent_storage(pid)
        if isinstance(storage, Storage):
            storages[storage.key] = storage
        return storage

    machine = PickleMachine(data, BUILDERS, noticed)
    first = machine.load()
    if first != LEGACY_MAGIC:
        return TorchArchive(content=first, place_of=_nowhere)

    def following() -> Any:
        nonlocal machine
        machine = PickleMachine(data, BUILDERS, noticed, machine.position)
        return machine.load()

    protocol, system, content, keys = (following() for _ in range(4))
    if protocol != LEGACY_PROTOCOL or not isinstance(keys, list):
        raise CheckpointError("is a torch file of a kind that is not known")
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise CheckpointError("was written on a big-endian machine, save it again on another")
    places: dict[str, Place] = {}
    position = machine.position
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or position + 8 > len(data):
            raise MalformedPickleError("the end of the file is missing, or a storage is of no known kind")
        (count,) = struct.unpack_from("<q", data, position)
        if count != storage.count or position + 8 + storage.nbytes > len(data):
            raise MalformedPickleError("the end of the file is missing")
        places[storage.key] = (data, position + 8, storage.nbytes)
        position += 8 + storage.nbytes

    def place_of(storage: Storage) -> Place:
        if storage.key not in places:
            raise CheckpointError(f"lacks the numbers of storage {printable(storage.key)}")
        return places[storage.key]

    return TorchArchive(content=content, place_of=place_of)


def _nowhere(storage: Storage) -> Place:
    raise CheckpointError(f"lacks the numbers of storage {printable(storage.key)}")


def _read_zip(path: Path, data: memoryview) -> TorchArchive:
    _refuse_large_directory(data)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except Exception as error:  # zipfile raises whatever it stumbles over
        raise CheckpointError(f"is not a torch file, or is damaged: {printable(str(error))}") from None
    if any("/code/" in name for name in entries):
        raise CheckpointError("is a TorchScript archive: save the state dict of its module")
    trees = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(trees) != 1:
        raise CheckpointError("is not a torch file, or is damaged: it has no data.pkl")
    folder = trees[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(_content(data, order)) == b"big":
        raise CheckpointError("was written on a big-endian machine, save it again on another")

    def place_of(storage: Storage) -> Place:
        entry = entries.get(f"{folder}data/{storage.key}")
        if entry is None:
            raise CheckpointError(f"lacks the numbers of storage {printable(storage.key)}")
        content = _content(data, entry)
        if len(content) < storage.nbytes:
            raise CheckpointError(
                f"has {len(content)} bytes in storage {printable(storage.key)} instead of {storage.nbytes}"
            )
        return data, _begin(data, entry), storage.nbytes

    content = PickleMachine(_content(data, entries[trees[0]]), BUILDERS, persistent_storage).load()
    return TorchArchive(content=content, place_of=place_of)


def _refuse_large_directory(data: memoryview) -> None:
    """Looks at a zip's end for the size of its table of contents, which zipfile reads whole into objects."""
    tail_start = max(0, len(data) - END_RECORD - LONGEST_COMMENT)
    tail = bytes(data[tail_start:])
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < END_RECORD:
        raise CheckpointError("is damaged: the end of the file is missing, copy it again")
    (size,) = struct.unpack_from("<L", tail, end + 12)
    if size == 0xFFFFFFFF:  # then a longer record before it has the size
        before = bytes(data[max(0, tail_start + end - 20 - 56) : tail_start + end])
        longer = before.find(b"PK\x06\x06")
        size = struct.unpack_from("<Q", before, longer + 40)[0] if 0 <= longer <= len(before) - 48 else size
    if size > LARGEST_DIRECTORY:
        raise CheckpointError(f"is refused: its table of contents has {size:,} bytes")


def _content(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    start = _begin(data, entry)
    return data[start : start + entry.file_size]


def _begin(data: memoryview, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin.

    Raises:
        CheckpointError: it is compressed, or does not lie within the file.
    """
    name = printable(entry.filename)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise CheckpointError(f"is refused: {name} is compressed or encrypted, as torch never saves it")
    header = bytes(data[entry.header_offset : entry.header_offset + LOCAL_HEADER])
    if entry.header_offset < 0 or len(header) < LOCAL_HEADER or not header.startswith(ZIP_BEGIN):
        raise CheckpointError(f"is damaged: {name} is not where it should be")
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    start = entry.header_offset + LOCAL_HEADER + name_length + extra_length
    if start + entry.file_size > len(data):
        raise CheckpointError(f"is damaged: {name} reaches over the end of the file")
    return int(start)
