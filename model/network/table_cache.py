"""What a module derives for a picture size, kept while it holds: position tables, encodings, geometry.

The network computes the same without it; `torch.export` and `torch.compile` see it computed each time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

SIZES_KEPT = 32  # a service sees a handful of sizes over and over
TablesT = TypeVar("TablesT", bound=Tensor | tuple[Any, ...] | None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _CachedTables:
    """Tables, the parameters that they were made of, and how often each of those had been written."""

    tables: Any
    parameters: tuple[Tensor, ...]
    writes: tuple[int, ...]

    def holds_for(self, parameters: tuple[Tensor, ...]) -> bool:
        return (
            len(parameters) == len(self.parameters)
            and all(a is b for a, b in zip(parameters, self.parameters, strict=True))
            and _writes(parameters) == self.writes
        )


class TableCache(nn.Module):
    """Tables of the sizes that its owner met last; any thread may ask.

    It is a module of its owner's, without weights, so torch tells it what ends them: the owner moves to
    another device or number type, or loads weights. Writes to a parameter in place are counted by torch. The
    tables are freed with their owner, and a copy of it begins with none.

    Args:
        most: sizes that are kept.
    """

    def __init__(self, most: int = SIZES_KEPT) -> None:
        super().__init__()
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _CachedTables] = OrderedDict()
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def get(self, size: Hashable, make: Callable[[], TablesT], *parameters: Tensor) -> TablesT:
        """The tables of a size; made where there are none yet, or none that still hold.

        Args:
            size: what they are for.
            make: computes them: a tensor, a tuple with tensors in it, or None.
            parameters: what they are made of beside the size. Under autograd such tables are made each time,
                so that gradients flow.
        """
        if torch.compiler.is_compiling() or (parameters and torch.is_grad_enabled()):
            return make()
        with self._lock:
            kept = self._kept.get(size)
            if kept is not None and kept.holds_for(parameters):
                self._kept.move_to_end(size)
                return cast(TablesT, kept.tables)
        writes = _writes(parameters)  # before they are read: a write in between counts as one afterwards
        tables = make() if parameters else _usable_everywhere(make)
        if not any(isinstance(tensor, FakeTensor) for tensor in _tensors(tables)):
            with self._lock:
                self._kept[size] = _CachedTables(tables=tables, parameters=parameters, writes=writes)
                self._kept.move_to_end(size)
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return tables

    def tables(self) -> list[Any]:
        """All that are kept now."""
        with self._lock:
            return [kept.tables for kept in self._kept.values()]

    def forget(self) -> None:
        """Drops all tables."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[type["TableCache"], tuple[int]]:
        return TableCache, (self._most,)  # copies and pickles take no tables along

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TableCache":
        self.forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _forget(module: nn.Module, _: object) -> None:
    assert isinstance(module, TableCache)
    module.forget()


def _writes(parameters: tuple[Tensor, ...]) -> tuple[int, ...]:
    """How often each was written in place; torch does not count for tensors of inference mode."""
    return tuple(0 if parameter.is_inference() else parameter._version for parameter in parameters)


def _usable_everywhere(make: Callable[[], TablesT]) -> TablesT:
    """Makes tables that autograd can use later, whatever mode is on now."""
    with torch.inference_mode(False), torch.no_grad():
        return make()


def _tensors(tables: Any) -> Iterator[Tensor]:
    if isinstance(tables, Tensor):
        yield tables
    elif isinstance(tables, tuple):
        for part in tables:
            yield from _tensors(part)
