"""A process that segments shards of a run, one by one, on a device or through a running service."""

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ebseg_client import ClientError
from model.errors import ModelError
from service.batch.deaths import Attempt
from service.batch.listing import Item
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan, ids_digest
from service.batch.rows import Row, failed
from service.batch.sinks import About, Sink, open_sink
from service.errors import ServiceError, UsageError
from service.local.remote_errors import is_refused
from service.settings import SettingsError

READY = "ready"
REPORT_EVERY_S = 0.5
DEADLY = (
    "its worker died over this image again and again, alone as well; it may take more memory or time than "
    "there is"
)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to do: its number and items, whether the contact sheet wants one of its pictures, and how."""

    number: int
    items: list[Item]
    example: bool
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class PictureBegun:
    """What a worker reports before it does a picture by itself: its index in the shard."""

    index: int


@dataclass(frozen=True, slots=True)
class Waits:
    """What a worker reports while it waits for a service, and why it does."""

    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    """What a worker reports of a shard: its pictures, those that failed, those done now, and an example."""

    rows: int
    errors: int
    segmented: int
    example: Any = None


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """Why a worker cannot go on.

    Attributes:
        text: for users.
        usable: whether the same command may succeed later; False if what it asks for cannot be done.
        trace: where it happened, if it is a fault of ours; else "".
    """

    text: str
    usable: bool
    trace: str

    @classmethod
    def of(cls, error: BaseException, url: str | None) -> "WorkerFailed":
        """What is said of an error."""
        text = str(error) or type(error).__name__
        if isinstance(error, ClientError):
            return cls(f"{url}: {text}", not is_refused(error), "")
        if isinstance(error, UsageError | ServiceError | SettingsError | ModelError):
            return cls(text, False, "")
        if isinstance(error, OSError | MemoryError):
            return cls(text, True, "")
        return cls(f"{type(error).__name__}: {text}", True, traceback.format_exc())


class RowSegmenter(Protocol):
    """What turns rows of pictures into rows of label maps."""

    def segment(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """In order; an error is a value of its row."""

    def close(self) -> None:
        """Lets go of what it holds."""


def work(plan: BatchPlan, device: str, pipe: Connection) -> None:
    """Does each `ShardTask` of the pipe until it closes.

    Sends `READY` once, numbers of pictures that were done, `PictureBegun` where it does one by itself,
    `Waits`, `Finished` for each shard, and `WorkerFailed` for an exception, which no row's error is and which
    ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process ends its workers
    turn = threading.Lock()

    def send(message: object) -> None:
        with turn:
            pipe.send(message)

    try:
        segmenter = segmenter_of(
            plan, device, torch_threads=plan.torch_threads, waits=lambda why: send(Waits(why))
        )
        sink = open_sink(OutputPlace(plan.out), plan.form)
        send(READY)
        while True:
            try:
                task: ShardTask = pipe.recv()
            except EOFError:
                return
            send(finished(plan, sink, segmenter, task, send))
    except (BrokenPipeError, ConnectionResetError):
        return  # the run has ended
    except BaseException as error:
        send(WorkerFailed.of(error, plan.url))
        raise SystemExit(1) from None


def segmenter_of(
    plan: BatchPlan,
    device: str,
    *,
    torch_threads: int | None,
    waits: Callable[[str], None] = lambda why: None,
) -> RowSegmenter:
    """What segments a plan's rows: a running service, or a model on a device, loaded.

    Args:
        plan: of the run.
        device: of the worker.
        torch_threads: that the model computes with on a CPU; None leaves them as they are.
        waits: see `RemoteSegmenter`.
    """
    if plan.url is not None:
        from service.batch.remote import RemoteSegmenter

        return RemoteSegmenter(
            plan.url,
            plan.request,
            api_key=plan.api_key,
            threads=plan.threads,
            max_pixels=plan.max_pixels,
            waits=waits,
        )
    import torch

    from service.batch.segmenter import BatchSegmenter

    if torch_threads is not None:
        torch.set_num_threads(torch_threads)
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


def finished(
    plan: BatchPlan,
    sink: Sink,
    segmenter: RowSegmenter,
    task: ShardTask,
    report: Callable[[int | PictureBegun], None],
) -> Finished:
    """Does a shard, and puts it where it belongs.

    Args:
        plan: of the run.
        sink: of its output.
        segmenter: of the worker.
        task: the shard.
        report: called now and then with the number of pictures that were done since, and with each picture
            that is done by itself, before it is.
    """
    known = _kept(sink, task) if plan.retry_errors else {}
    known |= {index: failed(task.items[index]["id"], DEADLY) for index in task.attempt.deadly}
    wanted = {index: item for index, item in enumerate(task.items) if index not in known}
    if task.attempt.careful:
        done = _one_by_one(segmenter, wanted, report)
    else:
        done = segmenter.segment(wanted.values())
    made = iter(list(_reported(done, report)))
    rows = [known[index] if index in known else next(made) for index in range(len(task.items))]
    about = about_of(rows, ids_digest(task.items))
    sink.write(task.number, rows, about)
    picture = None
    if task.example:
        from service.batch.examples import example

        picture = example(task.items, rows, max_pixels=plan.max_pixels, frame=_frame(plan))
    return Finished(len(rows), about.errors, len(wanted), picture)


def _one_by_one(
    segmenter: RowSegmenter, wanted: Mapping[int, Item], report: Callable[[PictureBegun], None]
) -> Iterator[Row]:
    for index, item in wanted.items():
        report(PictureBegun(index))
        yield from segmenter.segment([item])


def _kept(sink: Sink, task: ShardTask) -> dict[int, Row]:
    """Rows without errors of a former run, by their place; none if the shard's items have changed."""
    about = there(sink, task.number)
    if about is None or about.ids != ids_digest(task.items):
        return {}
    return {index: row for index, row in enumerate(sink.read(task.number)) if row["error"] is None}


def there(sink: Sink, shard: int) -> About | None:
    """What a shard tells of itself; None if it is not there."""
    try:
        return sink.about(shard)
    except FileNotFoundError:
        return None


def _reported(rows: Iterable[Row], report: Callable[[int], None]) -> Iterator[Row]:
    count, reported = 0, time.monotonic()
    for row in rows:
        count += 1
        if time.monotonic() - reported > REPORT_EVERY_S:
            report(count)
            count, reported = 0, time.monotonic()
        yield row
    report(count)


def _frame(plan: BatchPlan) -> int | None:
    frame = plan.request.get("frame")
    return None if frame is None else int(frame)


def about_of(rows: Sequence[Row], ids: str) -> About:
    """What a shard of these rows tells of itself."""
    good = [row for row in rows if row["error"] is None and row["areas"] is not None]
    classes = len(good[0]["areas"]) if good else 0
    areas = tuple(sum(int(row["areas"][index]) for row in good) for index in range(classes))
    pictures = tuple(sum(row["areas"][index] > 0 for row in good) for index in range(classes))
    errors = sum(row["error"] is not None for row in rows)
    return About(ids=ids, rows=len(rows), errors=errors, areas=areas, pictures=pictures)
