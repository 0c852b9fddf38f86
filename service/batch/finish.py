"""What a run leaves besides its rows: summary.json, summary.png, sheet.webp."""

import io
import json

from PIL import Image, ImageColor

from service.batch.plan import BatchPlan
from service.batch.run import RunResult
from service.batch.sinks import OutputPlace, Sink
from service.batch.summary import plot, summary
from service.segmentation.colors import class_colors, to_hex
from service.segmentation.requested import read_request, requested_vocabulary
from service.segmentation.sheet import contact_sheet

SUMMARY, PLOT, SHEET = "summary.json", "summary.png", "sheet.webp"


def finish(store: OutputPlace, sink: Sink, plan: BatchPlan, result: RunResult) -> None:
    """Writes them; of all shards that are finished, whichever process made them."""
    names, colors = _classes(plan, sink)
    found = summary(sink.finished(), names)
    store.put(SUMMARY, (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    if names:
        store.put(PLOT, _bytes(plot(found, colors), "PNG"))
    if result.examples:
        store.put(SHEET, _bytes(contact_sheet(result.examples), "WEBP"))


def _classes(plan: BatchPlan, sink: Sink) -> tuple[list[str], list[tuple[int, ...]]]:
    """Names and colours of the classes that rows tell of."""
    spec = read_request(plan.request)
    if plan.url is not None and spec.vocabulary is not None:  # the service's own list
        for shard, about in sorted(sink.finished().items()):
            if about.areas:
                names = next(row["classes"] for row in sink.read(shard) if row["error"] is None)
                return names, [tuple(map(int, color)) for color in class_colors([None] * len(names))]
        return [], []
    vocabulary = requested_vocabulary(spec)
    given = [None] * len(vocabulary) if spec.classes is None else [entry.color for entry in spec.classes]
    colors = class_colors([given[index] for index in vocabulary.reported])
    names = [vocabulary.names[index] for index in vocabulary.reported]
    return names, [ImageColor.getrgb(to_hex(color)) for color in colors]


def _bytes(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()
