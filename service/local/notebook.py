"""`ebseg.load`: a model for notebooks and scripts, without a server."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import CheckpointError
from model.fetch.resolve import local_folder_of
from model.storage.manifest import MANIFEST
from model.storage.versions import version_number
from model.vocabulary.classes import Vocabulary
from service.errors import UsageError
from service.local.model import LocalModel, load_local, picture_result
from service.local.picture_result import read
from service.local.result import SegmentedPicture
from service.options import MAX_PIXELS
from service.scheduling.engine import ModelInfo
from service.segmentation.decode import decode, from_pillow
from service.segmentation.requested import read_request, requested_vocabulary
from service.settings import DEVICES, Settings, SettingsError

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
"""A file's path, its content, an open file, or pixels: uint8 [H, W], [H, W, 3] RGB or [H, W, 4] RGBA."""

Classes = str | Sequence[str | Mapping[str, Any]]
"""Names, or mappings as of the HTTP API (name, synonyms, trained, color, threshold, ignore), or the name of a
built-in list."""

Default = Literal["default"]
SynonymMode = Literal["best", "mean"]
DTYPES = get_args(Settings.model_fields["dtype"].annotation)


class NotebookModel:
    """A checkpoint that segments pictures; several threads may use it, one picture is segmented at a time.

    Attributes:
        folder: the checkpoint's.
    """

    def __init__(self, model: LocalModel, folder: Path):
        self._model = model
        self.folder = folder

    @property
    def info(self) -> ModelInfo:
        """Name, version, digest, device and dtype."""
        return self._model.engine.info

    def segment(
        self,
        picture: Picture,
        classes: Classes,
        *,
        templates: str | Sequence[str] | None = None,
        synonym_mode: SynonymMode | None = None,
        background: float | Default | None = "default",
        size: int | None = None,
        tiling: int | tuple[int, int] | None = None,
    ) -> SegmentedPicture:
        """Finds classes in a picture.

        Other classes on the same picture, and the same classes on another one, take less time.

        Args:
            picture: see `Picture`; turned upright by its EXIF data, alpha laid on white.
            classes: see `Classes`.
            templates: "vild" (also if left out), "imagenet", "plain", or sentences, each with one "{}".
            synonym_mode: a class with synonyms is as likely as its "best" word (also if left out), or as the
                "mean" of its words.
            background: pixels of a lower confidence, 0..1, become "other", label 0; None gives every pixel
                a class; "default" is what the service does with a request that says nothing of it.
            size: long side of the maps, pixels; left out, they have the picture's size.
            tiling: segments in tiles, at the picture's own resolution: their side, or side and overlap, in
                pixels.

        Raises:
            UsageError: an argument that cannot be used, or a file that cannot be read.
            ServiceError: a picture that is broken or too large.
            ModelError: classes that the model cannot take.
        """
        began = time.perf_counter()
        spec = read_request(_document(classes, templates, synonym_mode, background, size, tiling))
        vocabulary = requested_vocabulary(spec)
        remarks: list[str] = []
        pixels = _pixels(picture, remarks.append)
        decoded = time.perf_counter()
        result = self._model.segment(pixels, spec, vocabulary, max_pixels=MAX_PIXELS)
        seconds = {"decode": decoded - began, **result.seconds}
        made = picture_result(
            self._model,
            spec,
            vocabulary,
            result,
            picture=pixels,
            seconds=seconds,
            began=began,
            remarks=remarks,
        )
        return SegmentedPicture(made)

    def __repr__(self) -> str:
        info = self.info
        untrained = ", untrained" if info.untrained else ""
        return f"<EBSeg {info.name}/{info.version} on {info.device} in {info.dtype}{untrained}>"


def load(name: str | os.PathLike[str], *, device: str = "auto", dtype: str = "float32") -> NotebookModel:
    """Loads a checkpoint; see `ebseg.load`."""
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"a checkpoint is a name or a folder, got {type(name).__name__}")
    if not isinstance(device, str) or re.fullmatch(DEVICES, device) is None:
        raise SettingsError(f'device must be "auto", "cpu", "cuda" or "cuda:N", got {device!r}')
    if dtype not in DTYPES:
        raise SettingsError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {dtype!r}")
    folder = find_checkpoint(os.fspath(name))
    return NotebookModel(load_local(folder, device=device, dtype=dtype), folder)


def find_checkpoint(name: str) -> Path:
    """The version folder that a name or a path stands for; of a folder of versions the newest.

    Raises:
        CheckpointError: there is none; the message tells how to get one.
    """
    found = local_folder_of(name)
    if not isinstance(found, Path):
        raise CheckpointError(f"{name} is not here: `ebseg pull {name}` fetches it into {found.directory}")
    if (found / MANIFEST).exists():
        return found
    versions = {version_number(path.parent.name) or 0: path.parent for path in found.glob(f"*/{MANIFEST}")}
    versions.pop(0, None)
    if not versions:
        raise CheckpointError(f"{found} has neither a {MANIFEST} nor versions with one: it is no checkpoint")
    return versions[max(versions)]


def _document(
    classes: Classes,
    templates: str | Sequence[str] | None,
    synonym_mode: SynonymMode | None,
    background: float | Default | None,
    size: int | None,
    tiling: int | tuple[int, int] | None,
) -> dict[str, Any]:
    """The request that the arguments stand for; what is left out is left to the service's defaults."""
    document: dict[str, Any] = {}
    if isinstance(classes, str):
        if classes not in Vocabulary.builtin_names():
            raise UsageError(
                f"there is no built-in class list {classes!r}, known are "
                f"{', '.join(Vocabulary.builtin_names())}; names go into a list, as [{classes!r}]"
            )
        document["vocabulary"] = classes
    elif isinstance(classes, Sequence) and not isinstance(classes, bytes):
        document["classes"] = [dict(one) if isinstance(one, Mapping) else one for one in classes]
        if not document["classes"]:
            raise UsageError("classes: there must be at least one")
    else:
        raise UsageError(
            "classes must be a list of names, or the name of a built-in class list such as ade20k-150, "
            f"got {type(classes).__name__}"
        )
    if templates is not None:
        document["templates"] = templates if isinstance(templates, str) else list(templates)
    if synonym_mode is not None:
        document["synonym_mode"] = synonym_mode
    if background != "default":
        document["background"] = None if background is None else {"threshold": background}
    if size is not None:
        document["output_size"] = {"long_side": size}
    if tiling is not None:
        numbers = tiling if isinstance(tiling, tuple) else (tiling,)
        if len(numbers) not in (1, 2):
            raise UsageError(f"tiling: is a side, or a side and an overlap, in pixels, got {tiling!r}")
        document["tiling"] = dict(zip(("size", "overlap"), numbers, strict=False))
    return document


def _pixels(picture: Picture, remark: Callable[[str], None]) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3], no memory of the caller's."""
    if isinstance(picture, Image.Image):
        return from_pillow(picture, max_pixels=MAX_PIXELS, remark=remark)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, str | os.PathLike):
        picture = read(Path(picture))
    elif hasattr(picture, "read"):
        picture = picture.read()
    if not isinstance(picture, bytes | bytearray | memoryview):
        raise UsageError(
            "an image is a path, bytes, a file opened in binary mode, a Pillow image or an array, "
            f"got {type(picture).__name__}"
        )
    return decode(bytes(picture), max_pixels=MAX_PIXELS, remark=remark)


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    grey, channels = array.ndim == 2, array.shape[2] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or not (grey or channels in (3, 4)) or not array.size:
        raise UsageError(
            "an image as an array is uint8 [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGBA), "
            f"got {array.dtype} {list(array.shape)}"
        )
    return from_pillow(Image.fromarray(np.ascontiguousarray(array)), max_pixels=MAX_PIXELS)
