"""Benchmark of names: what a label map costs by the number of its classes, their text being at hand."""

import statistics
import time
from pathlib import Path
from typing import Any

from model.allocator import keep_freed_memory
from model.bench.engine import (
    WARM_UP_ROUNDS,
    Progress,
    in_turn,
    machine,
    model_of,
    picture_array,
    vocabulary_of,
)
from model.network.device import device_named
from model.segmenter import Segmenter

COUNTS = (1, 20, 150, 847)


def bench_classes(
    *, variant: str, checkpoint: Path | None, size: int, runs: int, device: str, progress: Progress
) -> dict[str, Any]:
    """A whole picture, and the same picture with other names, for each number of classes, in turn.

    Returns:
        JSON values; `ratio` is the seconds of a first answer with the most classes over those with one,
        `again_ratio` the largest share of a first answer that other names on the same picture take. Both are
        of processor time, which other work on the machine moves less; `seconds_*` are of wall time.
    """
    keep_freed_memory()
    progress("building the model")
    ebseg = model_of(variant, checkpoint).to(device_named(device))
    segmenter = Segmenter(ebseg, short_side=None)
    picture = segmenter.prepare(picture_array(size, size))
    vocabularies = {count: vocabulary_of(count) for count in COUNTS}
    texts = {count: ebseg.encode_text(own.names, ["a photo of a {}."]) for count, own in vocabularies.items()}
    spent: dict[int, list[float]] = {count: [] for count in COUNTS}
    again: dict[int, list[float]] = {count: [] for count in COUNTS}

    def first(count: int) -> None:
        began = time.process_time()
        predictions = segmenter.predict([picture])
        between = time.process_time()
        segmenter.label_map(predictions, vocabularies[count], output_size=(size, size), text=texts[count])
        ended = time.process_time()
        spent[count].append(ended - began)
        again[count].append(ended - between)

    seconds = in_turn([lambda count=count: first(count) for count in COUNTS], runs, progress)  # type: ignore[misc]
    whole = WARM_UP_ROUNDS, WARM_UP_ROUNDS + len(seconds[0])  # rounds that were timed
    processor = {count: statistics.median(spent[count][slice(*whole)]) for count in COUNTS}
    own_again = {count: statistics.median(again[count][slice(*whole)]) for count in COUNTS}
    return {
        "bench": "classes",
        "variant": ebseg.config.variant,
        "size": size,
        "device": str(ebseg.device),
        **machine(),
        "runs": len(seconds[0]),
        "classes": list(COUNTS),
        "seconds_medians": [statistics.median(own) for own in seconds],
        "processor_seconds_medians": list(processor.values()),
        "again_processor_seconds_medians": list(own_again.values()),
        "ratio": processor[COUNTS[-1]] / processor[COUNTS[0]],
        "again_ratio": max(own_again[count] / processor[count] for count in COUNTS),
    }
