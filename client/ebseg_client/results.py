"""What the service answers, as types; `parsing.py` makes them."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebseg_client import drawing
from ebseg_client.errors import AnswerError, ClientError, InputError
from ebseg_client.fields import Document
from ebseg_client.labels import Maps, read_npy
from ebseg_client.regions import FoundRegion, LeftOut, Panoptic, Polygon
from ebseg_client.requests import ClassSpec, Picture, picture_pixels


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What answered: `digest` is the identity of its weights; untrained ones mean nothing."""

    name: str
    version: int
    digest: str
    untrained: bool


@dataclass(frozen=True, slots=True)
class Share:
    """Pixels that belong to no class."""

    area: int
    fraction: float


@dataclass(frozen=True, slots=True)
class FoundClass:
    """One class of an answer.

    Attributes:
        name: as it was asked for.
        label: its value in label maps.
        color: "#rrggbb".
        trained: whether it counted as one that the model was trained on.
        area: pixels.
        fraction: of all pixels, 0..1.
        bbox: left, top, width and height of all its pixels; None if it has none.
        confidence: mean over its pixels, 0..1; None if it has none.
        polygons: its regions, if asked for.
    """

    name: str
    label: int
    color: str
    trained: bool
    area: int
    fraction: float
    bbox: tuple[int, ...] | None
    confidence: float | None
    polygons: tuple[Polygon, ...] | None
    _maps: Maps = field(repr=False, compare=False)

    def mask(self) -> NDArray[np.bool_]:
        """Its pixels, bool [H, W]; errors as of `Segmentation.labels`."""
        return self._maps.mask(self.label)


@dataclass(frozen=True, slots=True)
class UsedBackground:
    """Which threshold was used.

    Attributes:
        threshold: pixels of a lower confidence are "other"; None: every pixel got a class.
        source: "request", "card" where the request said nothing, or "uncalibrated" where neither has one.
    """

    threshold: float | None
    source: str


@dataclass(frozen=True, slots=True)
class AnswerWarning:
    """A reason to doubt an answer: a code for programs, and a sentence that says what to do."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Segmentation:
    """The answer to one picture.

    Attributes:
        width, height: pixels of the maps.
        classes: in the order of the request.
        background: which threshold made pixels "other".
        other: pixels that belong to no class; None if there was no threshold.
        model: what answered.
        warnings: what to know before trusting the answer.
        caches: where the text embeddings and the prediction came from, see docs/http.md.
        timings_ms: by stage.
        request_id: names the request in the service's log.
        png, overlay_file: the indexed PNG and the picture under its mask as WebP, if asked for.
        regions: if asked for; `regions_left_out` says what they lack, None if nothing.
        coco, geojson, panoptic: the regions in other tools' formats, if asked for.
        confidence, soft_mask: grey PNG, if asked for: of each pixel's class, and of the class `subject`.
        cutout: RGBA PNG of that class's pixels, if asked for.
        document: the whole answer, as JSON values.
    """

    width: int
    height: int
    classes: tuple[FoundClass, ...]
    background: UsedBackground
    other: Share | None
    model: ModelVersion
    warnings: tuple[AnswerWarning, ...]
    caches: dict[str, str]
    timings_ms: dict[str, float]
    request_id: str
    png: bytes | None = field(repr=False)
    overlay_file: bytes | None = field(repr=False)
    regions: tuple[FoundRegion, ...] | None = field(repr=False)
    regions_left_out: LeftOut | None
    coco: Document | None = field(repr=False)
    panoptic: Panoptic | None = field(repr=False)
    geojson: Document | None = field(repr=False)
    confidence: bytes | None = field(repr=False)
    soft_mask: bytes | None = field(repr=False)
    cutout: bytes | None = field(repr=False)
    document: Document = field(repr=False, compare=False)
    _maps: Maps = field(repr=False, compare=False)
    _scores: bytes | None = field(repr=False, compare=False)

    @property
    def labels(self) -> NDArray[np.uint16]:
        """The label map, uint16 [H, W], read-only: 0 is "other", k the k-th class.

        Made of whichever of npy, png and rle (the default) was asked for.

        Raises:
            InputError: none of them was.
            AnswerError: what came is damaged.
        """
        return self._maps.labels

    @cached_property
    def scores(self) -> NDArray[np.float16] | None:
        """Scores, float16 [K, H, W]; None if they were not asked for.

        Raises:
            AnswerError: what came is damaged.
        """
        if self._scores is None:
            return None
        return read_npy(self._scores, np.float16, (len(self.classes), self.height, self.width))

    @property
    def found(self) -> tuple[FoundClass, ...]:
        """The classes that have pixels, largest first."""
        return tuple(sorted((c for c in self.classes if c.area), key=lambda c: -c.area))

    def overlay(
        self, picture: Picture | None = None, opacity: float = drawing.OPACITY, names: bool = True
    ) -> Image.Image:
        """The picture under its mask, RGB, of the maps' size.

        Args:
            picture: that was sent; left out, the service's overlay if "overlay" was among the outputs, else
                the label map alone in its colours.
            opacity: of the colours, 0..1.
            names: whether the classes' names stand on their regions.

        Raises:
            InputError: the answer holds no label map, or the picture cannot be read.
        """
        if picture is None and self.overlay_file is not None:
            with Image.open(io.BytesIO(self.overlay_file)) as image:
                return image.convert("RGB")
        colors = drawing.rgb_of([one.color for one in self.classes])
        if picture is None:
            return Image.fromarray(drawing.painted(self.labels, colors))
        pixels = picture_pixels(picture, (self.width, self.height))
        written = [one.name for one in self.classes] if names else []
        return Image.fromarray(drawing.overlay(pixels, self.labels, colors, opacity, written))

    def show(self, picture: Picture | None = None) -> None:
        """Shows `overlay` in the system's viewer of pictures."""
        self.overlay(picture).show()

    def to_supervision(self) -> Any:
        """`supervision.Detections`: the regions if they were asked for with run lengths, else a detection for
        each class that has pixels.

        Raises:
            InputError: the package supervision is not here, or the answer holds no masks.
        """
        try:
            import supervision
        except ImportError:
            raise InputError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from None
        entries: Sequence[FoundRegion | FoundClass] = self.found if self.regions is None else self.regions
        if not entries:
            return supervision.Detections.empty()
        boxes = np.array([one.bbox for one in entries], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = [one.score if isinstance(one, FoundRegion) else one.confidence for one in entries]
        return supervision.Detections(
            xyxy=boxes,
            mask=np.stack([one.mask() for one in entries]),
            confidence=np.array(scores, np.float64),
            class_id=np.array([one.label for one in entries]),
            data={"class_name": np.array([one.name for one in entries])},
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the label map in its colours, or the overlay, and a legend."""
        return drawing.page(self.overlay(), [(one.name, one.color, one.fraction) for one in self.found])

    def __getitem__(self, name: str) -> FoundClass:
        """The class of this name.

        Raises:
            KeyError: it was not asked for.
        """
        for one in self.classes:
            if one.name == name:
                return one
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Segmented:
    """What became of one of many pictures: `error` is None, or `get` raises it."""

    picture: Any
    result: Segmentation | None
    error: ClientError | None

    @classmethod
    def of(cls, picture: Any, outcome: "Segmentation | ClientError") -> Self:
        """Of one picture and what became of it."""
        if isinstance(outcome, ClientError):
            return cls(picture, None, outcome)
        return cls(picture, outcome, None)

    def get(self) -> Segmentation:
        """The answer.

        Raises:
            ClientError: there is none, for this reason.
        """
        if self.error is not None or self.result is None:
            raise self.error or AnswerError("no response")
        return self.result


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """A stored class list; built-in ones cannot be changed.

    `shared` ones are for all API keys; `owner` is the key that stored it, shown to itself and to admin keys.
    """

    name: str
    size: int
    builtin: bool
    shared: bool
    owner: str | None


@dataclass(frozen=True, slots=True)
class Vocabulary(VocabularySummary):
    """A stored class list with its classes, in order."""

    classes: tuple[ClassSpec, ...]


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in memory; `role` is current, canary or draining."""

    version: int
    digest: str
    untrained: bool
    variant: str
    device: str
    dtype: str
    role: str
    in_flight: int
    loaded_at: datetime
    load_seconds: float


@dataclass(frozen=True, slots=True)
class QuarantinedVersion:
    """A version that was refused."""

    version: int
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class UnfinishedVersion:
    """A version whose files are not all in the registry yet; `reason` says what it lacks."""

    version: int
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class AskedVersions:
    """What the registry asks every process to serve; `obeyed` tells whether this one does."""

    revision: int
    policy: str
    version: int | None
    canary: int | None
    percent: int | None
    changed_by: str
    changed_at: datetime
    obeyed: bool


@dataclass(frozen=True, slots=True)
class ModelDetails(ModelVersion):
    """A loaded model: its current version, how that runs, and what goes on around it.

    `license` is of the weights, as SPDX writes it; `card` is what the checkpoint tells of itself, as JSON
    values. Either is None if it does not say.
    """

    variant: str
    device: str
    dtype: str
    license: str | None
    card: Document | None
    default: bool
    policy: str
    pinned: int | None
    asked: AskedVersions | None
    versions: tuple[LoadedVersion, ...]
    quarantined: tuple[QuarantinedVersion, ...]
    unfinished: tuple[UnfinishedVersion, ...]
    last_error: str | None
    last_checked_at: datetime | None


@dataclass(frozen=True, slots=True)
class MissingModel:
    """A model that the service's settings name, and of which no version serves, for this reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """The loaded models, the default one first, as a sequence; and those that are `missing`."""

    models: tuple[ModelDetails, ...]
    missing: tuple[MissingModel, ...]

    def __iter__(self) -> Iterator[ModelDetails]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> ModelDetails:
        return self.models[index]


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What a change did, in words, and the model after it."""

    done: str
    model: ModelDetails


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service takes requests; `reason` says why not, `models` which version of each serves."""

    ready: bool
    reason: str | None
    models: dict[str, int]
    checks: dict[str, str]
