"""What is sent: a picture in any form that Python has, and the request's document."""

import dataclasses
import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ebseg_client.errors import InputError
from ebseg_client.regions import RegionOptions

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


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """A picture that the service fetches by itself, from a host or bucket that its settings list.

    Attributes:
        url: http://, https://, s3:// or gs://.
    """

    url: str


Sent = bytes | PictureUrl  # a picture as it is sent
Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | PictureUrl
"""A file's path, a file's content, the pixels, uint8 [H, W], [H, W, 3] RGB or [H, W, 4] RGBA, or its URL."""

_SHAPES = "uint8 [H, W], [H, W, 3] or [H, W, 4]"
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})  # that PNG takes as they are


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class to look for.

    Attributes:
        name: what the model looks for.
        synonyms: further words for it, which the model looks for as well; with the name they decide whether
            it counts as trained.
        trained: says so instead of the words.
        color: "#rrggbb" in pictures; chosen by the service if left out.
        threshold: pixels of this class with a lower confidence, 0..1, become "other".
        ignore: the class competes for every pixel and is not answered; what it wins is "other".
    """

    name: str
    synonyms: Sequence[str] = ()
    trained: bool | None = None
    color: str | None = None
    threshold: float | None = None
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the three embeddings; they add up to 1."""

    supervised: float
    mask_attention: float
    frozen: float


@dataclass(frozen=True, slots=True)
class Balance:
    """How trained and new classes are balanced: a mean, and the weights of both kinds or of none."""

    mean: Literal["geometric", "arithmetic"]
    trained: Shares | None = None
    new: Shares | None = None


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles that a large picture is segmented in.

    Attributes:
        size: of a tile's sides, pixels of the picture.
        overlap: pixels that neighbours share at least; chosen by the service if left out.
    """

    size: int
    overlap: int | None = None


Classes = Sequence[str | ClassSpec]


class SegmentOptions(TypedDict, total=False):
    """Options of a segmentation; left out, the service decides.

    Attributes:
        vocabulary: name of a stored class list, instead of classes; "auto": whatever is seen.
        templates: "vild", "imagenet", "plain", or sentences of your own, each with one "{}".
        synonym_mode: a class with synonyms is as likely as its "best" word, or as the "mean" of its words.
        balance: instead of the checkpoint's.
        background: pixels of a lower confidence, 0..1, become "other", label 0; "none": every pixel gets a
            class; left out, the threshold of the model's card holds.
        outputs: parts of the answer; ("rle",) if left out, which is enough for `labels` and masks.
        regions: which regions, where outputs has "regions", "coco", "panoptic" or "geojson".
        subject: name of the class that "soft_mask" and "cutout" show; may be left out if there is only one.
        palette: colours of classes without one: "distinct", "voc", or "#rrggbb" for labels 1, 2, ...
        tiling: segments large pictures in tiles, at their own resolution.
        long_side: of the maps, pixels; else they have the picture's size.
        model, version: which of the loaded ones.
        frame: of an animation, or page of a document, from 0; the first one if left out.
        timeout: of the whole call, seconds, instead of the client's.
    """

    vocabulary: str | None
    templates: str | Sequence[str] | None
    synonym_mode: Literal["best", "mean"] | None
    balance: Balance | None
    background: float | Literal["none"] | None
    outputs: Collection[Output] | None
    regions: RegionOptions | None
    subject: str | None
    palette: str | Sequence[str] | None
    tiling: Tiling | None
    long_side: int | None
    model: str | None
    version: int | None
    frame: int | None
    timeout: float | None


def request_document(classes: Classes | None, options: SegmentOptions) -> dict[str, Any]:
    """The document of a request, without its time.

    Raises:
        InputError: neither classes nor a vocabulary, both, or a wrong option.
    """
    unknown = sorted(set(options) - SegmentOptions.__annotations__.keys())
    if unknown:
        meant = "; did you mean background?" if "threshold" in unknown else ""
        raise InputError(f"there is no option {', '.join(unknown)}{meant}")
    if (classes is None) == (options.get("vocabulary") is None):
        raise InputError("give either classes or a vocabulary")
    document: dict[str, Any] = {
        name: options.get(name)
        for name in (
            "vocabulary",
            "templates",
            "synonym_mode",
            "subject",
            "palette",
            "model",
            "version",
            "frame",
        )
    }
    if classes is not None:
        document["classes"] = class_documents(classes)
    if (balance := options.get("balance")) is not None:
        if not isinstance(balance, Balance):
            raise InputError(f"a balance is a Balance, got {type(balance).__name__}")
        kinds = {"trained": balance.trained, "new": balance.new}
        document["balance"] = {"mean": balance.mean} | {
            kind: {
                "supervised": shares.supervised,
                "mask_attention": shares.mask_attention,
                "frozen": shares.frozen,
            }
            for kind, shares in kinds.items()
            if shares is not None
        }
    if (background := options.get("background")) not in (None, "none"):
        document["background"] = {"threshold": background}
    if (outputs := options.get("outputs")) is not None:
        if isinstance(outputs, str | bytes):
            raise InputError('outputs are a list, as in ["rle", "png"]')
        document["outputs"] = sorted(outputs)
    if (regions := options.get("regions")) is not None:
        if not isinstance(regions, RegionOptions):
            raise InputError(f"regions are RegionOptions, got {type(regions).__name__}")
        document["regions"] = dataclasses.asdict(regions)
    if (tiling := options.get("tiling")) is not None:
        if not isinstance(tiling, Tiling):
            raise InputError(f"tiling is a Tiling, got {type(tiling).__name__}")
        document["tiling"] = dataclasses.asdict(tiling)
    if (long_side := options.get("long_side")) is not None:
        document["output_size"] = {"long_side": long_side}
    given = {name: value for name, value in document.items() if value is not None}
    return given | ({"background": None} if background == "none" else {})


def class_documents(classes: Classes) -> list[str | dict[str, Any]]:
    """Classes as the service reads them.

    Raises:
        InputError: a single text, whose letters would be taken for classes, or something else.
    """
    if isinstance(classes, str | bytes | Mapping):
        raise InputError('classes are a list of names, as in ["sky", "tree"]')
    return [_class_document(entry) for entry in classes]


def _class_document(entry: str | ClassSpec) -> str | dict[str, Any]:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, ClassSpec):
        raise InputError(f"a class is a name or a ClassSpec, got {type(entry).__name__}")
    document: dict[str, Any] = {"name": entry.name}
    if entry.synonyms:
        document["synonyms"] = list(entry.synonyms)
    if entry.trained is not None:
        document["trained"] = entry.trained
    if entry.color is not None:
        document["color"] = entry.color
    if entry.threshold is not None:
        document["threshold"] = entry.threshold
    if entry.ignore:
        document["ignore"] = True
    return document


def sent(picture: Picture) -> Sent:
    """A picture as it is sent: its bytes, see `picture_bytes`, or where it is.

    Raises:
        InputError: it cannot be read, or is no picture.
    """
    if not isinstance(picture, PictureUrl):
        return picture_bytes(picture)
    if not isinstance(picture.url, str) or not picture.url:
        raise InputError(f"an image's URL is a text, got {picture.url!r}")
    return picture


def picture_bytes(picture: Picture) -> bytes:
    """The content of a picture file: as it is for paths and bytes, PNG for pixels.

    Raises:
        InputError: it cannot be read, or is no picture.
    """
    match picture:
        case bytes():
            return picture
        case Image.Image():
            return _png(picture if picture.mode in _MODES else picture.convert("RGB"))
        case np.ndarray():
            if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.size == 0:
                raise InputError(f"pixels are {_SHAPES}, got {picture.dtype} {list(picture.shape)}")
            if picture.ndim == 3 and picture.shape[2] not in (3, 4):
                raise InputError(f"pixels are {_SHAPES}, got {list(picture.shape)}")
            return _png(Image.fromarray(np.ascontiguousarray(picture)))
        case PictureUrl():
            raise InputError("an image that the service fetches is not here: give its file or its pixels")
        case str() | os.PathLike():
            try:
                return Path(picture).read_bytes()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                meant = ": a URL goes in as PictureUrl(...)" if "://" in str(picture) else ""
                raise InputError(f"{picture} cannot be read: {reason}{meant}") from None
    raise InputError(f"an image is a path, bytes, a Pillow image or an array, got {type(picture).__name__}")


def picture_pixels(picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture's pixels, upright, RGB, uint8 [H, W, 3], at a size (width, height).

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(picture_bytes(picture))) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"the image cannot be drawn on: {error}") from None
    return np.asarray(upright if upright.size == size else upright.resize(size, Image.Resampling.LANCZOS))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # the fastest compression: the file lives for one request
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
