"""Pictures to look at: picture, truth and prediction side by side, with the colours' names below.

A class has the same colour in every picture. Neighbouring numbers get hues a golden angle apart, in
OKLCH, where equal steps look equal; three lightnesses in turn tell apart what hue alone would not.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.errors import TrainingError

Picture = NDArray[np.uint8]

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
FIRST_HUE = 0.6  # radians; a red
LIGHTNESS = (0.68, 0.82, 0.52)
CHROMA = (0.15, 0.11, 0.12)
IGNORED_COLOUR = (228, 228, 228)
PAPER, INK = (255, 255, 255), (40, 40, 40)
LABEL_SHARE = 0.78  # of a class's colour; the rest is the picture's brightness
EDGE_SHARE = 0.45  # of the colour that borders of regions keep

SMALLEST_SIDE = 224  # pixels; smaller pictures are enlarged by a whole factor
GAP = 8
FONT_SIZE = 13
LINE = 19
CHIP = 12

SHEET_WIDTH = 1600  # pixels
SHEET_COLUMNS = 2


@cache
def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class by its number; -1 is the colour of ignored pixels."""
    if index < 0:
        return IGNORED_COLOUR
    hue = FIRST_HUE + index * GOLDEN_ANGLE
    lightness, chroma = LIGHTNESS[index % 3], CHROMA[index % 3]
    red, green, blue = _srgb(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
    return red, green, blue


def _srgb(lightness: float, a: float, b: float) -> list[int]:
    """OKLab to 8 bit sRGB, by the matrices of Ottosson's definition; out of gamut is clipped."""
    l_ = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m_ = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s_ = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l_ - 3.3077115913 * m_ + 0.2309699292 * s_,
        -1.2684380046 * l_ + 2.6097574011 * m_ - 0.3413193965 * s_,
        -0.0041960863 * l_ - 0.7034186147 * m_ + 1.7076147010 * s_,
    )
    clipped = (min(max(value, 0.0), 1.0) for value in linear)
    return [round(255 * (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055)) for c in clipped]


def panel(
    picture: Picture,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    names: Sequence[str],
) -> Picture:
    """Picture, truth and prediction side by side, and a legend of the classes that either shows.

    Args:
        picture: RGB, [H, W, 3].
        truth, prediction: class indices, -1 where there is none, [H, W].
        names: of the classes.

    Returns:
        RGB, wider and higher than the picture.

    Raises:
        TrainingError: sizes that differ, or a class without a name.
    """
    return _tiled(picture, {"truth": truth, "prediction": prediction}, names, ())


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
    picture: Picture, labels: Mapping[str, NDArray[np.integer]], names: Sequence[str], notes: Sequence[str]
) -> Picture:
    """A picture and label maps of its size, each below its title."""
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
    height, width = enlarged.shape[:2]
    across = len(tiles) * (width + GAP) + GAP
    entries = [(class_colour(index), names[index] if index >= 0 else "not counted") for index in shown]
    lines = _wrapped(entries, across - 2 * GAP)
    note_lines = [line for note in notes for line in _broken(note, across - 2 * GAP)]
    canvas = Image.new(
        "RGB", (across, LINE + height + 2 * GAP + LINE * (len(lines) + len(note_lines))), PAPER
    )
    draw = ImageDraw.Draw(canvas)
    for number, (tile, title) in enumerate(zip(tiles, ("picture", *labels), strict=True)):
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
    """Labels in their colours over the picture's brightness, regions bordered."""
    found, inverse = np.unique(labels, return_inverse=True)
    palette = np.array([class_colour(int(index)) for index in found], np.float32)
    colours = palette[inverse.reshape(labels.shape)]
    brightness = picture.mean(2, dtype=np.float32, keepdims=True)
    mixed = LABEL_SHARE * colours + (1 - LABEL_SHARE) * brightness
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge] *= EDGE_SHARE
    rounded: Picture = mixed.round().astype(np.uint8)
    return rounded


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
