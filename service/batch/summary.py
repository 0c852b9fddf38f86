"""What a whole run found: areas and pictures by class, as JSON and as a plot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.batch.sinks import About

BAR, LABEL, LINE, GAP = 420, 220, 22, 12  # pixels of the plot
MOST_BARS = 60
FONT_SIZE = 13
PAPER, INK, GREY = (255, 255, 255), (30, 30, 30), (225, 225, 225)


def summary(shards: Mapping[int, About], names: Sequence[str]) -> dict[str, Any]:
    """Rows, errors, and for each class its pixels, its share of all classes' pixels, and its pictures.

    Args:
        shards: finished ones.
        names: of the classes, in the order of the rows' `areas`.
    """
    counted = [about for about in shards.values() if about.areas]  # a shard of errors alone has none
    areas = [sum(about.areas[index] for about in counted) for index in range(len(names))]
    pictures = [sum(about.pictures[index] for about in counted) for index in range(len(names))]
    total = sum(areas) or 1
    return {
        "shards": len(shards),
        "rows": sum(about.rows for about in shards.values()),
        "errors": sum(about.errors for about in shards.values()),
        "classes": [
            {"name": name, "pixels": area, "share": round(area / total, 6), "pictures": count}
            for name, area, count in zip(names, areas, pictures, strict=True)
        ],
    }


def plot(found: Mapping[str, Any], colors: NDArray[np.uint8]) -> Image.Image:
    """Bars of the classes' pictures, the most frequent on top; `MOST_BARS` at most.

    Args:
        found: of `summary`.
        colors: uint8 [K, 3], RGB, of its classes.
    """
    font = ImageFont.load_default(FONT_SIZE)
    order = sorted(range(len(found["classes"])), key=lambda index: -found["classes"][index]["pictures"])
    shown = order[:MOST_BARS]
    most = max((found["classes"][index]["pictures"] for index in shown), default=0) or 1
    height = LINE * (len(shown) + 1) + 3 * GAP
    image = Image.new("RGB", (LABEL + BAR + 180, height), PAPER)
    draw = ImageDraw.Draw(image)
    title = f"{found['rows']:,} images, {found['errors']:,} with errors; images that hold a class"
    draw.text((GAP, GAP), title, INK, font)
    for line, index in enumerate(shown):
        one = found["classes"][index]
        top = 2 * GAP + LINE * (line + 1)
        draw.text((GAP, top), one["name"][:28], INK, font)
        draw.rectangle((LABEL, top, LABEL + BAR, top + LINE - 8), GREY)
        width = round(BAR * one["pictures"] / most)
        if width:
            draw.rectangle((LABEL, top, LABEL + width, top + LINE - 8), tuple(map(int, colors[index])))
        draw.text((LABEL + BAR + GAP, top), f"{one['pictures']:,}  ({one['share']:.1%} of area)", INK, font)
    return image
