"""Class lists that a request can name: the benchmarks', built in, and the users' own.

The users' own are in Redis where there is one, else in the process. In Redis they are the fields of one
hash, so that each change is one atomic command. A process keeps copies of what it has read: fresh ones
spare Redis the question, old ones go on answering while Redis is away.

A list belongs to the key that stored it; `caller_var` says who asks. Others do not find it unless it is
shared, and do not change it in any case. A list without an owner is everybody's.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from model.errors import question
from model.vocabulary.classes import LARGEST_BUILTIN, Vocabulary
from service.caller import caller_var
from service.errors import (
    ConflictError,
    FieldProblem,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from service.observability.metrics import Metrics
from service.schemas.classes import ClassEntry
from service.schemas.segment import AUTO_VOCABULARY
from service.schemas.vocabularies import VocabularySummary
from service.vocabularies.shared_store import SharedStore
from service.vocabularies.store import MOST, MOST_BYTES, ChangedError, Commands, LocalStore, Share
from service.vocabularies.stored_vocabulary import (
    Ending,
    StoredVocabulary,
    builtin,
    checked,
    decoded,
    encoded,
)

__all__ = ["StoredVocabulary", "Vocabularies"]

LOG = logging.getLogger(__name__)
NAME = r"^[a-z0-9][a-z0-9._-]{0,99}$"
MOST_BYTES_EACH = 1 << 20  # of one list as it is stored; 1024 of the longest names take 0.8 MiB
FRESH_S = 1.5  # so long other processes' changes go unnoticed; 2 s are promised
STALE_S = 300.0  # so old a copy may get while the store is away
COPIES = 1024
MOST_TRIES = 20  # of a change, while others change the same list
COPY_BYTES = 16 << 20  # of the copies as they are stored; parsed they take several times that

BUILTIN = Vocabulary.builtin_names()
_DAMAGED = "this vocabulary is damaged in the store; PUT it again, or DELETE it"


def unknown(name: str) -> NotFoundError:
    """There is no list of this name for the caller; asks for a built-in one that is nearly called so."""
    there = f"built in are {', '.join(BUILTIN)}; GET /v1/vocabularies lists all"
    return NotFoundError(f"there is no vocabulary of this name; {there}{question(name, BUILTIN)}")


@dataclass(frozen=True, slots=True)
class _Copy:
    """What the store said of a name: nothing, something damaged (no `value`), or a class list."""

    raw: bytes | None
    value: StoredVocabulary | None
    read_at: float

    def found(self, name: str) -> StoredVocabulary:
        if self.value is None:
            raise unknown(name) if self.raw is None else NotFoundError(_DAMAGED)
        if not self.value.ending.is_seen_by(caller_var.get()):
            raise unknown(name)
        return self.value


class Vocabularies:
    """All class lists. For the event loop's thread.

    Args:
        store: Redis; without it the lists live as long as the process.
        metrics: where reads and writes are counted: copies as tier l1, Redis as l2.
        max_classes: of a list that is stored.
        max_per_key: lists of one owner; it may have the same part of the bytes, or one longest list.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        store: Commands | None,
        metrics: Metrics,
        *,
        max_classes: int,
        max_per_key: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store = LocalStore() if store is None else SharedStore(store, metrics, clock, MOST_BYTES_EACH)
        self._metrics = metrics
        self._max_classes = max_classes
        self._max_per_key = max_per_key
        self._clock = clock
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._copy_bytes = 0
        self._expired: set[str] = set()  # names whose copy may be wrong: a change of ours has no answer
        self._changes = 0  # of ours, answered or not
        self._endings: tuple[dict[str, Ending], float, int] | None = None  # when, and after how many changes
        # one reader or writer a name; a lock lives as long as somebody holds or awaits it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, name: str) -> StoredVocabulary:
        """The class list of a name.

        Raises:
            NotFoundError: there is none for this caller, or it is damaged.
            StoreUnavailableError: Redis is away, and there is no copy that is young enough.
        """
        if name in (AUTO_VOCABULARY, *Vocabulary.builtin_names()):
            return builtin(LARGEST_BUILTIN if name == AUTO_VOCABULARY else name)
        if not re.fullmatch(NAME, name):
            raise unknown(name)
        copy = self._fresh(name)
        if copy is not None:
            self._count("l1", "hit")
            return copy.found(name)
        async with self._lock(name):
            copy = self._fresh(name)
            self._count("l1", "miss" if copy is None else "joined")
            return (copy or await self._read(name)).found(name)

    async def stored(self, name: str) -> bytes:
        """A class list of a user as it is stored, for `decoded`; errors as of `get`."""
        await self.get(name)
        return self._copies[name].raw or b""

    async def summaries(self) -> list[VocabularySummary]:
        """The caller's lists: the built-in ones, then the others by name. Damaged ones may be among them.

        Raises:
            StoreUnavailableError: Redis is away, and it was not asked in the last minutes.
        """
        async with self._lock(""):  # no list has this name
            endings = await self._read_endings()
        caller = caller_var.get()
        return [
            *(summary_of(name, builtin(name).ending, builtin=True) for name in Vocabulary.builtin_names()),
            *(
                summary_of(name, ending, builtin=False)
                for name, ending in sorted(endings.items())
                if ending.is_seen_by(caller)
            ),
        ]

    async def put(
        self, name: str, entries: Sequence[ClassEntry], *, shared: bool = False
    ) -> tuple[StoredVocabulary, bool]:
        """Stores a class list; one that it replaces keeps its owner.

        Args:
            name: of the list.
            entries: its classes.
            shared: whether others than its owner may use it.

        Returns:
            The list, and whether the name is new.

        Raises:
            InvalidRequestError, VocabularyError: the name, or the classes, cannot be used.
            ConflictError: the name is a built-in's or another key's; the store or its owner's share is full.
            StoreUnavailableError: Redis is away; it holds what it held, or all of the new list.
        """
        _check_own(name)
        if not re.fullmatch(NAME, name):
            raise InvalidRequestError([FieldProblem("name", f"must match {NAME}")])
        # a long list keeps a core busy for some hundredths of a second
        given = await asyncio.to_thread(checked, name, tuple(entries), self._max_classes)
        caller = caller_var.get()
        async with self._lock(name):
            for _ in range(MOST_TRIES):
                former, ending = await self._held(name)
                if ending is not None and not ending.is_of(caller):
                    raise ConflictError("this name is another key's; store your vocabulary by another one")
                owner = caller.owner if former is None else "" if ending is None else ending.owner
                value = replace(given, owner=owner, shared=shared or not owner)
                raw = await asyncio.to_thread(encoded, value)
                if len(raw) > MOST_BYTES_EACH:
                    message = f"take {len(raw)} bytes; at most {MOST_BYTES_EACH} are stored"
                    raise InvalidRequestError([FieldProblem("classes", message)])
                with suppress(ChangedError):
                    with self._changing(name):
                        await self._store.write(name, raw, former, self._share(owner))
                    self._keep(name, raw, value, self._clock())
                    return value, former is None
        raise _contended()

    async def delete(self, name: str) -> None:
        """Removes a class list.

        Raises:
            ConflictError: it is built in, or another key's that is shared.
            NotFoundError: there is none for this caller.
            StoreUnavailableError: Redis is away.
        """
        _check_own(name)
        if not re.fullmatch(NAME, name):
            raise unknown(name)
        caller = caller_var.get()
        async with self._lock(name):
            for _ in range(MOST_TRIES):
                former, ending = await self._held(name)
                if former is None:
                    self._keep(name, None, None, self._clock())
                if former is None or (ending is not None and not ending.is_seen_by(caller)):
                    raise unknown(name)
                if ending is not None and not ending.is_of(caller):
                    raise ConflictError("this vocabulary is another key's, and only that one may remove it")
                with suppress(ChangedError):
                    with self._changing(name):
                        await self._store.remove(name, former)
                    self._keep(name, None, None, self._clock())
                    return
        raise _contended()

    async def _held(self, name: str) -> tuple[bytes | None, Ending | None]:
        """What the store holds now, and whose it is; no ending of what is not there, or damaged."""
        raw = await self._store.read(name, insist=True)
        return raw, None if raw is None else Ending.of(raw)

    def _share(self, owner: str) -> Share | None:
        """What an owner may store; without one, all that there is room for."""
        if not owner:
            return None
        most_bytes = max(MOST_BYTES * self._max_per_key // MOST, MOST_BYTES_EACH)
        return Share(owner, self._max_per_key, most_bytes)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _fresh(self, name: str) -> _Copy | None:
        copy = self._copies.get(name)
        if copy is None or name in self._expired or self._clock() - copy.read_at >= FRESH_S:
            return None
        self._copies.move_to_end(name)
        return copy

    async def _read(self, name: str) -> _Copy:
        asked_at, old = self._clock(), self._copies.get(name)
        try:
            raw = await self._store.read(name)
        except StoreUnavailableError:
            if old is None or old.value is None or asked_at - old.read_at > STALE_S:
                raise
            return old
        if old is not None and old.raw == raw:
            value = old.value
        else:
            value = None if raw is None else await asyncio.to_thread(decoded, name, raw)
        if raw is not None and value is None:
            self._count("l2", "corrupt")
            LOG.warning("a stored vocabulary is damaged", extra={"vocabulary": name})
        elif self._store.shared:
            self._count("l2", "miss" if value is None else "hit")
        return self._keep(name, raw, value, asked_at)

    async def _read_endings(self) -> dict[str, Ending]:
        now, changes, old = self._clock(), self._changes, self._endings
        if old is not None and old[2] == changes and now - old[1] < FRESH_S:
            return old[0]
        try:
            found = await self._store.endings()
        except StoreUnavailableError:
            if old is None or now - old[1] > STALE_S:
                raise
            return old[0]
        own = {name: ending for name, ending in found.items() if re.fullmatch(NAME, name)}
        self._endings = own, now, changes
        return own

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if name in self._copies:
                self._expired.add(name)
            raise
        finally:
            self._changes += 1

    def _keep(self, name: str, raw: bytes | None, value: StoredVocabulary | None, read_at: float) -> _Copy:
        self._drop(name)
        copy = self._copies[name] = _Copy(raw, value, read_at)
        self._copy_bytes += len(raw or b"")
        while len(self._copies) > COPIES or self._copy_bytes > COPY_BYTES:
            self._drop(next(iter(self._copies)))
            self._count("l1", "evicted")
        return copy

    def _drop(self, name: str) -> None:
        self._expired.discard(name)
        copy = self._copies.pop(name, None)
        if copy is not None:
            self._copy_bytes -= len(copy.raw or b"")

    def _count(self, tier: str, result: str) -> None:
        self._metrics.cache_ops.labels("vocabulary", tier, result).inc()


def summary_of(name: str, ending: Ending, *, builtin: bool) -> VocabularySummary:
    """What is shown of a list; its owner only to who may change it."""
    owner = ending.owner if ending.is_of(caller_var.get()) else ""
    return VocabularySummary(
        name=name, size=ending.size, builtin=builtin, shared=ending.shared, owner=owner or None
    )


def _contended() -> ConflictError:
    return ConflictError("others change this vocabulary at the same time; try again")


def _check_own(name: str) -> None:
    if name in (AUTO_VOCABULARY, *Vocabulary.builtin_names()):
        raise ConflictError("this vocabulary is built in and cannot be changed; store yours by another name")
