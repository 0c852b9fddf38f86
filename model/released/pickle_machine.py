"""A machine that reads pickles as data: it has no way to import a name or to call one.

Python's own unpickler finds whatever a file names and calls it. Here a name stays a name (`Global`), and
what a file makes of it is a `Foreign`, which swallows any state and any items, unless the caller has a
function of his own for that very name. Plain values and containers are built. All that a file claims of
sizes is compared with what it has, so memory stays within a small multiple of the file.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from model.errors import CheckpointError

MOST_STEPS = 5_000_000  # opcodes; a checkpoint with its optimizer has a tenth of a million
COPIED = 4096  # bytes; longer ones stay views of the file
LONGEST_NUMBER = 32  # bytes; longer ones count for nothing, and would take long to hash
NAME_SHOWN = 100  # characters

Builder = Callable[..., Any]
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


class MalformedPickleError(Exception):
    """A pickle that is none, or is cut off; the message goes on after "it is damaged: "."""


class Global:
    """A name, "module.name", that a pickle refers to."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Foreign:
    """What would have been an object of the file's own code; `name` tells of which class or function."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Buildable:
    """What a builder returns if a state is to come; `build` may raise as a builder may."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Takes the state."""
        raise NotImplementedError


class PickleMachine:
    """Reads one pickle.

    Args:
        data: what it lies in; long values stay views of it.
        builders: {"module.name": function} for the names that mean something. One that raises TypeError,
            ValueError or LookupError, or is given no tuple of arguments, makes a `Foreign`.
        persistent: turns a persistent id into a value; what it does not know, into a `Foreign`.
        start: where the pickle begins, bytes.

    Attributes:
        position: where the reading is; after `load`, where the pickle has ended.
    """

    def __init__(
        self,
        data: memoryview,
        builders: Mapping[str, Builder],
        persistent: Callable[[Any], Any],
        start: int = 0,
    ):
        self._data = data
        self._builders = builders
        self._persistent = persistent
        self.position = start
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The pickle's value.

        Raises:
            MalformedPickleError: it is no pickle, is cut off or is longer than `MOST_STEPS`.
        """
        for _ in range(MOST_STEPS):
            opcode = _OPCODES.get(self._take(1)[0])
            if opcode is None:
                raise MalformedPickleError(f"byte {self.position - 1} is no part of a pickle")
            if opcode.name == "STOP":
                return self._pop()
            try:
                self._step(opcode.name, self._argument(opcode))
            except (UnicodeDecodeError, ValueError, struct.error):
                raise MalformedPickleError(
                    f"{opcode.name} before byte {self.position} is malformed"
                ) from None
        raise MalformedPickleError(f"it has more than {MOST_STEPS:,} steps")

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._data) - self.position:
            raise MalformedPickleError("the end of the file is missing")
        self.position += count
        return self._data[self.position - count : self.position]

    def _line(self) -> bytes:
        start, most = self.position, len(self._data)
        while start < most:  # piece by piece, for a view has no way to search
            piece = bytes(self._data[start : start + COPIED])
            if (found := piece.find(b"\n")) >= 0:
                line = bytes(self._data[self.position : start + found])
                self.position = start + found + 1
                return line
            start += len(piece)
        raise MalformedPickleError("the end of the file is missing")

    def _argument(self, opcode: pickletools.OpcodeInfo) -> memoryview:
        kind = opcode.arg
        if kind is None:
            return self._data[:0]
        if kind.n >= 0:
            return self._take(kind.n)
        if kind.n == pickletools.UP_TO_NEWLINE:
            lines = [self._line() for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1)]
            return memoryview(b"\n".join(lines))
        width, signed = {
            pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
            pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
            pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
            pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
        }[kind.n]
        return self._take(int.from_bytes(self._take(width), "little", signed=signed))

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise MalformedPickleError("it takes more than it has put")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(top := self._pop())
        return top

    def _marked(self) -> list[Any]:
        if not self._marks:
            raise MalformedPickleError("it looks for a mark that it has not set")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _step(self, name: str, raw: memoryview) -> None:
        """One opcode; `raw` is its argument as it lies in the file, without a length."""
        push = self._stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(self._stack))
            case "POP":
                if self._marks and self._marks[-1] == len(self._stack):
                    self._marks.pop()
                else:
                    self._pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                push(self._top())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[_index(name, raw)] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                index = _index(name, raw)
                if index not in self._memo:
                    raise MalformedPickleError("it refers to what it has not put")
                push(self._memo[index])
            case "LIST" | "TUPLE":
                push(self._marked() if name == "LIST" else tuple(self._marked()))
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                push({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([self._pop() for _ in range(int(name[-1]))][::-1]))
            case "DICT":
                items = self._marked()
                push({})
                self._set(items)
            case "EMPTY_SET":
                push(Foreign("set"))
            case "FROZENSET":
                self._marked()
                push(Foreign("frozenset"))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                self._append([self._pop()] if name == "APPEND" else self._marked())
            case "SETITEM":
                value, key = self._pop(), self._pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._marked())
            case "GLOBAL" | "STACK_GLOBAL" | "REDUCE" | "BUILD" | "INST" | "OBJ" | "NEWOBJ" | "NEWOBJ_EX":
                self._object(name, raw)
            case "PERSID" | "BINPERSID":
                push(self._persistent(bytes(raw) if name == "PERSID" else self._pop()))
            case "EXT1" | "EXT2" | "EXT4":
                push(Foreign("a class by number"))
            case "NEXT_BUFFER":
                push(Foreign("a buffer outside of the file"))
            case "READONLY_BUFFER":
                self._top()
            case _:
                push(_plain(name, raw))

    def _append(self, items: list[Any]) -> None:
        match self._top():
            case list() as target:
                target.extend(items)
            case Foreign():
                pass
            case _:
                raise MalformedPickleError("it appends to what is no list")

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise MalformedPickleError("it has a key without a value")
        match self._top():
            case dict() as target:
                for key, value in zip(items[::2], items[1::2], strict=True):
                    # anything else could take long to hash, and is no name
                    plain = key is None or isinstance(key, str | int | float | bytes)
                    target[key if plain else Foreign(kind(key))] = value
            case Foreign():
                pass
            case _:
                raise MalformedPickleError("it sets an item of what is no dictionary")

    def _object(self, name: str, raw: memoryview) -> None:
        match name:
            case "GLOBAL":
                made: Any = Global(bytes(raw).decode().replace("\n", "."))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                if not (isinstance(attribute, str) and isinstance(module, str)):
                    raise MalformedPickleError("it names what is no name")
                made = Global(f"{module}.{attribute}")
            case "BUILD":
                state = self._pop()
                target = self._top()
                if isinstance(target, Buildable):
                    try:
                        target.build(state)
                    except (TypeError, ValueError, LookupError):
                        self._stack[-1] = Foreign(f"{kind(target)} of an unusable state")
                return
            case "INST":
                made = self._made(Global(bytes(raw).decode().replace("\n", ".")), tuple(self._marked()))
            case "OBJ":
                marked = self._marked()
                if not marked:
                    raise MalformedPickleError("it makes an object of nothing")
                made = self._made(marked[0], tuple(marked[1:]))
            case _:  # REDUCE, NEWOBJ, NEWOBJ_EX
                keywords = self._pop() if name == "NEWOBJ_EX" else {}
                arguments, what = self._pop(), self._pop()
                plain = isinstance(keywords, dict) and not keywords
                made = self._made(what, arguments if plain else None)
        self._stack.append(made)

    def _made(self, what: Any, arguments: Any) -> Any:
        """What a builder makes of the arguments; without one for it, something foreign."""
        if not isinstance(what, Global):
            return Foreign(kind(what))
        builder = self._builders.get(what.name)
        if builder is not None and isinstance(arguments, tuple):
            try:
                return builder(*arguments)
            except (TypeError, ValueError, LookupError):
                return Foreign(f"{what.name} of unusable arguments")
        if what.name in _RECONSTRUCTORS and isinstance(arguments, tuple) and arguments:
            return Foreign(kind(arguments[0]))
        return Foreign(what.name)


_RECONSTRUCTORS = ("copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__")


def kind(value: Any) -> str:
    """What a value is, for a message: the foreign name, or the type."""
    name = value.name if isinstance(value, Global | Foreign) else type(value).__name__
    return printable(name)


def printable(name: str) -> str:
    """A name as a message can hold it: one line, without control characters, not too long."""
    plain = name if name.isprintable() else ascii(name)
    return plain if len(plain) <= NAME_SHOWN else f"{plain[:NAME_SHOWN]}..."


def _index(name: str, raw: memoryview) -> int:
    return int(bytes(raw)) if name in ("PUT", "GET") else int.from_bytes(raw, "little")


def _plain(name: str, raw: memoryview) -> Any:
    """Numbers, texts and bytes."""
    match name:
        case "NONE":
            return None
        case "NEWTRUE" | "NEWFALSE":
            return name == "NEWTRUE"
        case "INT":
            text = bytes(raw)
            return text == b"01" if text in (b"00", b"01") else int(text)
        case "LONG":
            return int(bytes(raw).rstrip(b"L"))
        case "BININT1" | "BININT2":
            return int.from_bytes(raw, "little")
        case "BININT" | "LONG1" | "LONG4":
            if len(raw) > LONGEST_NUMBER:
                return Foreign("a number of many digits")
            return int.from_bytes(raw, "little", signed=True)
        case "FLOAT":
            return float(bytes(raw))
        case "BINFLOAT":
            return struct.unpack(">d", raw)[0]
        case "STRING":
            return Foreign("a quoted text")  # of pickles that are all text: none of those is read
        case "UNICODE":
            return bytes(raw).decode("raw-unicode-escape")
        case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
            return str(raw, "utf-8")
        case "SHORT_BINSTRING" | "BINSTRING":
            return raw if len(raw) > COPIED else str(raw, "latin-1")
        case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
            return raw if len(raw) > COPIED else bytes(raw)
    raise CheckpointError(f"pickle opcode {name} is not known")
