"""Pictures that are too large to be held with their label map: read by parts, answered band by band."""

import tempfile
import time
from typing import BinaryIO

import numpy as np

from model.errors import PictureError
from model.pictures.windows import PictureParts
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.errors import UsageError
from service.local.model import LocalModel, picture_result
from service.local.picture_result import PictureResult
from service.scheduling.engine import EngineResult
from service.scheduling.host_memory import decoding_bytes, usable
from service.schemas.segment import AUTO_VOCABULARY, SegmentRequest
from service.segmentation.counted import BandCounts
from service.segmentation.render import MOST_PALETTE_CLASSES, Labels

MOST_LARGE_PIXELS = 300_000_000
MOST_LARGE_TILES = 20_000


def check_large(spec: SegmentRequest, *, pictures: bool) -> None:
    """Raises UsageError if a request needs all of a label map, or the picture, at a time."""
    further = sorted(set(spec.outputs or ()) - {"rle"}) + (["overlays"] if pictures else [])
    if spec.vocabulary == AUTO_VOCABULARY:
        further.append("vocabulary auto")
    if further:
        raise UsageError(
            f"an image above max_pixels is answered with its label map and table alone, without "
            f"{', '.join(further)}"
        )


def check_room(size: tuple[int, int], apart: int) -> None:
    """Raises UsageError if a picture that cannot be read by parts does not fit into the memory that is free.

    Args:
        size: rows and columns.
        apart: bytes that decoding takes in another process.
    """
    needed, free = decoding_bytes(size[0] * size[1]) + apart, usable()
    if needed > free:
        raise UsageError(
            f"{size[1]} x {size[0]} pixels of this format are decoded at once, which takes about "
            f"{needed >> 20} MiB of memory, of which {free >> 20} are to be had; TIFFs of 8-bit grey or "
            "RGB are read by parts, with the extra geo of ebseg"
        )


def segment_large(
    model: LocalModel,
    parts: PictureParts,
    spec: SegmentRequest,
    vocabulary: Vocabulary,
    *,
    seconds: float,
    remarks: tuple[str, ...] = (),
) -> PictureResult:
    """A picture in tiles, whose label map lies in a temporary file. The answer has no run lengths.

    Args:
        model: of this process.
        parts: the picture.
        spec, vocabulary: the request, whose `tiling` is given.
        seconds: that reading it took so far.
        remarks: what decoding left out of account.

    Raises:
        UsageError: there would be too many tiles, or there is no room for the label map.
    """
    assert spec.tiling is not None
    began = time.perf_counter() - seconds
    layout = TileLayout(parts.size, parts.size, spec.tiling.for_model())
    try:
        layout.check(MOST_LARGE_TILES)
    except PictureError as error:
        raise UsageError(f"tiling: {error}") from None
    counts = BandCounts(len(vocabulary.reported))
    kind = np.uint8 if len(vocabulary.reported) <= MOST_PALETTE_CLASSES else np.uint16
    spent = {"decode": seconds, "predict": 0.0, "text": 0.0, "classify": 0.0}
    trained: list[bool] = []
    own: list[float] = []
    try:
        with tempfile.TemporaryFile() as file:
            for rows, band in model.bands(parts.read, layout, spec, vocabulary):
                counts.add(rows.start, band.labels, band.confidence)
                file.write(band.labels.astype(kind).data)
                trained = band.trained
                own += [] if band.own is None else [band.own]
                for stage, value in band.seconds.items():
                    spent[stage] += value
            file.flush()
            labels = _mapped(file, kind, parts.size)
    except OSError as error:
        raise UsageError(
            f"the label map cannot be kept in {tempfile.gettempdir()}: {error.strerror}"
        ) from None
    result = EngineResult(
        labels=labels,
        confidence=np.empty((0, 0), np.float32),
        scores=None,
        trained=trained,
        own=sum(own) / len(own) if own else None,
    )
    return picture_result(
        model,
        spec,
        vocabulary,
        result,
        picture=None,
        seconds=spent,
        began=began,
        remarks=remarks,
        counted=counts.counts(),
    )


def _mapped(file: BinaryIO, kind: type[np.uint8] | type[np.uint16], size: tuple[int, int]) -> Labels:
    """A file's content as an array; the file goes when the array does."""
    return np.memmap(file, kind, "r", shape=size)  # uint8 where that is enough
