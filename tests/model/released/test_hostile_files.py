"""Files made to do harm: nothing of them runs, memory stays within bounds, and one sentence says no."""

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import CheckpointError
from model.released.pickle_machine import MOST_STEPS
from model.released.torch_file import read_entries
from tests.waiting import WAIT

ROOT = Path(__file__).parents[3]
MARK = "EBSEG_TEST_HARM"
MOST_MEMORY = 64 << 20  # bytes, for files of less than one megabyte


def harmless(path: Path) -> str:
    """What reading says, in one sentence; empty where the file is read."""
    tracemalloc.start()
    try:
        read_entries(path)
        message = ""
    except CheckpointError as error:
        message = str(error)
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < MOST_MEMORY
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 600
    return message


def put(path: Path, stream: bytes, kind: str = "pickle") -> Path:
    """A pickle as a file of its own, or as the tree of a torch file."""
    if kind == "pickle":
        path.write_bytes(stream)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", stream)
    return path


def calls(module: str, name: str, argument: str) -> bytes:
    """`{"model": module.name(argument)}`, as an unpickler would run it."""
    return f"\x80\x02}}U\x05modelc{module}\n{name}\nU{chr(len(argument))}{argument}\x85Rs.".encode("latin-1")


class Run:
    """Runs Python code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{MARK!r}] = '1'",)


class Opened:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class Stateful:
    """Runs its own code when its state is set."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("run")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


# --- nothing runs

GADGETS = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "exec"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("subprocess", "Popen"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("numpy", "load"),
    ("collections", "OrderedDict.__reduce__"),
    ("collections.OrderedDict", "__init__"),
    ("_codecs", "encode.__class__"),
    ("pickle", "loads"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
]


@pytest.mark.parametrize("kind", ["pickle", "zip"])
@pytest.mark.parametrize(("module", "name"), GADGETS)
def test_gadgets_stay_names(tmp_path: Path, module: str, name: str, kind: str) -> None:
    target = tmp_path / "made"
    path = put(tmp_path / "weights.pth", calls(module, name, f"touch {target}"[:200]), kind)
    assert f"{module}.{name}" in harmless(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_with_code_of_their_own(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    chain = [Run(), Opened(made), Stateful(), {"deep": [Run(), (Stateful(), Opened(made))]}]
    content = {"model": {"a": np.ones(3)}, "trainer": chain}
    path = put(tmp_path / "weights.pkl", pickle.dumps(content, protocol))
    found = read_entries(path)
    assert list(found.tensors) == ["a"]
    assert not made.exists()
    assert MARK not in os.environ


def test_nothing_is_imported(tmp_path: Path) -> None:
    """Not even a module that the file names: importing one runs it."""
    (tmp_path / "harmful_module.py").write_text("raise SystemExit('imported')")
    path = put(tmp_path / "weights.pkl", calls("harmful_module", "anything", "x"))
    code = (
        "import sys, pathlib; from model.released.torch_file import read_entries\n"
        "from model.errors import CheckpointError\n"
        "try: read_entries(pathlib.Path(sys.argv[1]))\n"
        "except CheckpointError as error: print(error, 'harmful_module' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert done.stdout.rstrip().endswith("False")
    assert "harmful_module.anything" in done.stdout


@pytest.mark.parametrize(
    "make",
    [
        # the state of what looks like an ordered dictionary, and one of a class below it
        b"\x80\x02}U\x05modelccollections\nOrderedDict\n)R}U\x08__dict__}sbs.",
        b"\x80\x02}U\x05modelcevil\nOrderedDict\n)\x81}U\x01aK\x01sbs.",
        b"\x80\x02}U\x05modelccollections\nOrderedDict\n(cevil\nItems\n)R\x85tRs.",
        # persistent ids that are none: a number, a tuple of others, an unknown storage, a negative count
        b"\x80\x02}U\x05modelK\x01Qs.",
        b"\x80\x02}U\x05model(U\x07storageK\x01K\x02tQs.",
        b"\x80\x02}U\x05model(U\x07storagecos\nsystem\nU\x010U\x03cpuK\x01tQs.",
        b"\x80\x02}U\x05model(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQs.",
        b"\x80\x02}U\x05modelP../../etc/passwd\ns.",
    ],
)
def test_odd_makings(tmp_path: Path, make: bytes) -> None:
    for kind in ("pickle", "zip"):
        assert harmless(put(tmp_path / f"weights.{kind}", make, kind))


# --- memory and time stay within bounds


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # a terabyte of bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",  # of text
        b"\x80\x05\x96" + struct.pack("<Q", (1 << 64) - 1) + b"x.",  # of bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame of it
        b"\x80\x02Nr\xff\xff\xff\xff.",  # a memo of four thousand million entries
        b"\x80\x02T" + struct.pack("<i", -1) + b".",  # a text of a negative length
        b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",  # a number of two gigabytes
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    ],
)
def test_claims_of_size(tmp_path: Path, stream: bytes) -> None:
    assert harmless(put(tmp_path / "weights.pkl", stream))


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",  # lists in lists
        b"\x80\x02" + b")" + b"\x85" * 100_000 + b".",  # tuples in tuples
        b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",  # and as a key, to be hashed
        b"\x80\x02" + b"}U\x05model" * 30_000 + b"N" + b"s" * 30_000 + b".",  # wrappers in wrappers
        b"\x80\x02" + b"(" * 100_000 + b".",  # marks
        b"\x80\x02]q\x00" + b"h\x00a" * 100_000 + b".",  # a list that holds itself
        b"\x80\x02" + b"]" + b"2" * 100_000 + b".",  # the same thing again and again
    ],
)
def test_nesting(tmp_path: Path, stream: bytes) -> None:
    assert harmless(put(tmp_path / "weights.pkl", stream))


def test_steps_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.released.pickle_machine.MOST_STEPS", 1000)
    assert "more than" in harmless(put(tmp_path / "weights.pkl", b"\x80\x02" + b"N0" * 1000 + b"N."))
    assert MOST_STEPS == 5_000_000


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A torch file of one tensor that is described so, over a storage of four numbers."""
    file = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(4)}}, file)
    tree = pickle.dumps({}, 2)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        tree = archive.read(name)
        rest = {entry: archive.read(entry) for entry in archive.namelist() if entry != name}

    def whole(number: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", number)

    def shape(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(whole, numbers)) + b"t"

    head, tail = tree.index(b"K\x04tq"), tree.index(b"\x89c")  # the count, and what follows the strides
    pid_end = tree.index(b"Q", head)
    tree = tree[:head] + whole(count) + tree[head + 2 : pid_end + 1] + whole(offset)
    tree += shape(size) + shape(stride) + _tail(file, tail)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, tree)
        for entry, content in rest.items():
            archive.writestr(entry, content)
    return made.getvalue()


def _tail(file: io.BytesIO, start: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)[start:]


def test_the_tensor_of_these_tests_is_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(tensor(4, (2, 2), (2, 1)))
    assert torch.equal(read_entries(path).tensors["a"], torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("count", "size", "stride", "offset", "reason"),
    [
        (4, (5,), (1,), 0, "reaches over the end of its 4 numbers"),
        (4, (2, 2), (3, 1), 0, "reaches over the end"),
        (4, (4,), (1,), 1, "reaches over the end"),
        (4, (4,), (1,), -1, "without a sensible shape"),
        (4, (-4,), (1,), 0, "without a sensible shape"),
        (4, (4,), (-1,), 3, "without a sensible shape"),
        (4, (2, 2), (1,), 0, "without a sensible shape"),
        (4, (1 << 40, 1 << 40), (0, 0), 0, "without a sensible shape"),
        (4, (1,) * 65, (1,) * 65, 0, "without a sensible shape"),
        (1 << 40, (1 << 40,), (1,), 0, "has 16 bytes in storage 0 instead of"),
    ],
)
def test_tensors_larger_than_their_numbers(
    tmp_path: Path, count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int, reason: str
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(tensor(count, size, stride, offset))
    assert reason in harmless(path)


# --- archives


def zipped(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_names_in_an_archive_are_no_paths(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "weights.pth",
        {"../../data.pkl": b"\x80\x02N.", "/etc/data.pkl": b"\x80\x02N.", "x/data/../../y": b"a"},
    )
    assert "has no data.pkl" in harmless(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]


def test_compressed_content_is_refused(tmp_path: Path) -> None:
    bomb = {"archive/data.pkl": b"\x80\x02" + b"N0" * 10_000_000 + b"N."}
    path = zipped(tmp_path / "weights.pth", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "compressed" in harmless(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [(20, 1 << 30), (24, 1 << 30), (42, 1 << 30), (42, 7)],
    ids=["packed", "size", "far", "odd"],
)
def test_entries_that_lie_about_their_place(tmp_path: Path, field: int, value: int) -> None:
    """Sizes and offsets in the table of contents that point out of the file, or into another entry."""
    path = zipped(tmp_path / "weights.pth", {"archive/data.pkl": b"\x80\x02}."})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + field : entry + field + 4] = struct.pack("<L", value)
    path.write_bytes(content)
    assert harmless(path)


def test_a_huge_table_of_contents(tmp_path: Path) -> None:
    path = zipped(tmp_path / "weights.pth", {"archive/data.pkl": b"\x80\x02}."})
    content = bytearray(path.read_bytes())
    end = content.index(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<L", 1 << 30)
    path.write_bytes(content)
    assert "its table of contents has 1,073,741,824 bytes" in harmless(path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "weights.pt", {"a/data.pkl": b"\x80\x02}.", "a/code/__torch__.py": b"x"})
    assert "TorchScript" in harmless(path)


def test_names_cannot_write_on_a_terminal(tmp_path: Path) -> None:
    content = {"model": {"\x1b[2Jgone\nebseg: done": 3, "a": np.ones(2)}}
    path = put(tmp_path / "weights.pkl", pickle.dumps(content))
    assert [name.isprintable() for name in read_entries(path).others] == [True]
    content = {"model": {"a" * 1_000_000: np.ones(2)}}
    assert "a name of 1,000,000 characters" in harmless(put(path, pickle.dumps(content)))


# --- small changes anywhere


def _torch_file(legacy: bool) -> bytes:
    file = io.BytesIO()
    tensors = {"a": torch.arange(600.0).reshape(20, 30), "b": torch.nn.Parameter(torch.ones(3)).half()}
    content = {"model": tensors, "optimizer": {"state": {0: torch.zeros(4)}}}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _arrays(protocol: int) -> bytes:
    return pickle.dumps({"model": {"a": np.arange(6000.0), "s": np.float32(2)}}, protocol)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _torch_file(legacy=False),
        lambda: _torch_file(legacy=True),
        lambda: _arrays(2),
        lambda: _arrays(5),
    ],
    ids=["zip", "legacy", "pickle 2", "pickle 5"],
)
def test_changed_files_raise_nothing_but_checkpoint_errors(tmp_path: Path, make: Callable[[], bytes]) -> None:
    sound, path, chance = make(), tmp_path / "weights.pth", random.Random(7)
    read, messages = 0, []
    for _ in range(600):
        content = bytearray(sound)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            near = min(len(content), 900) if chance.random() < 0.5 else len(content)
            place = chance.randrange(near) if near else 0
            match chance.randrange(5):
                case 0 | 1:
                    content[place : place + 1] = bytes([chance.randrange(256)])
                case 2:
                    content[place:place] = chance.randbytes(chance.randrange(1, 9))
                case 3:
                    del content[place : place + chance.randrange(1, 9)]
                case 4:
                    del content[place + 1 :]
        path.write_bytes(content)
        try:
            for found in read_entries(path).tensors.values():
                assert found.numel() >= 0
            read += 1
        except CheckpointError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert 0 < read < 600
