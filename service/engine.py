"""The engine: prepared picture and vocabulary in, label map out, on one thread of its own.

`Engine` is what the service needs; `TorchEngine` is the one that it runs on.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model import checkpoint
from model.allocator import keep_freed_memory
from model.balance import Balance
from model.segmenter import Segmenter
from model.vocabulary import Vocabulary
from service.errors import DeadlineExceededError, NotReadyError
from service.settings import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """The loaded model: what its manifest says, and how it runs."""

    name: str
    version: int
    digest: str
    untrained: bool
    variant: str
    device: str
    dtype: str
    balance: Balance


class Deadline:
    """How long a request may take; threads ask it before they start anything that costs.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.at = time.monotonic() + seconds
        self.abandoned = False  # set when nobody waits for the answer any more

    def left(self) -> float:
        """Seconds that are left, or less than 0."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """Raises DeadlineExceededError if going on is in vain."""
        if self.abandoned or self.left() <= 0:
            raise DeadlineExceededError(f"the request's time of {self.seconds:g} s is over; see timeout_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one request wants from the engine.

    Attributes:
        prepared: what the engine's `prepare` made of the picture.
        vocabulary: K classes.
        output_size: rows and columns of the label map.
        threshold: pixels of a lower confidence become "other".
        balance: instead of the checkpoint's.
        scores: whether the scores of all classes are wanted too.
        deadline: when to give up.
    """

    prepared: Any
    vocabulary: Vocabulary
    output_size: tuple[int, int]
    threshold: float
    balance: Balance | None
    scores: bool
    deadline: Deadline


@dataclass(frozen=True, kw_only=True, slots=True)
class Segmentation:
    """What the engine makes of a job.

    Attributes:
        labels: uint16 [H, W]; 0 is "other", k is class k - 1.
        confidence: float32 [H, W], 0..1.
        scores: float16 [K, H, W] if asked for.
        trained: which classes counted as trained, [K].
        seconds: by stage: queue, predict, text, classify.
    """

    labels: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    scores: NDArray[np.float16] | None
    trained: list[bool]
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """What the service needs from an engine."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model; only after `start`."""

    @property
    def queue_depth(self) -> int:
        """Jobs that wait for the engine."""

    async def start(self) -> None:
        """Loads the model; any exception means that there is none."""

    async def stop(self) -> None:
        """Finishes what was begun, takes nothing more and frees the thread."""

    def prepare(self, picture: NDArray[np.uint8]) -> Any:
        """Makes of RGB uint8 [H, W, 3] what `segment` takes. Cheap, and any thread may call it."""

    async def segment(self, job: Job) -> Segmentation:
        """Runs one job. A caller that is cancelled gives its place in the queue back.

        Raises:
            DeadlineExceededError: the job's time was over before its turn came.
            NotReadyError: the engine was stopped.
        """


class TorchEngine:
    """One model on one device, one thread to run it.

    Args:
        load: makes the segmenter and says what it is; called on the engine's own thread.
    """

    def __init__(self, load: Callable[[], tuple[Segmenter, ModelInfo]]):
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ebseg-engine")
        self._loaded: tuple[Segmenter, ModelInfo] | None = None
        self._waiting: set[object] = set()
        self._stopped = False

    @property
    def info(self) -> ModelInfo:
        """The loaded model; only after `start`."""
        return self._parts()[1]

    @property
    def queue_depth(self) -> int:
        """Jobs that wait for the thread."""
        return len(self._waiting)

    async def start(self) -> None:
        """Loads the model.

        Raises:
            CheckpointError: the checkpoint is not what it should be.
        """
        self._loaded = await asyncio.wrap_future(self._thread.submit(self._load))

    async def stop(self) -> None:
        """Finishes the jobs that wait, then ends the thread."""
        self._stopped = True
        await asyncio.to_thread(self._thread.shutdown)

    def prepare(self, picture: NDArray[np.uint8]) -> torch.Tensor:
        """RGB uint8 [H, W, 3] -> uint8 [3, h, w] at network resolution.

        Raises:
            PictureError: a shape that the model cannot take.
        """
        return self._parts()[0].prepare(picture)

    async def segment(self, job: Job) -> Segmentation:
        """Runs one job; an exception in it is the job's own.

        Raises:
            DeadlineExceededError: its time was over before its turn came.
            NotReadyError: the engine was stopped.
        """
        if self._stopped:
            raise NotReadyError("the engine is shut down")
        token = object()
        self._waiting.add(token)
        try:
            # if this coroutine is cancelled, so is the future, and a job that waits is never run
            return await asyncio.wrap_future(self._thread.submit(self._run, job, token, time.perf_counter()))
        finally:
            self._waiting.discard(token)

    def _parts(self) -> tuple[Segmenter, ModelInfo]:
        if self._loaded is None:
            raise NotReadyError("no model is loaded yet")
        return self._loaded

    def _run(self, job: Job, token: object, submitted: float) -> Segmentation:
        self._waiting.discard(token)
        segmenter, info = self._parts()
        return run_job(segmenter, info, job, submitted)


def run_job(segmenter: Segmenter, info: ModelInfo, job: Job, submitted: float) -> Segmentation:
    """Runs a job on this thread.

    Args:
        segmenter, info: of `load_segmenter`.
        job: what to do.
        submitted: when it came, by `time.perf_counter`.

    Raises:
        DeadlineExceededError: its time is over.
    """
    job.deadline.check()
    clock = _Clock(submitted, info.device)
    clock.lap("queue")
    predictions = segmenter.predict([job.prepared])
    clock.lap("predict")
    job.deadline.check()
    text = segmenter.encode_text(job.vocabulary)
    clock.lap("text")
    label_map = segmenter.label_map(
        predictions,
        job.vocabulary,
        output_size=job.output_size,
        text=text,
        threshold=job.threshold,
        balance=job.balance,
    )
    scores = None
    if job.scores:
        maps = segmenter.score_maps(
            predictions, job.vocabulary, output_size=job.output_size, text=text, balance=job.balance
        )
        scores = maps.half().cpu().numpy()
    clock.lap("classify")
    return Segmentation(
        labels=label_map.labels,
        confidence=label_map.confidence,
        scores=scores,
        trained=segmenter.ebseg.trained(job.vocabulary),
        seconds=clock.seconds,
    )


class _Clock:
    """Seconds by stage; waits for the device, so that each stage pays for its own work."""

    def __init__(self, start: float, device: str):
        self.seconds: dict[str, float] = {}
        self._last = start
        self._device = device

    def lap(self, stage: str) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def load_segmenter(
    directory: Path, *, device: str = "auto", dtype: str = "float32", verify_digests: bool = True
) -> tuple[Segmenter, ModelInfo]:
    """Loads a checkpoint folder for serving.

    Args:
        directory: the folder.
        device: "auto" takes CUDA where there is one.
        dtype: name of the compute dtype.
        verify_digests: leave it out only for a folder that was just verified.

    Raises:
        CheckpointError: the folder is not what it should be.
        SettingsError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device {device}: there is none; {torch.cuda.device_count()} CUDA devices are here"
        )
    keep_freed_memory()
    loaded = checkpoint.load(directory, device=device, verify_digests=verify_digests)
    if dtype != "float32":
        loaded.ebseg.to_compute_dtype(getattr(torch, dtype))
    manifest = loaded.manifest
    info = ModelInfo(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        untrained=manifest.untrained,
        variant=manifest.variant,
        device=device,
        dtype=dtype,
        balance=loaded.ebseg.config.balance,
    )
    return Segmenter(loaded.ebseg), info
