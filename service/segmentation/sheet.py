"""A contact sheet: each picture beside its overlay, and below them what the colours mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE = 400  # pixels, width of a picture on the sheet
TALLEST = 2 * TILE  # pixels; a picture that would be taller is shrunk to it
GAP = 12
BETWEEN = 32  # two cells of a row
COLUMNS = 2  # pictures a row, each with its overlay
CELL = 2 * TILE + GAP // 2
FONT_SIZE = 17
LINE = 26
CHIP = 15
PAPER, INK, PALE = (255, 255, 255), (40, 40, 40), (120, 120, 120)
LEAST_SHARE = 0.005  # of the picture; what shows less is not named


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """A picture with its overlay, both of the sheet's size, and what the colours mean.

    Attributes:
        title: above them.
        picture, overlay: `TILE` pixels wide.
        classes: name, colour ("#rrggbb") and share of each.
    """

    title: str
    picture: Image.Image
    overlay: Image.Image
    classes: Sequence[tuple[str, str, float]]

    @classmethod
    def of(
        cls,
        title: str,
        picture: Image.Image,
        overlay: Image.Image,
        classes: Sequence[tuple[str, str, float]],
    ) -> "SheetEntry":
        """An entry of pictures of any size; keeps small copies only."""
        return cls(title, _tile(picture), _tile(overlay), classes)


def contact_sheet(entries: Sequence[SheetEntry]) -> Image.Image:
    """One picture of all entries, at least one, two a row."""
    cells = [_cell(entry) for entry in entries]
    rows = [cells[at : at + COLUMNS] for at in range(0, len(cells), COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    widths = [sum(cell.width + BETWEEN for cell in row) - BETWEEN for row in rows]
    sheet = Image.new("RGB", (max(widths) + 2 * GAP, sum(heights) + GAP * (len(rows) + 1)), PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + BETWEEN
        top += height + GAP
    return sheet


def _cell(entry: SheetEntry) -> Image.Image:
    """Picture and overlay side by side; title and legend above and below."""
    tiles = [entry.picture, entry.overlay]
    found = [(name, colour) for name, colour, share in entry.classes if share >= LEAST_SHARE]
    missing = [name for name, _, share in entry.classes if share < LEAST_SHARE]
    lines = _wrapped([*found, *((text, None) for text in _not_found(missing))], CELL)
    above = LINE + 4
    cell = Image.new("RGB", (CELL, above + tiles[0].height + GAP // 2 + LINE * len(lines)), PAPER)
    draw = ImageDraw.Draw(cell)
    draw.text((0, 0), _fitted(entry.title), fill=INK, font=_font())
    for number, tile in enumerate(tiles):
        cell.paste(tile, (number * (TILE + GAP // 2), above))
    for row, line in enumerate(lines):
        top = above + tiles[0].height + GAP // 2 + row * LINE
        for left, text, colour in line:
            if colour is not None:
                box = (left, top + 4, left + CHIP, top + 4 + CHIP)
                draw.rounded_rectangle(box, radius=3, fill=colour, outline=INK)
            start = left + (0 if colour is None else CHIP + 5)
            draw.text((start, top), text, fill=PALE if colour is None else INK, font=_font())
    return cell


def _fitted(title: str) -> str:
    """The title, or as much of its end as fits into a line."""
    if _font().getlength(title) <= CELL:
        return title
    kept = title
    while kept and _font().getlength(f"...{kept}") > CELL:
        kept = kept[1:]
    return f"...{kept}"


def _not_found(names: Sequence[str]) -> list[str]:
    """The names with the words and commas of a sentence, apart so that lines can be broken between them."""
    commas = [f"{name}," for name in names[:-1]] + list(names[-1:])
    return [f"not found: {commas[0]}", *commas[1:]] if commas else []


def _tile(image: Image.Image) -> Image.Image:
    height = max(1, round(image.height * TILE / image.width))
    if height <= TALLEST:
        return image.convert("RGB").resize((TILE, height), Image.Resampling.LANCZOS)
    width = max(1, round(image.width * TALLEST / image.height))
    tile = Image.new("RGB", (TILE, TALLEST), PAPER)
    tile.paste(image.convert("RGB").resize((width, TALLEST), Image.Resampling.LANCZOS))
    return tile


def _wrapped(items: Sequence[tuple[str, str | None]], width: int) -> list[list[tuple[int, str, str | None]]]:
    """Lines of the legend: left edge, text and colour of each item."""
    lines: list[list[tuple[int, str, str | None]]] = [[]]
    left = 0
    for text, colour in items:
        chip = 0 if colour is None else CHIP + 5
        needed = chip + round(_font().getlength(text))
        if lines[-1] and left + needed > width:
            lines.append([])
            left = 0
        lines[-1].append((left, text, colour))
        left += needed + (8 if colour is None else 20)
    return lines


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
