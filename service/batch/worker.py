"""A process that segments shards of a run, one by one, on a device or through a running service."""

import io
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from service.batch.listing import Item
from service.batch.plan import BatchPlan, ids_digest
from service.batch.rows import Row
from service.batch.sinks import About, OutputPlace, Sink, open_sink

TOLD_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Finished:
    """What a worker tells of a shard: pictures done, of which failed, and one of them to look at."""

    shard: int
    rows: int
    errors: int
    done_again: int
    example: Any = None


class Segments(Protocol):
    """What turns rows of pictures into rows of label maps."""

    def segment(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """In order; an error is a value of its row."""

    def close(self) -> None:
        """Lets go of what it holds."""


def work(plan: BatchPlan, device: str, threads: int, pipe: Connection) -> None:
    """Takes shards, `(number, items)`, from the pipe until it closes; sends counts and `Finished`.

    An exception, which no row's error is, is sent as text, and ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process ends its workers
    try:
        segmenter = segmenter_of(plan, device, threads)
        sink = open_sink(OutputPlace(plan.out), plan.form)
        pipe.send("ready")
        while True:
            try:
                number, shard = pipe.recv()
            except EOFError:
                return
            pipe.send(_shard(plan, sink, segmenter, number, shard, pipe))
    except (BrokenPipeError, ConnectionResetError):
        return  # the run has ended
    except BaseException as error:
        place = "" if plan.url is None else f"{plan.url}: "
        pipe.send(f"{place}{str(error) or type(error).__name__}")
        raise SystemExit(1) from None


def segmenter_of(plan: BatchPlan, device: str, threads: int | None) -> Segments:
    """What segments a plan's rows: a running service, or a model on a device that uses so many threads."""
    if plan.url is not None:
        from service.batch.remote import RemoteSegmenter

        return RemoteSegmenter(plan.url, plan.request, api_key=plan.api_key, threads=plan.threads)
    import torch

    from service.batch.segmenter import BatchSegmenter

    if threads is not None:
        torch.set_num_threads(threads)
    made = BatchSegmenter(
        plan.checkpoint,
        plan.request,
        device=device,
        dtype=plan.dtype,
        batch_size=plan.batch_size,
        threads=plan.threads,
        max_pixels=plan.max_pixels,
    )
    made.load()
    return made


def _shard(
    plan: BatchPlan, sink: Sink, segmenter: Segments, number: int, shard: list[Item], pipe: Connection
) -> Finished:
    former: list[Row] = sink.read(number) if plan.retry_errors and number in sink.finished() else []
    kept = {index: row for index, row in enumerate(former) if row["error"] is None} if former else {}
    wanted = [item for index, item in enumerate(shard) if index not in kept]
    made = iter(list(_told(segmenter.segment(wanted), pipe)))
    rows = [kept[index] if index in kept else next(made) for index in range(len(shard))]
    about = about_of(rows, ids_digest(shard))
    sink.write(number, rows, about)
    return Finished(number, len(rows), about.errors, len(wanted), _example(shard, rows, plan))


def _told(rows: Iterable[Row], pipe: Connection) -> Iterator[Row]:
    count, told = 0, time.monotonic()
    for row in rows:
        count += 1
        if time.monotonic() - told > TOLD_EVERY_S:
            pipe.send(count)
            count, told = 0, time.monotonic()
        yield row
    pipe.send(count)


def about_of(rows: Sequence[Row], ids: str) -> About:
    """What a shard of these rows tells of itself."""
    good = [row for row in rows if row["error"] is None and row["areas"] is not None]
    classes = len(good[0]["areas"]) if good else 0
    areas = tuple(sum(int(row["areas"][index]) for row in good) for index in range(classes))
    pictures = tuple(sum(row["areas"][index] > 0 for row in good) for index in range(classes))
    errors = sum(row["error"] is not None for row in rows)
    return About(ids=ids, rows=len(rows), errors=errors, areas=areas, pictures=pictures)


def _example(shard: Sequence[Item], rows: Sequence[Row], plan: BatchPlan) -> Any:
    """The first picture with its overlay, for the contact sheet; None if none was segmented."""
    from PIL import Image

    from service.batch.reading import content_of
    from service.segmentation.decode import decode
    from service.segmentation.sheet import SheetEntry

    for item, row in zip(shard, rows, strict=True):
        if row["error"] is None and row["label_map"] is not None:
            picture = Image.fromarray(decode(content_of(item), max_pixels=plan.max_pixels))
            mask = Image.open(io.BytesIO(row["label_map"]))
            return SheetEntry.of(os.path.basename(row["id"]), *_sides(picture, mask, row))
    return None


def _sides(picture: Any, mask: Any, row: Row) -> tuple[Any, Any, list[tuple[str, str, float]]]:
    """The picture, its overlay, and name, colour and share of each class."""
    import numpy as np
    from PIL import Image

    from service.segmentation.colors import to_hex
    from service.segmentation.render import overlay

    picture = picture.resize(mask.size, Image.Resampling.BILINEAR)
    labels = np.asarray(mask).astype(np.uint16)
    palette = np.asarray(mask.getpalette() or [0] * 768, np.uint8).reshape(-1, 3)
    colors = palette[1 : len(row["classes"]) + 1]
    over = Image.fromarray(overlay(np.asarray(picture), labels, colors))
    shares = np.bincount(labels.ravel(), minlength=len(row["classes"]) + 1)[1:] / labels.size
    classes = [
        (name, to_hex(color), float(share))
        for name, color, share in zip(row["classes"], colors, shares, strict=True)
    ]
    return picture, over, classes
