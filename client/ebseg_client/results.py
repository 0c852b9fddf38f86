"""What the service answers, as types. Fields that a newer service adds are ignored."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ebseg_client.errors import AnswerError, ClientError
from ebseg_client.labels import Maps, read_npy
from ebseg_client.requests import ClassSpec

Document = Mapping[str, Any]
Ring = tuple[tuple[int, int], ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What answered: `digest` is the identity of its weights; untrained ones mean nothing."""

    name: str
    version: int
    digest: str
    untrained: bool


@dataclass(frozen=True, slots=True)
class Polygon:
    """One region: rings of (x, y) along the pixels' edges, filled by the even-odd rule."""

    exterior: Ring
    holes: tuple[Ring, ...]


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
        confidence: mean over its pixels, 0..1; None if it has none.
        polygons: its regions, if asked for.
    """

    name: str
    label: int
    color: str
    trained: bool
    area: int
    fraction: float
    confidence: float | None
    polygons: tuple[Polygon, ...] | None
    _maps: Maps = field(repr=False, compare=False)

    def mask(self) -> NDArray[np.bool_]:
        """Its pixels, bool [H, W]; errors as of `Segmentation.labels`."""
        return self._maps.mask(self.label)


@dataclass(frozen=True)
class Segmentation:
    """The answer to one picture.

    Attributes:
        width, height: pixels of the maps.
        classes: in the order of the request.
        other: pixels that belong to no class; None if no threshold was set.
        model: what answered.
        warnings: what to know before trusting the answer.
        caches: where the text embeddings and the prediction came from, see docs/http.md.
        timings_ms: by stage.
        request_id: names the request in the service's log.
        png, overlay: the indexed PNG and the WebP picture, if asked for.
        document: the whole answer, as JSON values.
    """

    width: int
    height: int
    classes: tuple[FoundClass, ...]
    other: Share | None
    model: ModelVersion
    warnings: tuple[str, ...]
    caches: dict[str, str]
    timings_ms: dict[str, float]
    request_id: str
    png: bytes | None = field(repr=False)
    overlay: bytes | None = field(repr=False)
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
        """Scores, float16 [K, H, W]; None if they were not asked for."""
        return None if self._scores is None else read_npy(self._scores)

    @property
    def found(self) -> tuple[FoundClass, ...]:
        """The classes that have pixels, largest first."""
        return tuple(sorted((c for c in self.classes if c.area), key=lambda c: -c.area))

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

    def get(self) -> Segmentation:
        """The answer.

        Raises:
            ClientError: there is none, for this reason.
        """
        if self.error is not None or self.result is None:
            raise self.error or AnswerError("no answer")
        return self.result


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """A stored class list; built-in ones cannot be changed."""

    name: str
    size: int
    builtin: bool


@dataclass(frozen=True, slots=True)
class Vocabulary(VocabularySummary):
    """A stored class list with its classes, in order."""

    classes: tuple[ClassSpec, ...]


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in memory; `role` is current, canary, previous or draining."""

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
class ModelDetails(ModelVersion):
    """A loaded model: its current version, how that runs, and what goes on around it."""

    variant: str
    device: str
    dtype: str
    default: bool
    policy: str
    pinned: int | None
    versions: tuple[LoadedVersion, ...]
    quarantined: tuple[QuarantinedVersion, ...]
    last_error: str | None
    last_checked_at: datetime | None


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


def read(parse: Callable[[Any], T], document: Any) -> T:
    """Runs one of the functions below.

    Raises:
        AnswerError: the document is not what it takes.
    """
    try:
        return parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnswerError(f"an answer that no EBSeg service gives: {type(error).__name__} {error}") from None


def segmentation(document: Document) -> Segmentation:
    """The answer of `POST /v1/segment`."""
    width, height = document["size"]["width"], document["size"]["height"]
    entries: Sequence[Document] = document["classes"]
    files = {
        name: base64.b64decode(document[name], validate=True)
        for name in ("png", "overlay", "npy", "scores")
        if name in document
    }
    rles = tuple(entry["rle"]["counts"] for entry in entries) if "rle" in entries[0] else None
    maps = Maps(height, width, rles=rles, png=files.get("png"), npy=files.get("npy"))
    other = document.get("other")
    model = document["model"]
    return Segmentation(
        width=width,
        height=height,
        classes=tuple(_found_class(entry, maps) for entry in entries),
        other=None if other is None else Share(other["area"], other["fraction"]),
        model=ModelVersion(model["name"], model["version"], model["digest"], model["untrained"]),
        warnings=tuple(document.get("warnings") or ()),
        caches=dict(document.get("caches") or {}),
        timings_ms=dict(document["timings_ms"]),
        request_id=document["request_id"],
        png=files.get("png"),
        overlay=files.get("overlay"),
        document=document,
        _maps=maps,
        _scores=files.get("scores"),
    )


def _found_class(entry: Document, maps: Maps) -> FoundClass:
    regions = entry.get("polygons")
    return FoundClass(
        name=entry["name"],
        label=entry["label"],
        color=entry["color"],
        trained=entry["trained"],
        area=entry["area"],
        fraction=entry["fraction"],
        confidence=entry["mean_confidence"],
        polygons=None if regions is None else tuple(_polygon(region) for region in regions),
        _maps=maps,
    )


def _polygon(region: Document) -> Polygon:
    return Polygon(_ring(region["exterior"]), tuple(_ring(hole) for hole in region["holes"]))


def _ring(points: Sequence[Sequence[int]]) -> Ring:
    return tuple((x, y) for x, y in points)


def vocabulary_summaries(document: Document) -> list[VocabularySummary]:
    """The answer of `GET /v1/vocabularies`."""
    return [VocabularySummary(v["name"], v["size"], v["builtin"]) for v in document["vocabularies"]]


def vocabulary(document: Document) -> Vocabulary:
    """The answer of `GET` and `PUT /v1/vocabularies/{name}`."""
    classes = (
        ClassSpec(entry["name"], tuple(entry["synonyms"]), entry.get("trained"), entry.get("color"))
        for entry in document["classes"]
    )
    return Vocabulary(document["name"], document["size"], document["builtin"], tuple(classes))


def model_list(document: Document) -> list[ModelDetails]:
    """The answer of `GET /v1/models`."""
    return [model_details(entry) for entry in document["models"]]


def model_details(document: Document) -> ModelDetails:
    """The answer of `GET /v1/models/{name}`."""
    plain = ("name", "version", "digest", "untrained", "variant", "device", "dtype", "default", "policy")
    checked = document["last_checked_at"]
    return ModelDetails(
        **{name: document[name] for name in (*plain, "pinned", "last_error")},
        versions=tuple(_loaded(entry) for entry in document["versions"]),
        quarantined=tuple(
            QuarantinedVersion(entry["version"], entry["reason"], datetime.fromisoformat(entry["since"]))
            for entry in document["quarantined"]
        ),
        last_checked_at=None if checked is None else datetime.fromisoformat(checked),
    )


def _loaded(entry: Document) -> LoadedVersion:
    plain = ("version", "digest", "untrained", "variant", "device", "dtype", "role", "in_flight")
    return LoadedVersion(
        **{name: entry[name] for name in (*plain, "load_seconds")},
        loaded_at=datetime.fromisoformat(entry["loaded_at"]),
    )


def model_change(document: Document) -> ModelChange:
    """The answer of `POST /v1/models/{name}:pin` and its likes."""
    return ModelChange(document["done"], model_details(document["model"]))
