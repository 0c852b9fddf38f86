"""Text embeddings, kept so that the text tower reads each class name once.

L1 is this process, L2 is Redis if there is one. Both know single classes, so that vocabularies which
overlap share work; L1 also keeps the assembled vocabularies. Everything runs on one event loop.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from model.vocabulary.classes import Vocabulary
from model.vocabulary.remembered import remembered
from service.caches.cache_values import EmbeddingKeys, Row, decode_many, encode, is_unit, value_bytes
from service.caches.recent import Recent
from service.caches.redis_store import VALUE_BYTES, RedisStore
from service.errors import NotReadyError
from service.observability.metrics import Metrics

CACHE = "text"  # label of metrics
PREFIX = b"ebseg:text:v1:"  # of keys in Redis; the class's key follows in hexadecimal
STOP_S = 1.0  # cancelled work ends at once unless `run` holds on to it
KEYED_NAMES_KEPT = 1 << 16  # of vocabularies whose keys are remembered
MOST_LONGER = 4  # a list that is on its way is waited for if it is at most so many times as long as one's own
FEW = 16  # values that are checked on the event loop; more, on a thread
ENTRY_BYTES = 512  # what Python and the tensor or array object take beside an entry's numbers, about

Source = Literal["l1", "l2", "embedded", "joined"]
Finished = Callable[[Mapping[str, Tensor]], None]


class Embed(Protocol):
    """Has the text tower work."""

    def __call__(
        self, names: Sequence[str], templates: Sequence[str], finished: Finished
    ) -> Awaitable[Tensor]:
        """Unit embeddings of names, float32 [K, C] on the CPU.

        `finished` is notified of single names' rows, [C], that are done should the call be cancelled.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A vocabulary's embeddings.

    Attributes:
        tensor: float32 [P, C] on the CPU, a row a word of the vocabulary, shared between requests: nobody
            writes to it.
        source: "l1" if all came from the process; "l2" if some came from Redis; "joined" if another
            request's work was waited for; "embedded" if the text tower worked for this request.
        seconds: what getting them took.
    """

    tensor: Tensor
    source: Source
    seconds: float


class _Flight:
    """Classes on their way: looked up in Redis, then embedded, once for all requests that want them.

    Attributes:
        names: class names by key.
        task: ends with all rows by key.
        waiters: requests that wait for it.
        embedded: whether anything came from the text tower.
    """

    def __init__(self, names: dict[bytes, str]):
        self.names = names
        self.task: asyncio.Task[dict[bytes, Row]]
        self.waiters = 0
        self.embedded = False


class TextCache:
    """Embeddings of vocabularies, from wherever they are cheapest.

    Args:
        max_bytes: what the process keeps, in all.
        ttl_s: time to live in Redis, seconds.
        metrics: counts every outcome, in classes.
        store: a started Redis store; without one the process alone remembers.
    """

    def __init__(self, *, max_bytes: int, ttl_s: float, metrics: Metrics, store: RedisStore | None):
        self._ttl_s = ttl_s
        self._metrics = metrics
        self._store = store
        # rows [C] under the classes' keys, tensors [K, C] under "v" and the vocabularies' keys
        self._recent: Recent[bytes, Tensor | Row] = Recent(
            max_bytes, lambda entry: entry.nbytes + ENTRY_BYTES
        )
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[dict[bytes, Row]]] = set()
        self._widths: dict[str, int] = {}  # C by text digest, once known from the tower itself

    async def stop(self) -> None:
        """Ends all work; who waits for it gets NotReadyError."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_S)

    def known(self, vocabulary: Vocabulary, text_digest: str, owner: str = "") -> Text | None:
        """The embeddings of a vocabulary that is in the process as a whole; arguments as of `get`."""
        began = time.perf_counter()
        _, whole = _keys(text_digest, vocabulary.templates, tuple(vocabulary.words), owner)
        tensor = self._recent.get(whole)
        if not isinstance(tensor, Tensor) or self._widths.get(text_digest) not in (None, tensor.shape[1]):
            return None
        self._count("l1", "hit", len(vocabulary.words))
        return Text(tensor=tensor, source="l1", seconds=self._looked_up(began))

    async def get(self, vocabulary: Vocabulary, text_digest: str, embed: Embed, owner: str = "") -> Text:
        """The embeddings of a vocabulary.

        Requests that want the same class at the same time share the work, whoever came first; one that
        is cancelled takes nothing from the others. Work that nobody waits for any more is given up. A short
        list does not wait for all of a long one: `embed` shares what the two have in common.

        Args:
            vocabulary: K classes.
            text_digest: of the text tower's weights and its tokenizer.
            embed: has that tower work.
            owner: whose embeddings count, and who alone finds these again; empty for everybody's.

        Raises:
            NotReadyError: the cache was stopped meanwhile.
            Exception: whatever `embed` raised, to all that waited; it is not remembered.
        """
        if (known := self.known(vocabulary, text_digest, owner)) is not None:
            return known
        began = time.perf_counter()
        words = vocabulary.words
        keys, whole = _keys(text_digest, vocabulary.templates, tuple(words), owner)
        width = self._widths.get(text_digest)
        order = [keys.of([word]) for word in words]
        names = dict(zip(order, words, strict=True))  # classes may share a synonym
        rows: dict[bytes, Row] = {}
        joined: set[_Flight] = set()
        missing: dict[bytes, str] = {}
        for key, name in names.items():
            row = self._recent.get(key)
            if isinstance(row, np.ndarray) and width in (None, row.size):
                rows[key] = row
            elif (flight := self._flights.get(key)) and len(flight.names) <= MOST_LONGER * len(names):
                joined.add(flight)
            else:
                missing[key] = name
        self._count("l1", "hit", len(rows))
        self._count("l1", "joined", len(names) - len(rows) - len(missing))
        self._count("l1", "miss", len(missing))
        self._looked_up(began)
        own = self._fly(missing, vocabulary.templates, text_digest, embed) if missing else None
        flights = joined if own is None else {own, *joined}
        tensor: Tensor | Row | None = None
        if flights:
            for flown in await self._landed(flights):
                rows.update(flown)
            tensor = self._recent.get(whole)  # if another request waited for the same
        if not isinstance(tensor, Tensor):
            tensor = torch.from_numpy(np.stack([rows[key] for key in order]))
            self._keep(whole, tensor)
        source: Source = "l1"
        if own is not None and own.embedded:
            source = "embedded"
        elif joined:
            source = "joined"
        elif own is not None:
            source = "l2"
        return Text(tensor=tensor, source=source, seconds=time.perf_counter() - began)

    async def _landed(self, flights: set[_Flight]) -> list[dict[bytes, Row]]:
        """What flights bring, or the first error."""
        for flight in flights:
            flight.waiters += 1
        try:
            await asyncio.wait({f.task for f in flights}, return_when=asyncio.FIRST_EXCEPTION)
            if any(flight.task.cancelled() for flight in flights):
                raise NotReadyError("the service is shutting down")
            for flight in flights:
                if flight.task.done() and (error := flight.task.exception()) is not None:
                    raise error
            return [flight.task.result() for flight in flights]
        finally:
            for flight in flights:
                self._drop(flight)

    def _drop(self, flight: _Flight) -> None:
        flight.waiters -= 1
        if not (flight.waiters or flight.task.done()):
            self._land(flight)  # first, so that nobody joins what is about to end
            flight.task.cancel()

    def _fly(
        self, names: dict[bytes, str], templates: Sequence[str], text_digest: str, embed: Embed
    ) -> _Flight:
        flight = _Flight(names)
        flight.task = asyncio.create_task(self._fetch(flight, templates, text_digest, embed))
        self._tasks.add(flight.task)
        self._flights.update(dict.fromkeys(names, flight))

        def ended(task: asyncio.Task[dict[bytes, Row]]) -> None:
            self._tasks.discard(task)
            self._land(flight)
            if not task.cancelled():
                task.exception()  # whoever waits raises it; that nobody may be left is no mishap

        flight.task.add_done_callback(ended)
        return flight

    def _land(self, flight: _Flight) -> None:
        for key in flight.names:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _fetch(
        self, flight: _Flight, templates: Sequence[str], text_digest: str, embed: Embed
    ) -> dict[bytes, Row]:
        rows = await self._from_redis(flight, self._widths.get(text_digest))
        while missing := {key: name for key, name in flight.names.items() if key not in rows}:
            names = list(missing.values())
            finished = functools.partial(self._finished, {name: key for key, name in missing.items()})
            embedded = _checked(
                await embed(names, templates, finished), len(names), self._widths.get(text_digest)
            )
            flight.embedded = True
            self._count("l1", "embedded", len(names))
            # before the tower had spoken, a row of another width could not be distinguished from a true one
            width = self._widths[text_digest] = embedded.shape[1]
            wrong = [key for key, row in rows.items() if row.size != width]
            self._corrupt(wrong)
            for key in wrong:
                del rows[key]
            new = dict(zip(missing, (row.copy() for row in embedded), strict=True))
            rows.update(new)
            self._to_redis(new)
        for key, row in rows.items():
            self._keep(key, row)
        return rows

    def _finished(self, keys: Mapping[str, bytes], rows: Mapping[str, Tensor]) -> None:
        """Keeps what the tower has done of work that was given up: who asks again has less to wait for."""
        done = {keys[name]: row.numpy().copy() for name, row in rows.items() if bool(row.isfinite().all())}
        self._count("l1", "embedded", len(done))
        for key, row in done.items():
            self._keep(key, row)
        self._to_redis(done)

    async def _from_redis(self, flight: _Flight, width: int | None) -> dict[bytes, Row]:
        if self._store is None:
            return {}
        keys = list(flight.names)
        values = await self._store.get_many(
            [_redis_key(key) for key in keys],
            cache=CACHE,
            value_bytes=VALUE_BYTES if width is None else value_bytes(width),
        )
        if values is None:
            return {}
        if len(values) > FEW:
            rows, corrupt = await asyncio.to_thread(decode_many, keys, values, width)
        else:
            rows, corrupt = decode_many(keys, values, width)
        self._count("l2", "hit", len(rows))
        self._count("l2", "miss", len(values) - len(rows) - len(corrupt))
        self._corrupt(corrupt)
        return rows

    def _corrupt(self, keys: list[bytes]) -> None:
        if keys and self._store is not None:
            self._count("l2", "corrupt", len(keys))
            self._store.delete_later([_redis_key(key) for key in keys], cache=CACHE)

    def _to_redis(self, rows: Mapping[bytes, Row]) -> None:
        if self._store is None:
            return
        values = {_redis_key(key): encode(key, row) for key, row in rows.items() if is_unit(row)}
        self._count("l2", "dropped", len(rows) - len(values))  # no reader would take them
        self._store.put_later(values, ttl_s=self._ttl_s, cache=CACHE)

    def _looked_up(self, began: float) -> float:
        seconds = time.perf_counter() - began
        self._metrics.observe(self._metrics.cache_seconds, seconds, CACHE, "l1")
        return seconds

    def _keep(self, key: bytes, entry: Tensor | Row) -> None:
        gone = self._recent.put(key, entry)
        self._count("l1", "dropped", int(gone is None))
        self._count("l1", "evicted", len(gone or ()))

    def _count(self, tier: str, result: str, classes: int) -> None:
        if classes:
            self._metrics.count(self._metrics.cache_ops, CACHE, tier, result, by=classes)


@remembered(KEYED_NAMES_KEPT, lambda text_digest, templates, names, owner: len(templates) + len(names))
def _keys(
    text_digest: str, templates: tuple[str, ...], names: tuple[str, ...], owner: str
) -> tuple[EmbeddingKeys, bytes]:
    """What makes the classes' keys, and the vocabulary's own key."""
    keys = EmbeddingKeys(text_digest, templates, owner)
    return keys, b"v" + keys.of(names)


def _redis_key(key: bytes) -> bytes:
    return PREFIX + key.hex().encode()


def _checked(tensor: Tensor, classes: int, width: int | None) -> Row:
    """The text tower's answer as float32 [K, C], or RuntimeError."""
    shape = [classes, width or tensor.shape[-1]]
    if tensor.dtype != torch.float32 or list(tensor.shape) != shape or not tensor.numel():
        raise RuntimeError(
            f"the text tower's embeddings are {tensor.dtype} {list(tensor.shape)}, not float32 {shape}"
        )
    if not bool(tensor.isfinite().all()):
        raise RuntimeError("the text tower's embeddings hold numbers that are not finite")
    rows: Row = tensor.numpy()
    return rows
