"""The engine: one loaded version on one device. Pictures in, predictions out; those and a vocabulary in,
a label map out.

`Engine` is what the service needs; `TorchEngine` is the one that it runs on. An engine owns no thread: the
batcher of its device calls it.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.allocator import keep_freed_memory
from model.confidence.card import Card
from model.confidence.domain import OwnWords
from model.errors import CheckpointError
from model.network.balance import Balance
from model.network.predictions import MaskPredictions
from model.segmenter import Segmenter
from model.storage import checkpoint
from model.transforms import network_size
from model.vocabulary.classes import Vocabulary
from service.scheduling.deadline import Deadline
from service.settings import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A loaded version: what its manifest says, and how it runs."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedPicture:
    """A picture at network resolution.

    Attributes:
        pixels: whatever the engine's `predict` takes.
        shape: rows and columns; pictures of one shape may share a batch.
    """

    pixels: Any
    shape: tuple[int, int]

    @property
    def cost(self) -> int:
        """Pixels that the network sees."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one request wants from an engine.

    Attributes:
        engine: the one that its version was given at admission.
        prepared: of the engine's `prepare`; None if there is a prediction.
        prediction: of the same picture by the same weights; then `predict` is left out.
        vocabulary: K classes.
        text: their embeddings, float32 [K, C].
        output_size: rows and columns of the label map.
        threshold: pixels of a lower confidence become "other".
        balance: instead of the checkpoint's.
        scores: whether the scores of all classes are wanted too.
        deadline: when to give up.
    """

    engine: "Engine"
    prepared: PreparedPicture | None
    prediction: Any
    vocabulary: Vocabulary
    text: Tensor
    output_size: tuple[int, int]
    threshold: float
    balance: Balance | None
    scores: bool
    deadline: Deadline


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineResult:
    """What the engine makes of a job.

    Attributes:
        labels: uint16 [H, W]; 0 is "other", k is class k - 1.
        confidence: float32 [H, W], 0..1.
        scores: float16 [K, H, W] if asked for.
        own: how sure the model is of its own words in the picture; None if its card does not say how sure
            it should be.
        trained: which classes counted as trained, [K].
        prediction: what it was made of, for other classes on the same picture.
        seconds: by stage: queue, predict, classify.
    """

    labels: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    scores: NDArray[np.float16] | None
    trained: list[bool]
    own: float | None = None
    prediction: Any = None
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """What the service needs from a loaded version on a device."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""

    @property
    def text_digest(self) -> str:
        """sha256 over what its text embeddings depend on beside names and templates."""

    def cost(self, size: tuple[int, int]) -> int:
        """Pixels that the network will see of a picture of so many rows and columns; any thread."""

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        """Makes of RGB uint8 [H, W, 3] what `predict` takes; any thread."""

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Any]:
        """One prediction, an object with `nbytes`, for each picture of one shape; the device's thread."""

    def classify(self, prediction: Any, job: Job) -> EngineResult:
        """The label map of one picture; the device's thread."""

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit text embeddings, float32 [K, C], on the CPU; the device's thread."""

    def warm(self, shape: tuple[int, int]) -> None:
        """Runs a grey picture of a network shape; the device's thread."""

    def close(self) -> None:
        """Lets go of the weights; nothing is asked of the engine afterwards."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture's `MaskPredictions`, and how sure the model is of its own words there."""

    masks: MaskPredictions
    own: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.masks.nbytes


class TorchEngine:
    """A checkpoint on a device.

    Args:
        segmenter, info: of `load_engine`.
        text_digest: sha256 of the text tower's weights.
    """

    def __init__(self, segmenter: Segmenter, info: ModelInfo, text_digest: str):
        self._segmenter: Segmenter | None = segmenter
        self._own_words: OwnWords | None = None
        if info.card is not None and info.card.confidence is not None:
            self._own_words = OwnWords(segmenter, info.card)
        self.info = info
        tokenizer = type(segmenter.ebseg.clip_text.tokenizer).__name__
        context = segmenter.ebseg.clip_text.positional_embedding.shape[0]
        self.text_digest = hashlib.sha256(f"{text_digest}:{tokenizer}:{context}".encode()).hexdigest()

    @property
    def segmenter(self) -> Segmenter:
        """The model.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._segmenter is None:
            raise RuntimeError(f"the engine of {self.info.name}/{self.info.version} is closed")
        return self._segmenter

    def cost(self, size: tuple[int, int]) -> int:
        """Pixels that the network will see of a picture of so many rows and columns."""
        segmenter = self.segmenter
        rows, columns = network_size(size, segmenter.short_side, segmenter.long_side)
        return rows * columns

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        """RGB uint8 [H, W, 3] -> uint8 [3, h, w] at network resolution.

        Raises:
            PictureError: a shape that the model cannot take.
        """
        pixels = self.segmenter.prepare(picture)
        return PreparedPicture(pixels=pixels, shape=(pixels.shape[1], pixels.shape[2]))

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Prediction]:
        """Runs the network on pictures of one shape."""
        batch = self.segmenter.predict([one.pixels for one in prepared])
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)  # so that errors and seconds are this batch's own
        if len(prepared) == 1:
            return [self._prediction(batch)]
        # slices of a batch would keep all of it in the prediction cache
        return [self._prediction(batch[i].map(Tensor.clone)) for i in range(len(batch))]

    def _prediction(self, masks: MaskPredictions) -> Prediction:
        return Prediction(masks, None if self._own_words is None else self._own_words.confidence(masks))

    def classify(self, prediction: Prediction, job: Job) -> EngineResult:
        """The label map of one picture, and the scores if they are wanted."""
        began = time.perf_counter()
        segmenter = self.segmenter
        masks = prediction.masks
        text = job.text.to(masks.device)
        label_map = segmenter.label_map(
            masks,
            job.vocabulary,
            output_size=job.output_size,
            text=text,
            threshold=job.threshold,
            balance=job.balance,
        )
        scores = None
        if job.scores:
            maps = segmenter.score_maps(
                masks, job.vocabulary, output_size=job.output_size, text=text, balance=job.balance
            )
            scores = maps[job.vocabulary.reported].half().cpu().numpy()
        return EngineResult(
            labels=label_map.labels,
            confidence=label_map.confidence,
            scores=scores,
            trained=segmenter.ebseg.trained(job.vocabulary),
            own=prediction.own,
            prediction=prediction,
            seconds={"classify": time.perf_counter() - began},
        )

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit text embeddings, float32 [K, C], on the CPU."""
        return self.segmenter.ebseg.encode_text(names, templates).float().cpu().contiguous()

    def warm(self, shape: tuple[int, int]) -> None:
        """Runs a grey picture of a network shape."""
        pixels = torch.full((3, *shape), 127, dtype=torch.uint8)
        self.predict([PreparedPicture(pixels=pixels, shape=shape)])

    def close(self) -> None:
        """Lets go of the weights."""
        self._segmenter = self._own_words = None


def load_engine(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    verify_digests: bool = True,
    golden: bool = True,
    map_weights: bool = False,
) -> TorchEngine:
    """Loads a version folder for serving, and sees that it computes what its golden file says.

    Args:
        folder: a version folder.
        device: such as "cpu" or "cuda:0".
        dtype: name of the compute dtype.
        verify_digests: leave it out only for a folder that was just verified.
        golden: run the golden test, which takes as long as a picture; and look at the text tower's digest.
        map_weights: leave weights on the CPU in their file; see `checkpoint.load`.

    Raises:
        CheckpointError: the folder is not what it should be, or computes something else.
    """
    keep_freed_memory()
    loaded = checkpoint.load(folder, device=device, verify_digests=verify_digests, mapped=map_weights)
    if golden:
        if loaded.ebseg.text_digest() != loaded.manifest.text_digest:
            # text embeddings are shared under this digest, with other versions and other processes
            raise CheckpointError(f"{folder}: the manifest's text_digest is not that of the text tower")
        checkpoint.check_golden(loaded)
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
        license=manifest.license,
        card=manifest.card,
    )
    return TorchEngine(Segmenter(loaded.ebseg), info, manifest.text_digest)


def device_names(setting: str) -> list[str]:
    """The devices of the setting `device`: ["cpu"], ["cuda:0", "cuda:1"] and the like.

    Raises:
        SettingsError: one of them is not here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return [f"cuda:{index}" for index in range(count)] or ["cpu"]
    names = ["cuda:0" if name == "cuda" else name for name in setting.split(",")]
    for name in names:
        if name != "cpu" and int(name.partition(":")[2]) >= count:
            raise SettingsError(f"device {name}: there is none; {count} CUDA devices are here")
    return names
