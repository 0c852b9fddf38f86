"""What a run would do: counts, sizes, and the time that a few pictures let expect."""

import time
from collections.abc import Mapping
from contextlib import closing
from io import BytesIO
from statistics import median
from typing import Any

from PIL import Image

from model.errors import PictureError
from model.pictures.formats import opener_of
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan
from service.batch.reading import UnreadableError, content_of, most_bytes
from service.batch.sinks import open_sink

SAMPLE = 8  # pictures that are segmented
OF_EACH = 64  # of so many the next one is taken, so that a sorted input's first pictures are not all


def estimate(plan: BatchPlan) -> dict[str, Any]:
    """Lists the whole input, segments a few of its pictures, writes nothing.

    Raises:
        UsageError: the input cannot be listed.
        CheckpointError: the model cannot be loaded.
    """
    sink = open_sink(OutputPlace(plan.out), plan.form)
    finished = set(sink.numbers())
    pictures = missing = shards = 0
    sample: list[Mapping[str, Any]] = []
    for number, shard in plan.shards():
        shards += 1
        pictures += len(shard)
        if number not in finished or not plan.is_done(sink.about(number), shard):
            missing += len(shard)
        if len(sample) < SAMPLE:
            sample += shard[:: max(1, min(OF_EACH, len(shard) // SAMPLE))][: SAMPLE - len(sample)]
    sizes, kilobytes = _looked_at(sample, most_bytes(plan.max_pixels))
    found: dict[str, Any] = {"pictures": pictures, "missing": missing, "shards": shards}
    if sizes:
        found |= {"median_megapixels": round(median(sizes) / 1e6, 2), "median_kilobytes": median(kilobytes)}
    if sizes and missing:
        seconds = _measured(plan, sample)
        found |= {
            "pictures_per_second": round(len(plan.devices) / seconds, 2),
            "expected_seconds": round(missing * seconds / len(plan.devices), 1),
        }
    return found


def _looked_at(sample: list[Mapping[str, Any]], most: int) -> tuple[list[int], list[int]]:
    """Pixels and kilobytes of those that can be read."""
    sizes, kilobytes = [], []
    for item in sample:
        try:
            content = content_of(item, most)
            with opener_of(content)(BytesIO(content)) as image:
                sizes.append(image.width * image.height)
            kilobytes.append(len(content) // 1000)
        except (UnreadableError, PictureError, OSError, ValueError, Image.DecompressionBombError):
            continue
    return sizes, kilobytes


def _measured(plan: BatchPlan, sample: list[Mapping[str, Any]]) -> float:
    """Seconds a picture, on one worker that has its share of the cores, after the first."""
    from service.batch.worker import segmenter_of

    with closing(segmenter_of(plan, plan.devices[0], torch_threads=plan.torch_threads)) as segmenter:
        list(segmenter.segment(sample[:1]))
        began = time.monotonic()
        done = len(list(segmenter.segment(sample)))
        return (time.monotonic() - began) / done
