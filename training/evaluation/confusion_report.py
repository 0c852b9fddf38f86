"""What was taken for what: the confusion of a data set as a table for other programs and as a picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.storage.files import replace_text
from training.evaluation.metrics import Confusion
from training.evaluation.pictures import FONT_SIZE, GAP, INK, PAPER, Picture, caption_font, save_picture

CSV, PICTURE = "confusion.csv", "confusion.png"
MATRIX_SIDE = 1200  # pixels of the matrix, at most but for one a class
LARGEST_CELL = 40
FULL = np.array([24, 78, 149], dtype=np.float64)  # colour of a share of 1; of 0 it is the paper's
LEAST_SHOWN = 0.005  # share that a cell's number is written from


def write_confusion(folder: Path, confusion: Confusion, names: Sequence[str]) -> tuple[Path, Path]:
    """Writes the counts as CSV and the shares as a picture.

    Args:
        folder: is made.
        confusion: of K classes.
        names: of them.

    Returns:
        The table and the picture.

    Raises:
        OSError: the disk did not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / CSV, as_csv(confusion, names))
    save_picture(folder / PICTURE, as_picture(confusion, names))
    return folder / CSV, folder / PICTURE


def as_csv(confusion: Confusion, names: Sequence[str]) -> str:
    """A row for each class of the truth, a column for each that was predicted; pixels."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["truth", *names])
    for name, row in zip(names, confusion.counts.tolist(), strict=True):
        table.writerow([name, *row])
    return text.getvalue()


def as_picture(confusion: Confusion, names: Sequence[str]) -> Picture:
    """A cell for each pair of classes, the darker the larger the share of the row's class.

    Rows and columns are the classes that the truth or the prediction holds. Names and percents stand where
    there is room for them.
    """
    here = np.flatnonzero(confusion.present | (confusion.counts.sum(0) > 0))
    shares = confusion.counts[np.ix_(here, here)] / np.maximum(confusion.pixels[here, None], 1)
    cell = int(np.clip(MATRIX_SIDE // max(1, len(here)), 1, LARGEST_CELL))
    named = cell >= FONT_SIZE
    shown = [names[int(k)] for k in here] if named else []
    margin = GAP + (max((round(caption_font().getlength(name)) for name in shown), default=0) if named else 0)
    side = cell * len(here)
    canvas = Image.new("RGB", (margin + side + 2 * GAP, margin + side + 2 * GAP), PAPER)
    colours = shares[..., None] * FULL + (1 - shares[..., None]) * np.array(PAPER)
    matrix = np.repeat(np.repeat(colours.round().astype(np.uint8), cell, 0), cell, 1)
    if side:
        canvas.paste(Image.fromarray(matrix), (margin + GAP, margin + GAP))
    draw = ImageDraw.Draw(canvas)
    for k, name in enumerate(shown):
        middle = margin + GAP + k * cell + cell // 2
        draw.text((margin, middle), name, fill=INK, font=caption_font(), anchor="rm")
        _upward(canvas, name, middle, margin)
    if cell >= 2 * FONT_SIZE:
        _percents(draw, shares, margin + GAP, cell)
    return np.asarray(canvas)


def _upward(canvas: Image.Image, text: str, middle: int, bottom: int) -> None:
    """A text that runs from below upwards, above a column."""
    strip = Image.new("RGB", (max(1, round(caption_font().getlength(text))), FONT_SIZE + 4), PAPER)
    ImageDraw.Draw(strip).text((0, 0), text, fill=INK, font=caption_font())
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    canvas.paste(turned, (middle - turned.width // 2, bottom - turned.height))


def _percents(draw: ImageDraw.ImageDraw, shares: NDArray[np.float64], start: int, cell: int) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= LEAST_SHOWN:
            place = (start + column * cell + cell // 2, start + row * cell + cell // 2)
            colour = PAPER if share > 0.5 else INK
            draw.text(place, f"{100 * share:.0f}", fill=colour, font=caption_font(), anchor="mm")
