"""What goes in and what comes out, as JSON.

A multipart request carries the same document in its part `request`; with `application/json` the picture
is one more field. Unknown fields are errors.
"""

from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from model.confidence.background import BackgroundRule, Source, asked, of_card
from model.confidence.card import Card
from model.confidence.caution import Code
from model.errors import ModelError
from model.vocabulary.classes import Vocabulary
from model.vocabulary.templates import SETS, resolve
from service.schemas.classes import ClassList, Strict

Output = Literal["rle", "png", "overlay", "polygons", "npy", "scores"]
LAST_FRAME = 9999
LONGEST_SIDE = 16_384  # pixels; the number of pixels has its own limit among the settings


class WeightShares(Strict):
    """Shares of the three embeddings; they add up to 1."""

    supervised: float = Field(
        ge=0, le=1, description="of the fully supervised embedding, A in the paper", examples=[0.2]
    )
    mask_attention: float = Field(
        ge=0, le=1, description="of the mask attention embedding, B in the paper", examples=[0.7]
    )
    frozen: float = Field(ge=0, le=1, description="of the frozen embedding, D in the paper", examples=[0.1])

    @model_validator(mode="after")
    def _whole(self) -> Self:
        from model.network.balance import Weights

        try:
            Weights(**self.model_dump())
        except ModelError as error:
            raise ValueError(str(error)) from None
        return self


class BalanceSpec(Strict):
    """How trained and new classes are balanced: a mean, and either both weights or that mean's own."""

    mean: Literal["geometric", "arithmetic"] = Field(
        description="geometric: of the class probabilities; arithmetic: of the embeddings"
    )
    trained: WeightShares | None = Field(default=None, description="for classes that count as trained")
    new: WeightShares | None = Field(default=None, description="for all other classes")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.trained is None) != (self.new is None):
            raise ValueError("give the weights of both, trained and new, or of neither")
        return self


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


def _size(value: Any) -> Any:
    if value in (None, "image"):
        return None
    if isinstance(value, dict | LongSide):
        return value
    raise ValueError('must be "image" or {"long_side": pixels}')


class SegmentRequest(Strict):
    """What to look for in the picture, and what to answer with."""

    model_config = ConfigDict(
        json_schema_extra={
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
            ]
        }
    )

    classes: ClassList | None = Field(
        default=None,
        description="names, or objects with a name; or names in a text, with commas between; no two differ "
        "by case only; or give `vocabulary`",
    )
    vocabulary: str | None = Field(
        default=None, description="name of a stored class list, instead of `classes`"
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
        default=None, min_length=1, max_length=6, description='parts of a JSON answer; ["rle"] if left out'
    )
    output_size: Annotated[LongSide | None, BeforeValidator(_size, Literal["image"] | LongSide)] = Field(
        default=None, description="size of the answer's maps", json_schema_extra={"default": "image"}
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
        description="time for the answer from the request's first byte on, waiting included, ms; above the "
        "service's limit it is lowered, and a warning says so",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.classes is None) == (self.vocabulary is None):
            raise ValueError("give either classes or vocabulary")
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
    version: int = Field(description="the one that answered, or that answers now", examples=[1])
    digest: str = Field(description="identity of the weights, hexadecimal")
    untrained: bool = Field(description="the weights are random; the masks mean nothing")


class Rle(BaseModel):
    """A mask as COCO's compressed run lengths; pycocotools reads them.

    The runs go down the columns, from the left one to the right one; they are outside and inside of the
    mask by turns, and the first, which may be 0, is outside. Each is written as a number: the first three
    as they are, every later one minus the run two before it. A number is cut into groups of five bits, in
    two's complement and the lowest first, until the rest is only sign; a group is the character of code
    48 + bits, and 32 more if another group of the number follows.
    """

    size: list[int] = Field(description="[height, width]", examples=[[2, 3]])
    counts: str = Field(description="the run lengths", examples=["2111"])


class CornerArray(Protocol):
    """Integers [N, 2], as NumPy has them; lists of a million corners would cost more than all else."""

    def tolist(self) -> list[list[int]]:
        """The same as lists."""


def _listed(ring: CornerArray) -> list[list[int]]:
    return ring.tolist()


Ring = Annotated[
    CornerArray, PlainValidator(lambda ring: ring), PlainSerializer(_listed, return_type=list[list[int]])
]


class Polygon(BaseModel):
    """One region: rings of [x, y] corners along the pixels' edges, filled by the even-odd rule."""

    exterior: Ring = Field(
        description="the outer ring; [0, 0] is the picture's upper left corner, and the last corner is "
        "joined to the first",
        examples=[[[1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 0]]],
    )
    holes: list[Ring] = Field(description="rings around what is left out")


class ClassAnswer(BaseModel):
    """One class of the answer, in the order of the request."""

    name: str = Field(description="as it was asked for", examples=["tree"])
    label: int = Field(description="its value in label maps", examples=[2])
    color: str = Field(description="in palettes and overlays, #rrggbb", examples=["#2e8b57"])
    trained: bool = Field(description="whether it counted as trained")
    area: int = Field(description="pixels")
    fraction: float = Field(description="of all pixels, 0..1")
    mean_confidence: float | None = Field(description="over its pixels, 0..1; null if it has none")
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
    """A reason to doubt an answer."""

    code: Code = Field(
        description="untrained: the weights are random; unknown-words: the model does not know words that "
        "were asked for; unlike-its-domain: it is less sure of the picture than of nearly all that it is "
        "for; lowered-timeout: the request asked for more time than it had; colour-profile: the "
        "picture's own is broken and was not used",
        examples=["unknown-words"],
    )
    message: str = Field(description="what is doubtful, and what to do about it, a sentence")


class CacheAnswer(BaseModel):
    """Where text embeddings and the picture's prediction came from."""

    text: str = Field(
        description="l1: this process, l2: Redis, embedded: computed now, joined: computed for another one",
        examples=["l1"],
    )
    prediction: str = Field(description="hit: the network had seen the picture, or miss", examples=["miss"])


class SegmentAnswer(BaseModel):
    """The mask, by class. Parts that were not asked for are left out."""

    request_id: str = Field(description="the same as in the header X-Request-ID")
    size: Size = Field(description="of the maps below")
    model: ModelAnswer = Field(description="what answered")
    warnings: list[WarningAnswer] | None = Field(
        default=None, description="what to know before trusting this answer; left out if there is nothing"
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
        description="label map as PNG in base64: a palette picture in the classes' colours; 16-bit grey for "
        "more than 255 classes",
    )
    overlay: str | None = Field(default=None, description="picture under its mask, WebP in base64")
    npy: str | None = Field(default=None, description="label map, uint16 [H, W], .npy in base64")
    scores: str | None = Field(
        default=None,
        description="class scores, float16 [K, H, W], .npy in base64. The largest of a pixel decides its "
        "class; divided by the sum of all K, if that is above 1, it is the confidence",
    )
    timings_ms: dict[str, float] = Field(
        description="by stage: decode_wait, decode, text (beside the others), queue, predict, classify, "
        "encode_wait, encode; and total",
        examples=[{"decode": 21.5, "queue": 0.1, "predict": 812.0, "encode": 9.3}],
    )


class FieldError(BaseModel):
    """One wrong field."""

    field: str = Field(description="its path in the request; lists count from 0", examples=["classes.3"])
    message: str = Field(description="what is wrong with it", examples=["class 3 has an empty name"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(
        description="urn:ebseg:problem: and a word by which programs tell errors apart; each operation "
        "lists the words of its errors",
        examples=["urn:ebseg:problem:too-many-pixels"],
    )
    title: str = Field(description="the type in words", examples=["The picture is too large"])
    status: int = Field(description="the answer's HTTP status", examples=[413])
    detail: str = Field(description="what is wrong this time, and what to do about it")
    request_id: str = Field(description="the same as in X-Request-ID; the service's log has it, too")
    errors: list[FieldError] | None = Field(default=None, description="field by field, for invalid requests")
