"""A pretended accelerator: a device of its own for torch that computes on the CPU, and counts waits.

A wait is what makes the host stand until the device has done all that was asked of it. On a GPU these are
copies to the host, whatever has a shape or a number that only the data tell (`item`, `nonzero`, an index of
booleans), and copies from the host that are not marked asynchronous. Each is counted, with the line of
the project that made it. Tensors of two devices in one operation are refused, as a GPU refuses them.

The device is torch's own for backends out of its tree; it is registered with the import of this module.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from model.network import copies
from model.network.copies import STREAMS

ROOT = Path(__file__).parents[1]
NAME = "pretended"
# A copy of a small tensor from memory that is not pinned is staged by CUDA's driver, and awaited by nobody
STAGED_BYTES = 64 * 1024
NONSENSE = 0xA7  # bytes of memory that no copy has reached

WATCHERS: list[Callable[[Tensor, Tensor], None]] = []  # notified of each tensor, and of its numbers
aten = torch.ops.aten
# Their results' shapes or values are data, which the host has to fetch
DATA_DEPENDENT = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
# What autocast runs in half precision on a GPU, of what this project calls
HALF_UNDER_AUTOCAST = (
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "conv2d",
    "scaled_dot_product_attention",
)
# One kernel on a GPU, though torch calls them composite; and what was seen to have no parts
_KERNELS = {aten.scaled_dot_product_attention.default, aten.upsample_bilinear2d.vec}


class Counts:
    """What was seen on the device while they were taken.

    Attributes:
        waits: a line of the project for each wait, such as "model/segmenter.py:155 _to_copy".
        operations: how many ran on the device: about the kernels that a GPU would launch.
    """

    def __init__(self) -> None:
        self.waits: list[str] = []
        self.operations = 0

    def __repr__(self) -> str:
        return f"{self.operations} operations, {len(self.waits)} waits: {self.waits}"


class _Module:
    """What torch asks of a kind of device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        """The host's generator is the device's, too."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Counters:
    """Who counts now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.active: list[Counts] = []
        self.total = 0

    def wait(self, name: str) -> None:
        with self.lock:
            if self.active:
                place = _place(name)
                for counts in self.active:
                    counts.waits.append(place)

    def operation(self) -> None:
        with self.lock:
            self.total += 1
            for counts in self.active:
                counts.operations += 1


_COUNTERS = _Counters()


@contextmanager
def counted() -> Iterator[Counts]:
    """Counts waits and operations of all threads meanwhile."""
    counts = Counts()
    with _COUNTERS.lock:
        _COUNTERS.active.append(counts)
    try:
        yield counts
    finally:
        with _COUNTERS.lock:
            _COUNTERS.active.remove(counts)


class OnDevice(Tensor):
    """A tensor that says it is on the device; its numbers lie in `host`."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> "OnDevice":
        with torch.inference_mode(False):  # of which torch makes views as of any other tensor
            made = Tensor._make_wrapper_subclass(
                cls,
                host.shape,
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=torch.device(NAME, 0),
                requires_grad=False,
            )
        made.host = host
        for watch in WATCHERS:
            watch(made, host)
        return made

    def tolist(self) -> Any:
        """torch's own knows no tensors of Python."""
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnDevice({self.host!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation: refuses mixed devices, counts it if the host waits for it, computes it on the CPU."""
    if func not in _KERNELS:
        parts = func.decompose(*args, **kwargs)  # inference mode hands composite operations on as they are
        if parts is not NotImplemented:
            return parts
        _KERNELS.add(func)
    _COUNTERS.operation()
    if func in (aten._to_copy.default, aten.copy_.default):
        return _copy(func, args, kwargs)
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    here: dict[int, OnDevice] = {}
    away: list[Tensor] = []
    hosts = _hosts(args, here, away)
    options = {name: _hosts(value, here, away) for name, value in kwargs.items()}
    if here and away:
        raise RuntimeError(f"Expected all tensors to be on the same device, {func} got {NAME} and cpu")
    if (here and func in DATA_DEPENDENT) or _is_boolean_index(func, args):
        _COUNTERS.wait(func.__name__)
    out = func(*hosts, **options)
    if not here if wanted is None else wanted.type != NAME:
        return out
    return _returned(out, here)


def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is aten.copy_.default:
        target, source = args[0], args[1]
        asynchronous = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        target_here = isinstance(target, OnDevice)
    else:
        (source,) = args
        asynchronous = kwargs.get("non_blocking", False)
        device = kwargs.get("device")
        target_here = device.type == NAME if device is not None else isinstance(source, OnDevice)
    source_here = isinstance(source, OnDevice)
    if source_here != target_here and not (asynchronous and (source_here or source.nbytes <= STAGED_BYTES)):
        _COUNTERS.wait(func.__name__)
    if func is aten.copy_.default:
        (target.host if target_here else target).copy_(source.host if source_here else source)
        return target
    plain = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking")}
    copied = aten._to_copy.default(source.host if source_here else source, **plain)
    return OnDevice(copied) if target_here else copied


def _is_boolean_index(func: Any, args: tuple[Any, ...]) -> bool:
    if func not in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
        return False
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])


def _hosts(value: Any, here: dict[int, OnDevice], away: list[Tensor]) -> Any:
    """An operation's arguments with the host's tensors; notes the device's (pytree's walk is slow)."""
    if isinstance(value, OnDevice):
        here[id(value.host)] = value
        return value.host
    if isinstance(value, Tensor):
        # a number without dimensions may come from the host, as with CUDA; an index of the host is copied
        if value.dim() > 0:
            away.append(value)
        return value
    if isinstance(value, list | tuple):
        walked = [_hosts(one, here, away) for one in value]
        return walked if isinstance(value, list) else tuple(walked)
    return value


def _returned(out: Any, given: dict[int, OnDevice]) -> Any:
    """Results on the device; what was written in place is the very tensor that was given."""
    if isinstance(out, Tensor):
        found = given.get(id(out))
        return OnDevice(out) if found is None else found
    if isinstance(out, list | tuple):
        return type(out)(_returned(one, given) for one in out)
    return out


def _place(name: str) -> str:
    """The innermost line of the project, not of these tests."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        own = path.name in (Path(__file__).name, "copies.py")  # of copies, who asks for them
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and not own:
            return f"{path.relative_to(ROOT)}:{frame.f_lineno} {name}"
        frame = frame.f_back
    return f"outside {name}"


def _fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.inference_mode(False), torch.no_grad():
        return run(func, args, kwargs)


def _in_half(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """A product under autocast: its floats in autocast's number type."""
    dtype = torch.get_autocast_dtype(NAME)
    cast = pytree.tree_map_only(
        Tensor,
        lambda x: x.to(dtype) if x.is_floating_point() and x.device.type == NAME else x,
        (args, kwargs),
    )
    with torch.autocast(NAME, enabled=False):
        return operation(*cast[0], **cast[1])


def _registered() -> list[torch.library.Library]:
    """Registers the device; what keeps it so."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_fallback, "PrivateUse1")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    products = torch.library.Library("aten", "IMPL")
    for operation in HALF_UNDER_AUTOCAST:
        products.impl(operation, partial(_in_half, getattr(aten, operation)), "AutocastPrivateUse1")
    return [library, products]


# With the import, and so while tests are collected: autograd counts the devices when it first runs, and knows
# none that comes later.
_LIBRARIES = _registered()


class LateMark:
    """Is reached when somebody waits for it, and no earlier."""

    def __init__(self, streams: "LateStreams", number: int) -> None:
        self._streams = streams
        self.number = number

    def wait(self) -> None:
        """The host waits; for the device's computing, where a copy before has to."""
        if self._streams.has_to_compute_before(self.number):
            _COUNTERS.wait("mark")
        self._streams.finish(self.number)


class LateStreams:
    """Copies that are made as late as they may be: what is read, or written over, too early is wrong.

    Its device computes at once, so computing waits for a mark by making the copies before it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked: list[Callable[[], object]] = []
        self._done = 0
        self._from_device: list[int] = []  # numbers of copies that wait for what was computed
        self._computed = -1  # operations that copies from here on wait for

    def pinned(self, nbytes: int) -> Tensor:
        """Memory full of nonsense."""
        return torch.full((nbytes,), NONSENSE, dtype=torch.uint8)

    def empty(self, nbytes: int) -> Tensor:
        """The same on the device."""
        return torch.full((nbytes,), NONSENSE, dtype=torch.uint8, device=self._device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Is put off; what comes from the device is nonsense if the copies have not waited for it."""
        into, out_of = (x.host if isinstance(x, OnDevice) else x for x in (target, source))
        if isinstance(source, OnDevice):
            ready = self._computed == _COUNTERS.total
            out_of = out_of.clone() if ready else torch.full_like(out_of, NONSENSE)
            self._from_device.append(len(self._asked))
        self._asked.append(lambda: into.copy_(out_of))

    def mark(self) -> LateMark:
        """Behind all copies so far."""
        return LateMark(self, len(self._asked))

    def compute_after(self, mark: Any) -> None:
        """The device waits, nobody else."""
        self.finish(mark.number)

    def copy_after_compute(self) -> None:
        """Notes what was computed so far: who waits for a mark behind this waits for that, too."""
        self._computed = _COUNTERS.total
        self._from_device.append(len(self._asked))
        self._asked.append(object)

    def has_to_compute_before(self, number: int) -> bool:
        """Whether one of the copies up to there, and not made yet, waits for computing."""
        return any(self._done <= own < number for own in self._from_device)

    def finish(self, number: int) -> None:
        """Makes the copies up to a number."""
        with torch.inference_mode(False), torch.no_grad():
            while self._done < number:
                self._asked[self._done]()
                self._asked[self._done] = object  # lets go of its tensors
                self._done += 1


class HostGenerator(torch.Generator):
    """Of whatever device: its random numbers are made on the host."""

    def __new__(cls, device: object = "cpu") -> "HostGenerator":
        return super().__new__(cls)


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """The device, with streams whose copies are late, and the host's generators for its own."""
    found = torch.device(NAME, 0)
    before = torch._C._only_lift_cpu_tensors(), torch.Generator
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # in place, `host` would stay as it was
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=) goes round tensors of Python
    torch.Generator = HostGenerator  # type: ignore[misc]
    STREAMS[NAME] = LateStreams
    copies._COPIES.pop(found, None)
    try:
        yield found
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)
        torch._C._set_only_lift_cpu_tensors(before[0])
        torch.Generator = before[1]  # type: ignore[misc]
        del STREAMS[NAME]
        copies._COPIES.pop(found, None)
