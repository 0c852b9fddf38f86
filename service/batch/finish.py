"""What a run leaves besides its rows: summary.json, summary.png, sheet.webp."""

import io
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.batch.examples import map_colors
from service.batch.place import OutputPlace
from service.batch.run import RunResult
from service.batch.sinks import About, Sink
from service.batch.summary import plot, summary
from service.segmentation.colors import class_colors
from service.segmentation.sheet import contact_sheet

SUMMARY, PLOT, SHEET = "summary.json", "summary.png", "sheet.webp"


def finish(store: OutputPlace, sink: Sink, result: RunResult) -> None:
    """Writes them; of all shards that are finished, whichever process made them."""
    shards = {number: sink.about(number) for number in sink.numbers() if number not in result.beyond}
    names, colors = _classes(sink, shards)
    found = summary(shards, names)
    store.put(SUMMARY, (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    if names:
        store.put(PLOT, _bytes(plot(found, colors), "PNG"))
    if result.examples:
        store.put(SHEET, _bytes(contact_sheet(result.examples), "WEBP"))


def _classes(sink: Sink, shards: Mapping[int, About]) -> tuple[list[str], NDArray[np.uint8]]:
    """Names and colours of the classes, as rows tell of them; none if no picture was segmented."""
    for number, about in shards.items():
        rows = sink.read(number) if about.areas else []
        row = next((row for row in rows if row["error"] is None), None)
        if row is None:
            continue
        count = len(row["classes"])
        if row["label_map"] is None:  # somebody has taken it away
            return row["classes"], class_colors([None] * count)
        with Image.open(io.BytesIO(row["label_map"])) as mask:
            return row["classes"], map_colors(mask, count)
    return [], np.zeros((0, 3), np.uint8)


def _bytes(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()
