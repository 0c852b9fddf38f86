"""What goes in and what comes out, as JSON.

A multipart request carries the same document in its part `request`; with `application/json` the image
is one more field. Unknown fields are errors.
"""

import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from model.confidence.background import BackgroundRule, Source, asked, of_card
from model.confidence.card import Card
from model.confidence.caution import Code
from model.vocabulary.classes import MAX_NAME_LENGTH, Vocabulary
from model.vocabulary.templates import SETS, resolve
from service.schemas.balance import BalanceSpec
from service.schemas.classes import COLOR, ClassList, Strict
from service.schemas.masks import Polygon, Rle
from service.schemas.regions import LeftOut, Panoptic, RegionAnswer, RegionSpec
from service.schemas.tiling import TilingSpec

Output = Literal[
    "rle",
    "png",
    "overlay",
    "polygons",
    "npy",
    "scores",
    "regions",
    "coco",
    "panoptic",
    "geojson",
    "confidence",
    "soft_mask",
    "cutout",
]
OF_REGIONS = frozenset({"regions", "coco", "panoptic", "geojson"})  # outputs made of regions
OF_ONE_CLASS = frozenset({"soft_mask", "cutout"})  # outputs that show `subject`
AUTO_VOCABULARY = (
    "auto"  # the vocabulary that stands for the largest built-in one, of which what is seen is answered
)
LAST_FRAME = 9999
ONE_SOURCE: list[Any] = [{"required": ["classes"]}, {"required": ["vocabulary"]}]  # as JSON Schema
LONGEST_SIDE = 16_384  # pixels; the number of pixels has its own limit among the settings


class Background(Strict):
    """When a pixel belongs to no class."""

    threshold: float = Field(
        ge=0, le=1, description='pixels of a lower confidence become "other", label 0', examples=[0.3]
    )


class LongSide(Strict):
    """An output size by its long side."""

    long_side: int = Field(ge=1, le=LONGEST_SIDE, description="pixels", examples=[1024])


def _templates(value: Any) -> tuple[str, ...]:
    return resolve(value)


def _palette(value: Any) -> Any:
    if value in ("distinct", "voc"):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(color, str) and re.fullmatch(COLOR, color) for color in value
    ):
        return tuple(value)
    raise ValueError('must be "distinct", "voc", or a list of colours such as #1f77b4')


def _size(value: Any) -> Any:
    if value in (None, "image"):
        return None
    if isinstance(value, dict | LongSide):
        return value
    raise ValueError('must be "image" or {"long_side": pixels}')


class SegmentRequest(Strict):
    """What to look for in the image, and what to answer with."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": ONE_SOURCE,
            "examples": [
                {"classes": ["sky", "tree", "road"]},
                {
                    "classes": [
                        {"name": "sky", "color": "#87ceeb"},
                        {"name": "tree", "synonyms": ["bush"], "trained": True},
                        "umbrella",
                    ],
                    "background": {"threshold": 0.3},
                    "outputs": ["rle", "polygons"],
                    "output_size": {"long_side": 1024},
                },
                {"vocabulary": "ade20k-150", "templates": "plain", "outputs": ["png"]},
            ],
        }
    )

    classes: ClassList | None = Field(
        default=None,
        description="names, or objects with a name; or names in a text, with commas between; no two differ "
        "by case only; or give `vocabulary`",
    )
    vocabulary: str | None = Field(
        default=None,
        description="name of a stored class list, instead of `classes`; auto: the largest built-in one, of "
        "which only the classes that are seen are answered, the largest first",
    )
    templates: Annotated[
        tuple[str, ...], PlainValidator(_templates, Literal["vild", "imagenet", "plain"] | list[str])
    ] = Field(
        default=SETS["vild"],
        description='sentences that class names go into: a set, or a list of your own, each with one "{}"',
        json_schema_extra={"default": "vild"},
    )
    synonym_mode: Literal["best", "mean"] = Field(
        default="best",
        description="a class with synonyms is as likely as its best word, or as all its words in the mean",
    )
    balance: BalanceSpec | None = Field(default=None, description="instead of the checkpoint's")
    background: Background | None = Field(
        default_factory=lambda: None,
        description='when a pixel is "other"; left out, the threshold of the model\'s card holds; '
        "null: never, every pixel gets a class",
    )
    outputs: list[Output] | None = Field(
        default=None,
        min_length=1,
        max_length=len(get_args(Output)),
        description='parts of a JSON response; ["rle"] if left out',
    )
    regions: RegionSpec | None = Field(
        default=None, description="which regions, where outputs has regions, coco, panoptic or geojson"
    )
    subject: str | None = Field(
        default=None,
        max_length=MAX_NAME_LENGTH,
        description="name of the class that soft_mask and cutout show; may be left out if there is only one",
        examples=["tree"],
    )
    palette: Annotated[
        Literal["distinct", "voc"] | tuple[str, ...],
        PlainValidator(_palette, Literal["distinct", "voc"] | list[Annotated[str, Field(pattern=COLOR)]]),
    ] = Field(
        default="distinct",
        description="colours of classes without a `color`: as far apart as can be, those of PASCAL VOC, or a "
        "list for labels 1, 2, ...",
        examples=["voc", ["#87ceeb", "#2e8b57"]],
    )
    output_size: Annotated[LongSide | None, BeforeValidator(_size, Literal["image"] | LongSide)] = Field(
        default=None, description="size of the response's maps", json_schema_extra={"default": "image"}
    )
    tiling: TilingSpec | None = Field(
        default=None,
        description="segments the image in tiles, at their own resolution, which finds in a large image "
        "what would be too small in the whole; each tile costs as much as an image",
    )
    model: str | None = Field(
        default=None, max_length=100, description="one of GET /v1/models; its first one if left out"
    )
    version: int | None = Field(
        default=None, ge=1, description="one that serves; by the model's policy if left out"
    )
    frame: int | None = Field(
        default=None,
        ge=0,
        le=LAST_FRAME,
        description="frame of an animation, or page of a file, from 0; left out: the first, or HEIC's main",
    )
    timeout_ms: int | None = Field(
        default=None,
        ge=1,
        description="time for the response from the request's first byte on, waiting included, ms; above the "
        "service's limit it is lowered, and a warning says so",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.classes is None) == (self.vocabulary is None):
            seen = "neither came" if self.classes is None else "both came"
            raise ValueError(f"give either classes or vocabulary; {seen}")
        return self

    @model_validator(mode="after")
    def _used(self) -> Self:
        outputs = frozenset(self.outputs or ())
        if self.regions is not None and not outputs & OF_REGIONS:
            raise ValueError(f"regions needs one of {', '.join(sorted(OF_REGIONS))} in outputs")
        if self.subject is not None and not outputs & OF_ONE_CLASS:
            raise ValueError(f"subject needs one of {', '.join(sorted(OF_ONE_CLASS))} in outputs")
        return self

    def background_for(self, card: Card | None) -> BackgroundRule:
        """Which threshold holds with a model of this card."""
        if "background" not in self.model_fields_set:
            return of_card(card)
        return asked(None if self.background is None else self.background.threshold)

    @cached_property
    def listed(self) -> Vocabulary:
        """The vocabulary of `classes`, once they were looked at.

        Raises:
            VocabularyError: one of them cannot be used.
        """
        return Vocabulary(
            classes=tuple(entry.for_model() for entry in self.classes or []),
            templates=self.templates,
            synonym_mode=self.synonym_mode,
        )


class Size(BaseModel):
    """Pixels."""

    width: int = Field(description="pixels in a row", examples=[640])
    height: int = Field(description="rows", examples=[480])


class ModelAnswer(BaseModel):
    """A model that is loaded."""

    name: str = Field(description="as requests name it", examples=["ebseg-base"])
    version: int = Field(description="the one that answered, or that responds now", examples=[1])
    digest: str = Field(description="identity of the weights, hexadecimal")
    untrained: bool = Field(description="the weights are random; the masks mean nothing")


class ClassAnswer(BaseModel):
    """One class of the response, in the order of the request."""

    name: str = Field(description="as it was asked for", examples=["tree"])
    label: int = Field(description="its value in label maps", examples=[2])
    color: str = Field(description="in palettes and overlays, #rrggbb", examples=["#2e8b57"])
    trained: bool = Field(description="whether it counted as trained")
    area: int = Field(description="pixels")
    fraction: float = Field(description="of all pixels, 0..1, to six decimals; `area` is exact")
    bbox: list[int] | None = Field(
        default=None,
        min_length=4,
        max_length=4,
        description="left, top, width and height of all its pixels; null if it has none",
        examples=[[0, 12, 640, 200]],
    )
    mean_confidence: float | None = Field(
        description="over its pixels, 0..1, to four decimals; null if it has none"
    )
    rle: Rle | None = Field(default=None, description='its mask, if outputs has "rle"')
    polygons: list[Polygon] | None = Field(
        default=None, description='its regions, if outputs has "polygons"; none if it has no pixels'
    )


class Other(BaseModel):
    """Pixels that belong to no class."""

    area: int = Field(description="pixels")
    fraction: float = Field(description="of all pixels, 0..1")


class BackgroundAnswer(BaseModel):
    """Which threshold was used."""

    threshold: float | None = Field(
        description='pixels of a lower confidence are "other"; null: every pixel got a class', examples=[0.5]
    )
    source: Source = Field(
        description="request: it said so; card: the model's own, since the request said nothing; "
        "uncalibrated: neither has one",
        examples=["card"],
    )


class WarningAnswer(BaseModel):
    """A reason to doubt a response."""

    code: Code = Field(
        description="untrained: the weights are random; unknown-words: the model does not know words that "
        "were asked for; unlike-its-domain: it is less sure of the image than of nearly all that it is "
        "for; cut-names: the model does not read names to their end; foreign-script: it has read little in "
        "their letters; joined-names: one reads like several without commas; lowered-timeout: the request "
        "asked for more time than it had; colour-profile: the image's own is broken and was not used, or it "
        "is HDR and was read as SDR; bands: it has others than RGB, of which some were taken",
        examples=["unknown-words"],
    )
    message: str = Field(description="what is doubtful, and what to do about it, a sentence")


class CacheAnswer(BaseModel):
    """Where text embeddings and the image's prediction came from."""

    text: str = Field(
        description="l1: this process, l2: Redis, embedded: computed now, joined: computed for another one",
        examples=["l1"],
    )
    prediction: str = Field(description="hit: the network had seen the image, or miss", examples=["miss"])


class SegmentAnswer(BaseModel):
    """The mask, by class. Parts that were not asked for are left out."""

    request_id: str = Field(description="the same as in the header X-Request-ID")
    size: Size = Field(description="of the maps below")
    model: ModelAnswer = Field(description="what answered")
    warnings: list[WarningAnswer] | None = Field(
        default=None, description="what to know before trusting this response; left out if there is nothing"
    )
    caches: CacheAnswer | None = Field(default=None, description="what the caches did")
    classes: list[ClassAnswer] = Field(
        description="all that were asked for and not ignored, found or not, in their order"
    )
    background: BackgroundAnswer = Field(description='which threshold made pixels "other"')
    other: Other | None = Field(
        default=None, description="where pixels can be other: a threshold holds, or a class is ignored"
    )
    png: str | None = Field(
        default=None,
        description="label map as PNG in base64: a palette image in the classes' colours; 16-bit grey for "
        "more than 255 classes",
    )
    overlay: str | None = Field(default=None, description="image under its mask, WebP in base64")
    npy: str | None = Field(default=None, description="label map, uint16 [H, W], .npy in base64")
    scores: str | None = Field(
        default=None,
        description="class scores, float16 [K, H, W], .npy in base64. The largest of a pixel decides its "
        "class; divided by the sum of all K, if that is above 1, it is the confidence",
    )
    regions: list[RegionAnswer] | None = Field(default=None, description='if outputs has "regions"')
    regions_left_out: LeftOut | None = Field(
        default=None, description="regions that no part of the response has; left out if there are none"
    )
    coco: dict[str, Any] | None = Field(
        default=None, description="regions as instances in COCO's format: images, annotations, categories"
    )
    panoptic: Panoptic | None = Field(default=None, description="regions as COCO's panoptic segments")
    geojson: dict[str, Any] | None = Field(
        default=None, description="regions as a FeatureCollection of polygons, in pixels; y goes down"
    )
    confidence: str | None = Field(
        default=None, description="confidence of each pixel's class, 8-bit grey PNG in base64; 255 is 1"
    )
    soft_mask: str | None = Field(
        default=None,
        description="how much each pixel is of the class `subject`, 8-bit grey PNG in base64; 255 is 1",
    )
    cutout: str | None = Field(
        default=None, description="the image's pixels of the class `subject`, RGBA PNG in base64"
    )
    timings_ms: dict[str, float] = Field(
        description="by stage: fetch (of a `url`), decode_wait, decode, text (beside the others), queue, "
        "predict, classify, encode_wait, encode; and total",
        examples=[{"decode": 21.5, "queue": 0.1, "predict": 812.0, "encode": 9.3}],
    )
