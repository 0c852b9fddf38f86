"""What a run is: its input, its request, its output, and what of it may not change between two starts."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from model.urls import shown
from service.batch.listing import Item, is_within, items
from service.batch.place import OutputPlace
from service.batch.reading import REFUSED
from service.batch.request import read_batch_request
from service.batch.seen import SeenIds
from service.batch.sinks import FORMATS, About
from service.errors import UsageError
from service.options import MAX_PIXELS
from service.scheduling.picture_threads import cores
from service.segmentation.requested import requested_vocabulary

SCHEMA = 1
TWICE = "an image before this one has the same id, by which --format folder calls masks: give each its own"
RUN_MANIFEST = "manifest.json"
SHARD_SIZE = 256  # pictures; what a killed worker does again at most
FILES = (
    "summary.png",
    "sheet.webp",
    "part-000000.parquet",
    "part-000000.tar",
    "masks/a.png",
    "masks/a/a.png",
)
"""Files of an output that might be taken for input."""
_SHARE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """A run over many pictures.

    Attributes:
        source: input, see `listing.items`.
        out: folder or fsspec URL.
        request: a document of `POST /v1/segment`, without a picture.
        checkpoint: version folder; None with `url`.
        url: of a running service that does the work; None for devices of this machine.
        api_key: of that service.
        form: one of `FORMATS`.
        shard_size: pictures of a shard.
        share: (k, n): of every n shards the k-th, k from 0.
        devices: a worker each; names may repeat.
        dtype, batch_size, threads, max_pixels: of `BatchSegmenter`.
        retry_errors: rows with errors are done again.
    """

    source: str
    out: str
    request: dict[str, Any]
    checkpoint: str | None
    url: str | None = None
    api_key: str | None = None
    form: str = "parquet"
    shard_size: int = SHARD_SIZE
    share: tuple[int, int] = (0, 1)
    devices: tuple[str, ...] = ("cpu",)
    dtype: str = "float32"
    batch_size: int | None = None
    threads: int = 2
    max_pixels: int = MAX_PIXELS
    retry_errors: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"there is no format {self.form!r}; there are {', '.join(FORMATS)}")
        if is_within(self.out, self.source, FILES):
            raise UsageError(
                f"{shown(self.out)} lies within the input, where its images would be input as well; "
                "take another output"
            )

    def shards(self) -> Iterator[tuple[int, list[Item]]]:
        """The shards of this run's share, in order; one of them is in memory.

        Where a mask's file is called by its picture's id, an id that comes again costs the later row.
        """
        seen = SeenIds() if self.form == "folder" else None
        for number, shard in enumerate(_cut(items(self.source), self.shard_size)):
            for index in seen.again([item["id"] for item in shard]) if seen is not None else ():
                shard[index][REFUSED] = TWICE
            if self._has(number):
                yield number, shard

    def count(self, is_over: Callable[[], bool]) -> int | None:
        """Images of this run's share; None once `is_over`."""
        count = 0
        for index, _ in enumerate(items(self.source)):
            if is_over():
                return None
            count += self._has(index // self.shard_size)
        return count

    def beyond(self, numbers: Iterable[int], listed: Collection[int]) -> list[int]:
        """Those of some shards that are of this run's share, and that `shards` no longer has."""
        return sorted(number for number in numbers if self._has(number) and number not in listed)

    @property
    def _vocabulary_digest(self) -> str | None:
        """Of names and templates, which a named list may change in; a service has its own."""
        if self.url is not None:
            return None
        return requested_vocabulary(read_batch_request(self.request, remote=False)).digest

    def _has(self, shard: int) -> bool:
        return shard % self.share[1] == self.share[0]

    def is_done(self, about: About, shard: list[Item]) -> bool:
        """Whether a shard that is there is what this run would make of these items."""
        return about.ids == ids_digest(shard) and not (self.retry_errors and about.errors)

    @property
    def torch_threads(self) -> int:
        """Of each worker: all share the cores."""
        return max(1, cores() // len(self.devices))

    def pinned(self, model: str, digest: str) -> dict[str, Any]:
        """What the output's manifest says: another run may not write there. It holds no secrets of URLs."""
        canonical = json.dumps(self.request, sort_keys=True, separators=(",", ":"))
        return {
            "schema": SCHEMA,
            "source": shown(self.source),
            "model": shown(model),
            "checkpoint": digest,
            "request": self.request,
            "request_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
            "vocabulary_sha256": self._vocabulary_digest,
            "dtype": self.dtype,
            "format": self.form,
            "shard_size": self.shard_size,
        }


def pin(store: OutputPlace, pinned: dict[str, Any]) -> None:
    """Writes the manifest of an output, or sees that the one that is there is the same.

    Raises:
        UsageError: it is of another run; the message names what differs.
    """
    there = store.get(RUN_MANIFEST)
    if there is None:
        made = (json.dumps(pinned, indent=2, ensure_ascii=False) + "\n").encode()
        if store.put_first(RUN_MANIFEST, made):
            return
        there = store.get(RUN_MANIFEST)  # of a run that has begun at the same time
    try:
        former = json.loads(there or b"")
        differ = [name for name in pinned if former.get(name) != pinned[name]]
    except (ValueError, AttributeError):
        raise UsageError(
            f"{store.root}/{RUN_MANIFEST} is no manifest of a run; take another output"
        ) from None
    if differ:
        changes = "; ".join(f"{name} was {former.get(name)!r}, is {pinned[name]!r}" for name in differ)
        raise UsageError(f"{store.root} holds another run ({changes}); take another output")


def ids_digest(shard: Iterable[Item]) -> str:
    """sha256 of the ids of a shard, in order."""
    digest = hashlib.sha256()
    for item in shard:
        digest.update(str(item["id"]).encode() + b"\0")
    return digest.hexdigest()


def share(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64): shares count from 0, as JOB_COMPLETION_INDEX does.

    Raises:
        UsageError: something else.
    """
    match = _SHARE.fullmatch(text)
    part, count = (int(match[1]), int(match[2])) if match else (1, 0)
    if part >= count:
        raise UsageError(f"a share is K/N with K from 0 to N - 1, as in 3/64; got {text!r}")
    return part, count


def _cut(all_items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    shard: list[Item] = []
    for item in all_items:
        shard.append(item)
        if len(shard) == size:
            yield shard
            shard = []
    if shard:
        yield shard
