"""Runs a model over a data set and counts confusions, in this process or in several.

Every picture is predicted once, alone or beside others of its size, however many balances are compared.
Counts are integers, so it does not matter which process counted which picture.
"""

import logging
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.errors import ModelError
from model.network.balance import Balance
from model.network.ebseg import EBSeg
from model.network.predictions import MaskPredictions
from model.segmenter import Segmenter
from model.storage import checkpoint
from model.storage.checkpoint import LoadedCheckpoint
from model.vocabulary.classes import Vocabulary
from training.data.layout import Sample, SegmentationFolder
from training.errors import TrainingError
from training.evaluation.pictures import panel, save_picture
from training.evaluation.tally import Tally
from training.progress import Bar, progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a data set is gone through.

    Attributes:
        short_side, long_side: pictures are resized to these, pixels; see `Segmenter`.
        limit: only the first pictures.
        pictures: folder for a panel (picture, truth, prediction) of each of the first `picture_count`
            pictures.
        picture_count: how many, where `pictures` is given.
        batch: pictures of one size that are predicted together, at most.
        shown: whether to show progress.

    Raises:
        TrainingError: a number that cannot be meant.
    """

    short_side: int | Literal["configured"] | None = "configured"
    long_side: int | Literal["configured"] = "configured"
    limit: int | None = None
    pictures: Path | None = None
    picture_count: int = 20
    batch: int = 1
    shown: bool = True

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise TrainingError(f"the limit must be at least one image, got {self.limit}")
        if self.batch < 1:
            raise TrainingError(f"a batch must hold at least one image, got {self.batch}")
        if self.pictures is not None and self.picture_count < 1:
            raise TrainingError(f"at least one image must be shown, got {self.picture_count}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CountPlan:
    """What to count.

    Attributes:
        folder: pictures and their truth.
        vocabulary: the folder's classes in order.
        balances: one tally is made for each; None is the model's own. Panels show the first.
        options: how.
    """

    folder: SegmentationFolder
    vocabulary: Vocabulary
    balances: tuple[Balance | None, ...] = (None,)
    options: Options = Options()

    def __len__(self) -> int:
        """Pictures to count."""
        return min(self.options.limit or len(self.folder), len(self.folder))

    def tallies(self) -> list[Tally]:
        """One for each balance, with nothing counted yet."""
        return [Tally(len(self.vocabulary), len(self)) for _ in self.balances]

    def panel_paths(self) -> list[Path]:
        """Where panels are put, in the order of the pictures."""
        options = self.options
        if options.pictures is None:
            return []
        shown = min(options.picture_count, len(self))
        return [options.pictures / f"{name}.png" for name in self.folder.names[:shown]]


def count(
    ebseg: EBSeg, plan: CountPlan, advance: Callable[[], object], part: int = 0, parts: int = 1
) -> list[Tally]:
    """Counts every `parts`-th picture, beginning with number `part`; a tally for each balance.

    Args:
        ebseg: the model; it is put into evaluation mode meanwhile.
        plan: what to count.
        advance: called after each picture.
        part, parts: this process's share.

    Raises:
        TrainingError: the model's output for a picture is not finite, or a file of the folder is wrong.
    """
    options = plan.options
    segmenter = Segmenter(ebseg, short_side=options.short_side, long_side=options.long_side)
    panels = plan.panel_paths()
    legend = [item.name if item.trained else f"{item.name} (new)" for item in plan.vocabulary.classes]
    tallies = plan.tallies()
    with evaluating(ebseg):
        text = segmenter.encode_text(plan.vocabulary)
        for group in _batches(segmenter, plan, range(part, len(plan), parts)):
            predictions = segmenter.predict([prepared for _, _, prepared in group])
            refuse_non_finite(predictions, ", ".join(sample.name for _, sample, _ in group))
            for place, (index, sample, _) in enumerate(group):
                for number, (balance, tally) in enumerate(zip(plan.balances, tallies, strict=True)):
                    found = segmenter.label_map(
                        predictions,
                        plan.vocabulary,
                        output_size=(sample.labels.shape[0], sample.labels.shape[1]),
                        index=place,
                        text=text,
                        balance=balance,
                    )
                    labels = found.labels.astype(np.int64) - 1  # 0 is "other", which no threshold gives
                    tally.add(index, sample.labels, labels)
                    if number == 0 and index < len(panels):
                        shown = panel(sample.picture, sample.labels, labels, legend, errors=True)
                        save_picture(panels[index], shown)
                advance()
    return tallies


_Prepared = tuple[int, Sample, Tensor]  # place in the set, picture and truth, what the network sees


def _batches(segmenter: Segmenter, plan: CountPlan, indices: Sequence[int]) -> Iterator[list[_Prepared]]:
    """Pictures of one size each, as soon as there are enough of them, and what is left at the end."""
    waiting: dict[torch.Size, list[_Prepared]] = defaultdict(list)
    for index in indices:
        sample = plan.folder[index]
        prepared = segmenter.prepare(sample.picture)
        group = waiting[prepared.shape]
        group.append((index, sample, prepared))
        if len(group) == plan.options.batch:
            yield waiting.pop(prepared.shape)
    yield from waiting.values()


def count_loaded(
    loaded: LoadedCheckpoint, plan: CountPlan, *, what: str = "evaluating", processes: int = 1
) -> list[Tally]:
    """Counts with a checkpoint's model, in this process or in several, which load their own.

    The processes share this one's number of threads. With one thread each the counts are one process's
    with one thread to the last pixel; another number of threads may round a picture's scores otherwise.

    Args:
        loaded: the checkpoint. A model on a GPU is counted with on all visible GPUs in turn.
        plan: what to count.
        what: for the progress bar.
        processes: no more are started than there are pictures.

    Raises:
        TrainingError: see `count`; or a process failed or died, and all others were stopped.
    """
    if processes < 1:
        raise TrainingError(f"at least one process is needed, got {processes}")
    parts = min(processes, len(plan))
    with progress(what, total=len(plan), shown=plan.options.shown) as bar:
        if parts == 1:
            return count(loaded.ebseg, plan, bar.advance)
        return _count_in_processes(loaded, plan, bar, parts)


def _count_in_processes(loaded: LoadedCheckpoint, plan: CountPlan, bar: Bar, parts: int) -> list[Tally]:
    context = multiprocessing.get_context("spawn")  # forked copies of a process with threads may hang
    threads = max(1, torch.get_num_threads() // parts)
    workers = []
    readers: dict[Connection, int] = {}
    try:
        for part in range(parts):
            reader, writer = context.Pipe(duplex=False)
            readers[reader] = part
            device = _device_of(loaded.ebseg.device, part)
            share = (writer, loaded.directory, plan, part, parts, threads, device)
            worker = context.Process(target=_work, args=share, daemon=True)
            worker.start()
            workers.append(worker)
            writer.close()  # only the worker holds it now, so its death ends the pipe
        return _collect(readers, plan, bar)
    finally:
        for reader in readers:
            reader.close()
        for worker in workers:
            worker.terminate()
            worker.join()


def _collect(readers: dict[Connection, int], plan: CountPlan, bar: Bar) -> list[Tally]:
    total = [tally.vector() for tally in plan.tallies()]
    waiting = set(readers)
    while waiting:
        for reader in wait(waiting):
            assert isinstance(reader, Connection)
            try:
                kind, content = reader.recv()
            except EOFError:
                raise TrainingError(
                    f"process {readers[reader]} of the evaluation died; if memory ran out, "
                    "take fewer processes or a smaller short side"
                ) from None
            if kind == "error":
                raise TrainingError(content)
            if kind == "picture":
                bar.advance(1)
            else:
                for sums, counts in zip(total, content, strict=True):
                    sums += counts
                waiting.remove(reader)
    return [Tally.of(sums, len(plan.vocabulary)) for sums in total]


def _work(
    writer: Connection,
    directory: Path,
    plan: CountPlan,
    part: int,
    parts: int,
    threads: int,
    device: str,
) -> None:
    """What a process does: tells of each picture, then the counts, or what went wrong."""
    message: tuple[str, Any]
    try:
        torch.set_num_threads(threads)
        logging.disable(logging.WARNING)  # the parent has loaded the same checkpoint, and said it all
        ebseg = checkpoint.load(directory, device=device, verify_digests=False).ebseg
        found = count(ebseg, plan, lambda: writer.send(("picture", None)), part, parts)
        message = ("counts", [tally.vector() for tally in found])
    except KeyboardInterrupt:  # this process's parent gets it as well, and says so
        return
    except ModelError as error:
        message = ("error", str(error))
    except Exception as error:
        message = ("error", f"process {part} of the evaluation failed: {type(error).__name__}: {error}")
    writer.send(message)


def _device_of(device: torch.device, part: int) -> str:
    return f"cuda:{part % torch.cuda.device_count()}" if device.type == "cuda" else str(device)


@contextmanager
def evaluating(ebseg: EBSeg) -> Iterator[None]:
    """Evaluation mode, and then the mode that there was."""
    training = ebseg.training
    ebseg.eval()
    try:
        yield
    finally:
        ebseg.train(training)


def refuse_non_finite(predictions: MaskPredictions, name: str) -> None:
    """Raises TrainingError if a picture's predictions hold NaN or infinity."""
    for field, values in predictions.tensors().items():
        if not values.isfinite().all():
            raise TrainingError(
                f"the model's {field} of the image {name} hold NaN or infinity; "
                "its weights or its number format cannot be used"
            )
