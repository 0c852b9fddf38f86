"""What `ebseg.load(...).segment(...)` gives: maps, classes, pictures."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebseg_client.results import AnswerWarning, FoundClass, ModelVersion, Share, UsedBackground
from model.storage.files import replacing
from service.errors import UsageError
from service.local.picture_result import PictureResult
from service.segmentation.encode import npy
from service.segmentation.sheet import contact_sheet

SHOWN = 12  # classes in the text form
Kind = Literal["labels", "overlay", "sheet"]
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Masks(Mapping[str, NDArray[np.bool_]]):
    """Class names to masks, bool [H, W], each made when it is asked for."""

    def __init__(self, labels: NDArray[np.uint16], numbers: Mapping[str, int]):
        self._labels, self._numbers = labels, numbers

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self._labels == self._numbers[name]
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Masks({', '.join(self._numbers)})"


class SegmentedPicture:
    """A segmented picture. A notebook shows it beside its overlay, with a legend.

    Args:
        found: what was found in it.
    """

    def __init__(self, found: PictureResult):
        self._found = found

    @property
    def label_map(self) -> NDArray[np.uint16]:
        """[H, W]: 0 is "other", k the k-th class."""
        return self._found.labels

    @property
    def classes(self) -> tuple[FoundClass, ...]:
        """All that were asked for, in their order: name, color, area, fraction, confidence, trained."""
        return self._found.answer.classes

    @property
    def found(self) -> tuple[FoundClass, ...]:
        """The classes that have pixels, largest first."""
        return self._found.answer.found

    @cached_property
    def masks(self) -> Masks:
        """The mask of each class by its name, bool [H, W]."""
        return Masks(self.label_map, {one.name: one.label for one in self.classes})

    @property
    def other(self) -> Share | None:
        """Pixels that belong to no class; None if every pixel had to get one."""
        return self._found.answer.other

    @property
    def background(self) -> UsedBackground:
        """Which threshold made pixels "other", and whether the call or the checkpoint's card said so."""
        return self._found.answer.background

    @property
    def model(self) -> ModelVersion:
        """What segmented it."""
        return self._found.answer.model

    @property
    def warnings(self) -> tuple[AnswerWarning, ...]:
        """What to know before trusting it, each with a code and a message."""
        return self._found.answer.warnings

    @cached_property
    def overlay(self) -> Image.Image:
        """The picture under its mask, RGB, of the label map's size."""
        return Image.fromarray(self._found.overlay())

    @cached_property
    def sheet(self) -> Image.Image:
        """Picture and overlay side by side, and what the colours mean."""
        return contact_sheet([self._found.entry(self._title)])

    def save(self, path: str | os.PathLike[str], kind: Kind = "labels") -> None:
        """Writes one of its pictures, whole or not at all.

        Args:
            path: a file that ends in .png, .jpg or .webp; labels only in .png (indexed, in the classes'
                colours) or .npy (uint16).
            kind: "labels", "overlay" or "sheet".

        Raises:
            UsageError: another kind or ending, or the file cannot be written.
        """
        target = Path(path)
        forms: dict[str, Callable[[], bytes]]
        if kind == "labels":
            forms = {".png": self._found.mask, ".npy": lambda: npy(self.label_map)}
        elif kind in ("overlay", "sheet"):
            image = self.overlay if kind == "overlay" else self.sheet
            forms = {suffix: _Encoded(image, form) for suffix, form in _PICTURES.items()}
        else:
            raise UsageError(f'there are "labels", "overlay" and "sheet" to save, not {kind!r}')
        if target.suffix.lower() not in forms:
            raise UsageError(f"{target}: {kind} are written as {', '.join(forms)}")
        content = forms[target.suffix.lower()]()
        try:
            with replacing(target) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise UsageError(f"{target} cannot be written: {error.strerror or error}") from None

    @property
    def _title(self) -> str:
        height, width = self.label_map.shape
        return f"{width} x {height}, {self.model.name}/{self.model.version}"

    def _repr_png_(self) -> bytes:
        return _Encoded(self.sheet, "PNG")()

    def __repr__(self) -> str:
        lines = [f"<SegmentedPicture {self._title}>"]
        for one in self.found[:SHOWN]:
            known = "trained" if one.trained else "new"
            lines.append(f"  {one.fraction:6.1%}  {one.name} (confidence {one.confidence:.2f}, {known})")
        if len(self.found) > SHOWN:
            lines.append(f"  and {len(self.found) - SHOWN} more")
        if self.other is not None:
            lines.append(f"  {self.other.fraction:6.1%}  other")
        missing = [one.name for one in self.classes if not one.area]
        if missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            lines.append(f"  not found: {', '.join(missing[:SHOWN])}{more}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


class _Encoded:
    """A picture to the bytes of a file."""

    def __init__(self, image: Image.Image, form: str):
        self._image, self._form = image, form

    def __call__(self) -> bytes:
        buffer = BytesIO()
        options: dict[str, Any] = {"quality": 90} if self._form != "PNG" else {}
        try:
            self._image.save(buffer, self._form, **options)
        except (ValueError, OSError) as error:  # a side too long for the format
            raise UsageError(f"this cannot be written as {self._form}, take .png: {error}") from None
        return buffer.getvalue()
