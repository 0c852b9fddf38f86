"""`BatchSegmenter`: rows of pictures in, rows of label maps out; the unit that every batch engine calls.

Ray Data's `map_batches`, Spark's `mapInPandas`, Dask's `map_partitions` and a plain loop take this one class.
An error is a value of its row and never an exception: one broken picture costs nothing but its own row.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebseg_client.parallel import in_order
from model.errors import PictureError
from model.network.balance import Balance
from model.storage.packaged import packaged_checkpoint
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.batch.columns import rows_of, shaped_like
from service.batch.reading import UnreadableError, content_of, most_bytes
from service.batch.request import read_batch_request
from service.batch.rows import COLUMNS, Row, failed, row_id
from service.errors import ServiceError, UsageError
from service.local.model import LocalModel
from service.options import MAX_PIXELS
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, EngineResult, Job, PreparedPicture
from service.scheduling.out_of_memory import is_out_of_memory, release_memory
from service.scheduling.torch_engine import device_names, load_engine
from service.schemas.segment import SegmentRequest
from service.segmentation.colors import reported_colors
from service.segmentation.decode import decode
from service.segmentation.encode import statistics
from service.segmentation.render import label_png
from service.segmentation.requested import (
    given_colors,
    output_size,
    requested_vocabulary,
    to_balance,
)
from service.segmentation.tiled import chosen_layout

OUTPUTS = ("label_map", "statistics")
WAITING = 4  # batches that a picture lets pass while it waits for others of its shape
CPU_BATCH, CUDA_BATCH = 1, 8  # a CPU gains nothing from batches


@dataclass(frozen=True, slots=True)
class _Ready:
    """A picture that waits for the network: prepared as a whole, or to be cut into tiles."""

    index: int
    id: str
    prepared: PreparedPicture | None
    size: tuple[int, int]
    tiles: tuple[NDArray[np.uint8], TileLayout] | None = None


class BatchSegmenter:
    """Segments rows of pictures with one vocabulary.

    The model is loaded by the first call, in the process that makes it: an instance that was pickled, as
    batch engines do, carries its arguments alone. Label maps are those of `ebseg segment`, bit for bit.

    Args:
        checkpoint: a version folder; EBSeg-tiny, which comes with ebseg, if left out.
        request: what to look for, as a document of `POST /v1/segment`: `classes` or `vocabulary`,
            `templates`, `synonym_mode`, `balance`, `background`, `output_size`, `tiling`.
        outputs: "label_map" (PNG), "statistics" (areas and confidences), or both.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: numbers that the model computes with.
        batch_size: most pictures of one shape that run at a time; by the device if left out.
        threads: that read and decode pictures, and as many that encode label maps.
        max_pixels: larger pictures are refused by their header, and files that are too large for so many
            pixels are not read.

    Raises:
        UsageError, VocabularyError, ServiceError: the request or an option cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        request: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[str] = OUTPUTS,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | None = None,
        threads: int = 2,
        max_pixels: int = MAX_PIXELS,
    ):
        unknown = sorted(set(outputs) - set(OUTPUTS))
        if unknown or not outputs:
            raise UsageError(f"outputs are any of {', '.join(OUTPUTS)}, got {', '.join(outputs) or 'none'}")
        if threads < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError("threads and batch_size must be at least 1")
        self._checkpoint = packaged_checkpoint() if checkpoint is None else Path(checkpoint)
        self._spec: SegmentRequest = read_batch_request(request or {}, remote=False)
        self._vocabulary: Vocabulary = requested_vocabulary(self._spec)
        self._outputs = frozenset(outputs)
        self._device, self._dtype = device, dtype
        self._given_batch_size = batch_size
        self._threads = threads
        self._max_pixels = max_pixels
        self._loaded: _Loaded | None = None
        self._loading = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_loaded"], state["_loading"] = None, None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loading = threading.Lock()

    def __call__(self, rows: Any) -> Any:
        """Segments a batch of rows.

        Args:
            rows: a list of mappings, a mapping of columns (Ray Data's batches), a pandas DataFrame, or a
                pyarrow Table; each row has `path` (a file or an fsspec URL) or `bytes` (a file's content),
                and may have an `id`, which else is the path.

        Returns:
            The same form, a row for each in order, with the columns `COLUMNS`; where `error` is not None all
            others but `id` are None.

        Raises:
            CheckpointError, SettingsError: the model cannot be loaded: no row can be segmented.
            UsageError: neither of these forms.
        """
        return shaped_like(rows, list(self.segment(rows_of(rows))), COLUMNS)

    def map_in_pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """For Spark's `DataFrame.mapInPandas`: frames in, frames out."""
        return map(self, frames)

    def segment(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """The rows' results, in order; any number of rows, of which few are in memory.

        Several threads may call it: each batch runs by itself.
        """
        yield from _Flow(self._load(), rows, self._threads).results()

    def load(self) -> None:
        """Loads the model now, which the first rows would do.

        Raises:
            CheckpointError, SettingsError: it cannot be loaded.
            ServiceError: the request has a balance that this model cannot do.
        """
        self._load()

    def close(self) -> None:
        """Lets go of the model; the next rows load it again."""
        with self._loading:
            self._loaded = None

    def _load(self) -> "_Loaded":
        with self._loading:
            if self._loaded is None:
                name = device_names(self._device)[0]
                engine = load_engine(self._checkpoint, device=name, dtype=self._dtype, golden=False)
                vocabulary, local = self._vocabulary, LocalModel(engine)
                self._loaded = _Loaded(
                    engine=engine,
                    local=local,
                    spec=self._spec,
                    vocabulary=vocabulary,
                    text=local.embedded(vocabulary),
                    balance=to_balance(self._spec.balance, engine.info.balance),
                    colors=reported_colors(
                        vocabulary.reported, given_colors(self._spec, vocabulary), self._spec.palette
                    ),
                    outputs=self._outputs,
                    batch_size=self._given_batch_size or (CPU_BATCH if name == "cpu" else CUDA_BATCH),
                    max_pixels=self._max_pixels,
                )
            return self._loaded


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """The model with its vocabulary, and what each step makes of a row."""

    engine: Engine
    local: LocalModel
    spec: SegmentRequest
    vocabulary: Vocabulary
    text: Any
    balance: Balance | None
    colors: NDArray[np.uint8]
    outputs: frozenset[str]
    batch_size: int
    max_pixels: int
    turn: threading.Lock = field(default_factory=threading.Lock)

    def read(self, numbered: tuple[int, Mapping[str, Any]]) -> _Ready | tuple[int, Row]:
        """A row to a prepared picture, or to its error; a thread does it."""
        index, row = numbered
        id = row_id(row, index)
        try:
            content = content_of(row, most_bytes(self.max_pixels))
            picture = decode(content, max_pixels=self.max_pixels, frame=self.spec.frame)
            shape = picture.shape[0], picture.shape[1]
            size = output_size(self.spec.output_size, shape, self.max_pixels)
            layout = chosen_layout(self.spec.tiling, shape, size)
            if layout is not None:
                return _Ready(index, id, None, size, (picture, layout))
            return _Ready(index, id, self.engine.prepare(picture), size)
        except (UnreadableError, PictureError, ServiceError) as error:
            return index, failed(id, error)

    def segmented(self, batch: Sequence[_Ready]) -> list[EngineResult]:
        """The network's part, of pictures of one shape or of one in tiles; one thread at a time."""
        if batch[0].tiles is not None:
            picture, layout = batch[0].tiles
            with self.turn:
                return [self.local.segment_tiles(picture.__getitem__, layout, self.spec, self.vocabulary)]
        threshold = self.spec.background_for(self.engine.info.card).least
        with self.turn:
            predictions = self.engine.predict([one.prepared for one in batch if one.prepared is not None])
            return [
                self.engine.classify(
                    prediction,
                    Job(
                        engines=(self.engine,),
                        prepared=one.prepared,
                        prediction=prediction,
                        vocabulary=self.vocabulary,
                        text=self.text,
                        output_size=one.size,
                        threshold=threshold,
                        balance=self.balance,
                        scores=False,
                        deadline=Deadline(float("inf")),
                    ),
                )
                for one, prediction in zip(batch, predictions, strict=True)
            ]

    def encoded(self, one: _Ready, result: EngineResult) -> Row:
        """A result to its row; a thread does it."""
        names = [self.vocabulary.names[index] for index in self.vocabulary.reported]
        height, width = result.labels.shape
        row: Row = dict.fromkeys(COLUMNS)
        row |= {"id": one.id, "width": width, "height": height, "classes": names}
        if "label_map" in self.outputs:
            row["label_map"] = label_png(result.labels, names, self.colors)
        if "statistics" in self.outputs:
            area, confidence = statistics(result.labels, result.confidence, len(names))
            row["areas"] = area[1:].tolist()
            row["confidence"] = confidence[1:].tolist()
        return row


class _Flow:
    """Rows on their way: decoded ahead, gathered by shape, predicted, encoded, and put in order again."""

    def __init__(self, loaded: _Loaded, rows: Iterable[Mapping[str, Any]], threads: int):
        self._loaded = loaded
        self._rows = rows
        self._threads = threads
        self._waiting: dict[tuple[int, int], list[_Ready]] = {}
        self._done: dict[int, Row | Future[Row]] = {}
        self._encoding: deque[Future[Row]] = deque()
        self._next = 0

    def results(self) -> Iterator[Row]:
        with ExitStack() as stack:
            read = stack.enter_context(
                closing(in_order(self._loaded.read, enumerate(self._rows), self._threads))
            )
            pool = stack.enter_context(ThreadPoolExecutor(self._threads, thread_name_prefix="encode"))
            for one in read:
                if isinstance(one, _Ready):
                    self._wait(one, pool.submit)
                else:
                    self._done[one[0]] = one[1]
                yield from self._in_order()
            while self._waiting:
                self._run(self._waiting.pop(next(iter(self._waiting))), pool.submit)
                yield from self._in_order()
            yield from self._in_order(wait=True)

    def _wait(self, one: _Ready, submit: Callable[..., Future[Row]]) -> None:
        """A picture joins those of its shape; a full batch runs, and one whose oldest waits for long."""
        if one.prepared is None:
            self._run([one], submit)
        else:
            group = self._waiting.setdefault(one.prepared.shape, [])
            group.append(one)
            if len(group) >= self._loaded.batch_size:
                self._run(self._waiting.pop(one.prepared.shape), submit)
        shape, oldest = next(iter(self._waiting.items()), (None, []))
        if shape is not None and one.index - oldest[0].index >= WAITING * self._loaded.batch_size:
            self._run(self._waiting.pop(shape), submit)  # results come in order, and wait for it

    def _run(self, batch: list[_Ready], submit: Callable[..., Future[Row]]) -> None:
        for one, result in self._segmented(batch):
            if isinstance(result, Exception):
                self._done[one.index] = failed(one.id, result)
                continue
            while len(self._encoding) >= 2 * self._threads:  # label maps are large
                self._encoding.popleft().result()
            future = submit(self._loaded.encoded, one, result)
            self._encoding.append(future)
            self._done[one.index] = future

    def _segmented(self, batch: list[_Ready]) -> list[tuple[_Ready, EngineResult | Exception]]:
        """Results or errors; a batch that memory does not hold runs in halves."""
        try:
            return list(zip(batch, self._loaded.segmented(batch), strict=True))
        except (PictureError, ServiceError, RuntimeError, MemoryError) as error:
            if not isinstance(error, PictureError | ServiceError) and not is_out_of_memory(error):
                raise
            release_memory(error)
            if len(batch) == 1:
                return [(batch[0], error)]
        half = len(batch) // 2
        return self._segmented(batch[:half]) + self._segmented(batch[half:])

    def _in_order(self, *, wait: bool = False) -> Iterator[Row]:
        while self._next in self._done:
            done = self._done[self._next]
            if isinstance(done, Future):
                if not wait and not done.done():
                    return
                done = done.result()
            del self._done[self._next]
            self._next += 1
            yield done
