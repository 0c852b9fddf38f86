"""The engine: one loaded version on one device. Pictures in, predictions out; those and a vocabulary in,
a label map out.

`Engine` is what the service needs; `torch_engine.py` has the one that it runs on. An engine owns no thread:
the scheduler calls it on the thread of its device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from model.confidence.card import Card
from model.network.balance import Balance
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.scheduling.deadline import Deadline


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A loaded version: what its manifest says, and how it runs.

    Attributes:
        context_length: tokens of a prompt that the text tower reads.
        weight_bytes: that its weights take on one device.
        training_words: for the classes that the weights were trained on.
    """

    name: str
    version: int
    digest: str
    untrained: bool
    variant: str
    device: str
    dtype: str
    balance: Balance
    license: str | None = None
    card: Card | None = None
    context_length: int = 77
    weight_bytes: int = 0
    training_words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedPicture:
    """A picture at network resolution.

    Attributes:
        pixels: whatever the engine's `predict` takes.
        shape: rows and columns; pictures of one shape may share a batch.
        cost: pixels that the network computes on, its padding included.
    """

    pixels: Any
    shape: tuple[int, int]
    cost: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TiledPrediction:
    """What a band of a picture's output is classified from, in the place of the one prediction.

    Attributes:
        layout: of the picture's tiles.
        band: which of the layout's bands.
        tiles: the predictions that the band needs, by row and column, in the host's memory.
    """

    layout: TileLayout
    band: int
    tiles: Mapping[tuple[int, int], Any]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the band."""
        rows = self.layout.band(self.band)
        return rows.stop - rows.start, self.layout.output[1]


@dataclass(frozen=True, slots=True)
class PredictedTile:
    """What a job gives that only predicts.

    Attributes:
        prediction: in the host's memory.
        queue_s, predict_s: seconds that it waited, and that its batch took.
        device: name of the one that did it.
    """

    prediction: Any
    queue_s: float
    predict_s: float
    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one request wants from an engine.

    Attributes:
        engines: of the version that it was given at admission, one a device.
        prepared: of the engine's `prepare`; None if there is a prediction.
        prediction: of the same picture by the same weights, in the host's memory; `predict` is left out.
        vocabulary: K classes.
        text: their embeddings, float32 [K, C] on the CPU; None while they are on their way.
        output_size: rows and columns of the label map.
        threshold: pixels of a lower confidence become "other".
        balance: instead of the checkpoint's.
        scores: whether the scores of all classes are wanted too.
        deadline: when to give up.
        key: of picture and weights: jobs of one key share one predict. None shares with nobody.
        picture_size: rows and columns of the upright picture; kept with its prediction.
        predict_only: the prediction is the answer: of a tile, which is classified with others.
    """

    engines: tuple["Engine", ...]
    prepared: PreparedPicture | None
    prediction: Any
    vocabulary: Vocabulary
    text: Tensor | None
    output_size: tuple[int, int]
    threshold: float
    balance: Balance | None
    scores: bool
    deadline: Deadline
    key: bytes | None = None
    picture_size: tuple[int, int] = (0, 0)
    predict_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineResult:
    """What the engine makes of a job.

    Attributes:
        labels: uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
        confidence: float32 [H, W], 0..1.
        scores: float16 [K, H, W] if asked for.
        own: how sure the model is of its own words in the picture; None if its card does not say how sure
            it should be.
        trained: which classes counted as trained, [K].
        seconds: by stage: queue, predict, classify.
        devices: names, by those stages that one worked on.
    """

    labels: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    scores: NDArray[np.float16] | None
    trained: list[bool]
    own: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)


class EngineClosedError(RuntimeError):
    """Something was asked of an engine whose version is freed."""


class Measurement(NamedTuple):
    """How long a step took.

    Attributes:
        step: "predict", "classify" or "embed".
        units: network pixels, output pixels times classes, or text tokens.
        seconds: of the device.
    """

    step: str
    units: int
    seconds: float


class Engine(Protocol):
    """What the service needs from a loaded version on a device."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""

    @property
    def text_digest(self) -> str:
        """sha256 over what its text embeddings depend on beside names and templates."""

    @property
    def batch(self) -> int:
        """Pictures that one `predict` is worth: with more of them no picture takes less time."""

    def room(self, shape: tuple[int, int]) -> int:
        """The most pictures of a padded shape that the device's memory holds in one `predict`; any thread."""

    def cost(self, size: tuple[int, int]) -> int:
        """`PreparedPicture.cost` of a picture of so many rows and columns; any thread."""

    def tokens(self, names: Sequence[str], templates: Sequence[str]) -> list[int]:
        """Tokens that the text tower reads for each name, of all templates together; any thread."""

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        """Makes of RGB uint8 [H, W, 3] what `predict` takes; any thread."""

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Any]:
        """One prediction, an object with `nbytes`, for each picture of one shape; the device's thread."""

    @property
    def classified_at_once(self) -> int:
        """Label maps that one `classify_each` is worth."""

    def classify(self, prediction: Any, job: Job) -> EngineResult:
        """The label map of one picture; the device's thread."""

    def classify_each(self, predictions: Sequence[Any], jobs: Sequence[Job]) -> list[EngineResult]:
        """What `classify` gives for each of several pictures; the device's thread."""

    def to_host(self, prediction: Any) -> Any:
        """The same prediction, bit by bit, in the host's memory, for `classify` on any device of the version;
        the device's thread.
        """

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The mean over the templates of each name's unit embeddings, float32 [K, C], on the CPU, of which
        `unit_rows` makes text embeddings; the device's thread.
        """

    def warm(self, shape: tuple[int, int]) -> Sequence[Measurement]:
        """Runs all steps on a grey picture of a network shape, and says how long they took; the device's
        thread.
        """

    def close(self) -> None:
        """Lets go of the weights; nothing is asked of the engine afterwards."""


def unit_rows(means: Tensor) -> Tensor:
    """Text embeddings, unit rows [K, C], of what `Engine.embed` gives."""
    return normalize(means, dim=-1)
