"""What was found in a picture of `ebseg segment`, wherever it was segmented, and the files made of it."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebseg_client import Segmentation, drawing
from service.errors import UsageError
from service.local.georeference import geo_tags
from service.segmentation import render
from service.segmentation.sheet import SheetEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureResult:
    """A segmented picture.

    Attributes:
        answer: as the client hands it out.
        document: what the service answers, as JSON values.
        labels: uint16 [H, W], 0 is "other", k the k-th class.
        picture: RGB, uint8 [H, W, 3]; None if no overlay is wanted.
    """

    answer: Segmentation
    document: dict[str, Any]
    labels: NDArray[np.uint16]
    picture: NDArray[np.uint8] | None

    def mask(self) -> bytes:
        """The label map as indexed PNG."""
        return render.label_png(self.labels, [item.name for item in self.answer.classes], self._colors())

    def write_mask(self, path: Path, source: Path, form: Literal["PNG", "TIFF"]) -> None:
        """Writes the label map; a TIFF with the georeference of the picture's file, if that has one.

        Raises:
            UsageError: the georeference is of other pixels.
        """
        names = [item.name for item in self.answer.classes]
        tags = geo_tags(source, (self.labels.shape[0], self.labels.shape[1])) if form == "TIFF" else {}
        with path.open("wb") as file:
            render.write_labels(file, form, self.labels, names, self._colors(), tags)

    def overlay(self) -> NDArray[np.uint8]:
        """The picture under its mask, RGB, uint8 [H, W, 3]."""
        if self.picture is None:
            raise ValueError("the image was not kept")
        names = [item.name for item in self.answer.classes]
        return drawing.overlay(self.picture, self.labels, self._colors(), names=names)

    def entry(self, title: str) -> SheetEntry:
        """The picture on a contact sheet."""
        if self.picture is None:
            raise ValueError("the image was not kept")
        classes = [
            (item.name + ("" if item.trained else " (new)"), item.color, item.fraction)
            for item in self.answer.classes
        ]
        return SheetEntry.of(title, Image.fromarray(self.picture), Image.fromarray(self.overlay()), classes)

    def _colors(self) -> NDArray[np.uint8]:
        return drawing.rgb_of([item.color for item in self.answer.classes])


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of a file: one of the two is None."""

    file: Path
    found: PictureResult | None
    error: Exception | None

    def get(self) -> PictureResult:
        """What was found.

        Raises:
            Exception: the error instead.
        """
        if self.found is None:
            raise self.error or ValueError("neither found nor failed")
        return self.found


class PictureSegmenter(Protocol):
    """Where pictures are segmented."""

    def segmented(
        self, files: Sequence[Path], *, pictures: bool, parallel: int
    ) -> Generator[FileResult, None, None]:
        """What becomes of each file, in order; a file that fails does not keep the others from going on.

        Args:
            files: pictures.
            pictures: whether they are kept, for overlays.
            parallel: files worked on at a time.

        Raises:
            Exception: no file can be segmented: the checkpoint, the request, the service, its key.
        """


def read(path: Path) -> bytes:
    """A file's content.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
