"""Pictures to look at: picture, truth and prediction side by side, with the colours' names below.

A class has the same colour in every picture, and regions are filled and outlined as the service does it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.pictures.palette import palette
from training.errors import TrainingError

Picture = NDArray[np.uint8]

IGNORED_COLOUR = (228, 228, 228)
WRONG = (214, 39, 40)
PALE = 120  # brightness that is added to half a picture's, where nothing is wrong
PAPER, INK = (255, 255, 255), (40, 40, 40)
FILL = 0.35  # of a class's colour over the picture; outlines are opaque
WIDE = 960  # pixels of a long side; larger pictures get wider outlines

SMALLEST_SIDE = 224  # pixels; smaller pictures are enlarged by a whole factor
GAP = 8
FONT_SIZE = 13
LINE = 19
CHIP = 12

SHEET_WIDTH = 1600  # pixels
SHEET_COLUMNS = 2


def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class by its number; -1 is the colour of ignored pixels."""
    if index < 0:
        return IGNORED_COLOUR
    red, green, blue = palette(64 << ((index + 1) // 64).bit_length())[index].tolist()
    return red, green, blue


def panel(
    picture: Picture,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    names: Sequence[str],
    *,
    errors: bool = False,
) -> Picture:
    """Picture, truth and prediction side by side, and a legend of the classes that either shows.

    Args:
        picture: RGB, [H, W, 3].
        truth, prediction: class indices, -1 where there is none, [H, W].
        names: of the classes.
        errors: show as well where the two differ, in `WRONG`.

    Returns:
        RGB, wider and higher than the picture.

    Raises:
        TrainingError: sizes that differ, or a class without a name.
    """
    labels = {"truth": truth, "prediction": prediction}
    sized = truth.shape == prediction.shape == picture.shape[:2]  # `_tiled` says if not
    wrong = (truth != prediction) & (truth >= 0) if errors and sized else None
    return _tiled(picture, labels, names, (), wrong)


def labelled(
    picture: Picture, labels: NDArray[np.integer], names: Sequence[str], notes: Sequence[str]
) -> Picture:
    """Picture and labels side by side, a legend, and sentences below; as `panel`, but for two sizes.

    Labels of another size than the picture are resized to it.
    """
    if labels.shape != picture.shape[:2]:
        rows, columns = (np.arange(n) * m // n for n, m in zip(picture.shape[:2], labels.shape, strict=True))
        labels = labels[np.ix_(rows, columns)]
    return _tiled(picture, {"labels": labels}, names, notes)


def _tiled(
    picture: Picture,
    labels: Mapping[str, NDArray[np.integer]],
    names: Sequence[str],
    notes: Sequence[str],
    wrong: NDArray[np.bool_] | None = None,
) -> Picture:
    """A picture and label maps of its size, each below its title, and a map of errors."""
    shown = np.unique(np.concatenate([values.ravel() for values in labels.values()])).tolist()
    sizes = [picture.shape[:2], *(values.shape for values in labels.values())]
    if len(set(sizes)) > 1:
        raise TrainingError(f"a panel needs one size, got {', '.join(map(str, sizes))}")
    if shown[-1] >= len(names):
        raise TrainingError(f"class {shown[-1]} has no name, there are {len(names)}")
    scale = max(1, math.ceil(SMALLEST_SIDE / min(picture.shape[:2])))
    large = [np.kron(x, np.ones((scale, scale), np.int64)) for x in labels.values()]
    enlarged = np.repeat(np.repeat(picture, scale, 0), scale, 1)
    tiles = [enlarged, *(_coloured(enlarged, labels) for labels in large)]
    titles = ["image", *labels]
    if wrong is not None:
        marked = np.repeat(np.repeat(wrong, scale, 0), scale, 1)
        pale = (enlarged.mean(2, keepdims=True) / 2 + PALE).astype(np.uint8).repeat(3, 2)
        tiles.append(np.where(marked[..., None], np.array(WRONG, np.uint8), pale))
        titles.append("errors")
    height, width = enlarged.shape[:2]
    across = len(tiles) * (width + GAP) + GAP
    entries = [(class_colour(index), names[index] if index >= 0 else "not counted") for index in shown]
    lines = _wrapped(entries, across - 2 * GAP)
    note_lines = [line for note in notes for line in _broken(note, across - 2 * GAP)]
    canvas = Image.new(
        "RGB", (across, LINE + height + 2 * GAP + LINE * (len(lines) + len(note_lines))), PAPER
    )
    draw = ImageDraw.Draw(canvas)
    for number, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        left = GAP + number * (width + GAP)
        draw.text((left, 2), title, fill=INK, font=caption_font())
        canvas.paste(Image.fromarray(tile), (left, LINE))
    for row, line in enumerate(lines):
        top = LINE + height + GAP + row * LINE
        for left, (colour, name) in line:
            box = (left, top + 2, left + CHIP, top + 2 + CHIP)
            draw.rounded_rectangle(box, radius=3, fill=colour, outline=INK)
            draw.text((left + CHIP + 5, top), name, fill=INK, font=caption_font())
    for row, text in enumerate(note_lines, len(lines)):
        draw.text((GAP, LINE + height + GAP + row * LINE), text, fill=INK, font=caption_font())
    return np.asarray(canvas)


def save_picture(path: Path, picture: Picture) -> None:
    """Writes an RGB picture; folders on the way are made.

    Raises:
        OSError: the disk did not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def save_contact_sheet(path: Path, panels: Sequence[Path]) -> None:
    """One picture of many panels, two a row.

    Args:
        path: of the sheet.
        panels: files to show, in order.

    Raises:
        OSError: a panel cannot be read, or the disk did not take the sheet.
    """
    width = (SHEET_WIDTH - GAP) // SHEET_COLUMNS - GAP
    shrunk = []
    for file in panels:
        with Image.open(file) as opened:
            height = max(1, round(opened.height * width / opened.width))
            shrunk.append(opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    rows = [shrunk[at : at + SHEET_COLUMNS] for at in range(0, len(shrunk), SHEET_COLUMNS)]
    heights = [max(one.height for one in row) for row in rows]
    sheet = Image.new("RGB", (SHEET_WIDTH, sum(heights) + GAP * (len(rows) + 1)), PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            sheet.paste(one, (GAP + column * (width + GAP), top))
        top += height + GAP
    save_picture(path, np.asarray(sheet))


def _coloured(picture: Picture, labels: NDArray[np.integer]) -> Picture:
    """Labels in their colours over the picture, regions outlined."""
    found, inverse = np.unique(labels, return_inverse=True)
    colours = np.array([class_colour(int(index)) for index in found], np.uint8)[inverse.reshape(labels.shape)]
    sums = picture * np.float32(1 - FILL) + colours * np.float32(FILL)  # as the service mixes
    mixed: Picture = np.rint(sums).astype(np.uint8)
    wide = max(1, round(max(labels.shape) / WIDE))
    edge = np.zeros(labels.shape, bool)
    edge[:, wide:] |= labels[:, wide:] != labels[:, :-wide]
    edge[wide:] |= labels[wide:] != labels[:-wide]
    mixed[edge] = colours[edge]
    return mixed


_Entry = tuple[tuple[int, int, int], str]


def _wrapped(entries: Sequence[_Entry], width: int) -> list[list[tuple[int, _Entry]]]:
    """Lines of legend entries with their left edges; an entry that is too wide has a line of its own."""
    lines: list[list[tuple[int, _Entry]]] = [[]]
    left = GAP
    for entry in entries:
        needed = CHIP + 5 + math.ceil(caption_font().getlength(entry[1]))
        if lines[-1] and left + needed > GAP + width:
            lines.append([])
            left = GAP
        lines[-1].append((left, entry))
        left += needed + 2 * GAP
    return lines


def _broken(text: str, width: int) -> list[str]:
    """A sentence in lines of this many pixels at most."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and caption_font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def caption_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, of `FONT_SIZE` pixels."""
    return ImageFont.load_default(FONT_SIZE)
