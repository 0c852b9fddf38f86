"""What waits for a device, and the steps that devices make of it."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from service.observability.stages import Stage, stage_listener
from service.scheduling.delivery import CompletionQueue, Then, Waiting
from service.scheduling.engine import Engine, EngineResult, Job, PredictedTile, PreparedPicture
from service.scheduling.text_work import TextBlock

Trigger = Literal["full", "delay", "idle", "bisect", "memory", "cached"]
Key = tuple[float, int]  # urgency, and order of arrival: the least goes first
T = TypeVar("T")
CLASSIFIED_PIXELS = 2**24  # of outputs that are classified together: some 100 MB of labels and confidences


class Request(Waiting[EngineResult | PredictedTile]):
    """A job on its way: its picture's predict and its text come in any order, then classify, if it is to be.

    Args:
        to: as of `Waiting`.
        job: to be run.
        ageing_s: after this long, the request goes before all that came later.

    Attributes:
        urgency: never changes: ageing caps how far a far deadline puts one back.
        number: order of arrival, given by the queue.
        prediction: of its picture, once there is one.
        home: index of the device that holds the prediction; None if any device may classify it.
        predict_s: what predict took.
        predicted_on: name of the device that did it; empty if the prediction was there.
        ready_at: when it last became ready for a step, `time.monotonic()`.
        queue_s: seconds that it waited for devices so far.
        cached: whether there was a prediction before it stood in any line.
        shared: whether its prediction is of another request of the same picture, at the same time.

    Raises:
        ValueError: there is neither a picture nor a prediction in the job.
    """

    def __init__(self, to: CompletionQueue | Then, job: Job, ageing_s: float):
        super().__init__(to)
        if job.prepared is None and job.prediction is None:
            raise ValueError("a job needs a prepared image or a prediction, and has neither")
        self.job = job
        self.urgency = min(job.deadline.at, self.submitted + ageing_s)
        self.number = 0
        self.prediction: Any = job.prediction
        self.home: int | None = None
        self.predict_s = 0.0
        self.predicted_on = ""
        self.ready_at = self.submitted
        self.queue_s = 0.0
        self.cached = False
        self.shared = False
        self._listener = stage_listener.get()
        self._came_ns = [] if self._listener is None else [time.time_ns()]  # until it has waited

    def waited(self, error: type[BaseException] | None = None) -> None:
        """Tells of the queue as a stage, once: a device turns to the request, or an error ends that."""
        if self._listener is None:
            return
        with suppress(IndexError):  # pop is atomic; the loop may give up while the device begins
            self._listener(Stage("queue", self._came_ns.pop(), time.time_ns(), error))

    def ran(self, name: str, began_ns: int, error: type[BaseException] | None = None) -> None:
        """Tells of a stage on a device that ends now.

        Args:
            name: of the stage.
            began_ns: Unix time, nanoseconds.
            error: what kind of error ended it.
        """
        if self._listener is not None:
            self._listener(Stage(name, began_ns, time.time_ns(), error))

    @property
    def key(self) -> Key:
        """Its place in every line."""
        return self.urgency, self.number

    @property
    def ready(self) -> bool:
        """Whether it can be classified."""
        return self.prediction is not None and self.job.text is not None

    @property
    def output_pixels(self) -> int:
        """Of its label map."""
        rows, columns = self.job.output_size
        return rows * columns

    def take_text(self, text: Tensor) -> None:
        """Takes in the embeddings that the job lacked."""
        self.job = replace(self.job, text=text)


class Flight:
    """The predict of one picture, for all requests that wait for it.

    Args:
        request: the first of them; its job has the prepared picture.
        prepared: that picture.
        kept: whether its prediction is kept, if its picture has a key.
    """

    def __init__(self, request: Request, prepared: PreparedPicture, *, kept: bool = True):
        self.engines = request.job.engines
        self.picture_key = request.job.key
        self.picture_size = request.job.picture_size
        self.prepared = prepared
        self.requests = [request]
        self.key = request.key  # of the most urgent one
        self.submitted = request.submitted
        self.running = False
        self._predict_only = request.job.predict_only
        self._kept = kept

    @property
    def hosted(self) -> bool:
        """Whether its prediction is wanted in the host's memory."""
        return (self._kept and self.picture_key is not None) or self._predict_only

    def join(self, request: Request) -> None:
        """Adds a request for the same picture; a flight that waits must not stand in a line meanwhile."""
        request.shared = True
        self.requests.append(request)
        self.key = min(self.key, request.key)


class DeviceCall(Waiting[T], Generic[T]):
    """Other work for one device's thread.

    Args:
        completions: of the running event loop.
        device: index of the device.
        work: to be run.
        ageing_s: its turn comes as that of a request of a far deadline does.
        since: when what it is a part of began, `time.monotonic()`; now, if it is all there is.
    """

    def __init__(
        self,
        completions: CompletionQueue,
        device: int,
        work: Callable[[], T],
        ageing_s: float,
        since: float | None = None,
    ):
        super().__init__(completions)
        self.device = device
        self.work = work
        self.urgency = (self.submitted if since is None else since) + ageing_s
        self.number = 0

    @property
    def key(self) -> Key:
        """Its place in its line."""
        return self.urgency, self.number


@dataclass(frozen=True, slots=True)
class PredictStep:
    """Pictures of one shape for one engine, the most urgent first, and why they go now."""

    engine: Engine
    flights: list[Flight]
    trigger: Trigger

    @property
    def key(self) -> Key:
        """Its place among the pieces of a batch that failed."""
        return self.flights[0].key

    @property
    def bucket(self) -> "Bucket":
        """What its pictures agree in."""
        return id(self.engine), self.flights[0].prepared.shape


@dataclass(frozen=True, slots=True)
class ClassifyStep:
    """Requests that have their prediction and their text, the most urgent first."""

    engine: Engine
    requests: list[Request]


@dataclass(frozen=True, slots=True)
class EmbedStep:
    """Some names of one block, with some of their templates."""

    engine: Engine
    block: TextBlock
    names: list[str]
    templates: tuple[str, ...]
    tokens: int


def take_company(lines: Sequence[list[Request]], first: Request, engine: Engine) -> list[Request]:
    """Takes out of lines what may be classified together with a request, in their order.

    So many as the engine finds worth it, of one version, and of `CLASSIFIED_PIXELS` at most.
    """
    taken: list[Request] = []
    pixels = first.output_pixels
    for line in lines:
        for request in list(line):
            if len(taken) + 1 >= engine.classified_at_once:
                return taken
            together = pixels + request.output_pixels
            if engine in request.job.engines and together <= CLASSIFIED_PIXELS:
                line.remove(request)
                taken.append(request)
                pixels = together
    return taken


Bucket = tuple[int, tuple[int, int]]  # id of the engine, rows and columns
Step = DeviceCall[Any] | PredictStep | ClassifyStep | EmbedStep
