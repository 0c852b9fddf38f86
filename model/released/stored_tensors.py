"""Tensors and arrays as pickles describe them: where their numbers lie, and in which shape.

What a pickle says is kept as it says it, and looked at only when a tensor is wanted: everything beside the
model may be as odd as it likes. `BUILDERS` are the functions that torch's and numpy's own pickles name.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import CheckpointError
from model.released.pickle_machine import Buildable, Builder, Foreign, Global, kind, printable

MOST_DIMENSIONS = 64  # as torch and numpy have it
MOST_NUMBERS = 1 << 48  # of a tensor that repeats what it has; none could be real
STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
}
_NUMBERS = re.compile("f[248]|[iu][1248]|b1")  # numpy's codes of what torch has as well
_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.Parameter")

Place = tuple[memoryview, int, int]
"""A file's bytes, where in them numbers begin, and how many bytes they have."""


class Storage:
    """Numbers of a torch file, by their key: `count` of `dtype`."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, key: str, dtype: torch.dtype, count: int):
        self.key = key
        self.dtype = dtype
        self.count = count

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self.count * self.dtype.itemsize


class StoredTensor:
    """A view of a storage, as `as_strided` takes it."""

    __slots__ = ("dtype", "offset", "size", "storage", "stride")

    def __init__(self, storage: Storage, dtype: torch.dtype, offset: int, size: Any, stride: Any):
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.size = size
        self.stride = stride


class StoredType(Buildable):
    """A numpy dtype."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code = code
        self.order = "="  # the machine's own

    def build(self, state: Any) -> None:
        """Takes the byte order from `(version, order, ...)`."""
        self.order = {"<": "<", ">": ">", "=": "=", "|": "="}[state[1]]


class StoredArray(Buildable):
    """A numpy array; `data` is None until its state has come."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self, dtype: Any = None, shape: Any = (), data: Any = None, fortran: bool = False):
        self.dtype = dtype
        self.shape = shape
        self.data = data
        self.fortran = fortran

    def build(self, state: Any) -> None:
        """Takes `(version, shape, dtype, fortran, data)`; the oldest pickles have no version."""
        self.shape, self.dtype, self.fortran, self.data = state[-4:]


def persistent_storage(pid: Any) -> Storage | Global | Foreign:
    """torch's persistent id: `("storage", type, key, location, count)`, in old files with a view as well."""
    match pid:
        case ("storage", Global() as what, str() as key, _, int() as count, *view) if (
            what.name in STORAGES and not isinstance(count, bool) and count >= 0 and view in ([], [None])
        ):
            return Storage(key, STORAGES[what.name], count)
        case ("storage", Global() as what, *_):
            return Foreign(what.name)
        case ("module", Global() as what, *_):  # a class, with its source code in old files
            return what
    return Foreign("a reference to something outside")


def to_tensor(stored: StoredTensor | StoredArray, place_of: Callable[[Storage], Place]) -> Tensor:
    """The tensor, mapped from the file where that is possible.

    Args:
        stored: as the pickle describes it.
        place_of: where a storage's numbers lie; raises CheckpointError if they are not there.

    Raises:
        CheckpointError: what the pickle says does not go together with what the file has.
    """
    return _torch_tensor(stored, place_of) if isinstance(stored, StoredTensor) else _numpy_tensor(stored)


def _torch_tensor(stored: StoredTensor, place_of: Callable[[Storage], Place]) -> Tensor:
    size, stride = stored.size, stored.stride
    sane = (
        _is_shape(size) and _are_counts(stride) and len(size) == len(stride) and _are_counts([stored.offset])
    )
    if not sane:
        raise CheckpointError("is a tensor without a sensible shape")
    if 0 in size:
        return torch.empty(size, dtype=stored.dtype)
    count = stored.storage.nbytes // stored.dtype.itemsize
    last = stored.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= count:
        raise CheckpointError(f"reaches over the end of its {count} numbers")
    flat = _numbers(place_of(stored.storage), count, stored.dtype)
    return flat.as_strided(size, stride, stored.offset)


def _numpy_tensor(stored: StoredArray) -> Tensor:
    data = stored.data
    if not (isinstance(stored.dtype, StoredType) and _is_shape(stored.shape)):
        raise CheckpointError("is an array without a sensible type or shape")
    code = stored.dtype.code
    if _NUMBERS.fullmatch(code) is None or not isinstance(data, str | bytes | memoryview):
        raise CheckpointError(f"is an array of {printable(code)}, and not of numbers")
    dtype = np.dtype(stored.dtype.order + code)
    if isinstance(data, str):
        try:
            data = data.encode("latin-1")
        except UnicodeEncodeError:
            raise CheckpointError("is an array whose numbers are no bytes") from None
    if len(data) != math.prod(stored.shape) * dtype.itemsize:
        raise CheckpointError(f"has {len(data)} bytes for the shape {list(stored.shape)} of {dtype.name}")
    if not data:
        return torch.from_numpy(np.empty(stored.shape, dtype.newbyteorder("=")))
    array: NDArray[Any] = np.frombuffer(data, dtype)
    shaped = array.reshape(stored.shape, order="F" if stored.fortran else "C")
    lasting = shaped.flags.writeable and shaped.flags.aligned
    return torch.from_numpy(shaped.astype(dtype.newbyteorder("="), copy=not lasting))


def _numbers(place: Place, count: int, dtype: torch.dtype) -> Tensor:
    data, start, nbytes = place
    if start % dtype.itemsize:  # torch wants them aligned
        return torch.frombuffer(bytearray(data[start : start + nbytes]), dtype=dtype, count=count)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start)


def _is_shape(values: Any) -> bool:
    return _are_counts(values) and math.prod(max(value, 1) for value in values) < MOST_NUMBERS


def _are_counts(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) <= MOST_DIMENSIONS
        and all(type(value) is int and 0 <= value < MOST_NUMBERS for value in values)
    )


def _of(wanted: Any, value: Any) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(f"{kind(value)} is of another type")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    own: Storage = _of(Storage, storage)
    return StoredTensor(own, own.dtype, offset, size, stride)


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> StoredTensor:
    found = getattr(torch, _of(Global, dtype).name.removeprefix("torch."), None)
    return StoredTensor(_of(Storage, storage), _of(torch.dtype, found), offset, size, stride)


def _of_class(function: Any, what: Any, arguments: Any, *_: Any) -> Any:
    """A tensor or parameter with attributes of its own, which are left out."""
    if _of(Global, what).name not in _TENSOR_CLASSES:
        return Foreign(kind(what))
    return BUILDERS[_of(Global, function).name](*_of(tuple, arguments))


def _same(value: Any, *_: Any) -> Any:
    return value


def _mapping(items: Any = (), *_: Any) -> dict[str, Any]:
    return {_of(str, key): value for key, value in _of(list | tuple, items)}


def _bytes(text: Any = b"", encoding: Any = "latin1", *_: Any) -> Any:
    """Bytes of Python 3 in a pickle for Python 2: a text with a character a byte."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("another encoding")
    return _of(str | bytes | memoryview, text)


def _scalar(dtype: Any, data: Any, *_: Any) -> StoredArray:
    return StoredArray(dtype, (), data)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> StoredArray:
    return StoredArray(dtype, shape, data, order == "F")


def _array(*_: Any) -> StoredArray:
    return StoredArray()


def _dtype(code: Any, *_: Any) -> StoredType:
    return StoredType(_of(str, code))


BUILDERS: dict[str, Builder] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch.nn.parameter.Parameter": _same,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch.Size": _same,
    "_codecs.encode": _bytes,
    "builtins.bytes": _bytes,
    "__builtin__.bytes": _bytes,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}
