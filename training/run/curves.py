"""What a run shows: log.jsonl, loggers' curves, and panels of picture, truth and prediction."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.network.ebseg import EBSeg
from model.segmenter import Segmenter
from model.storage.files import replace_text
from model.vocabulary.classes import Vocabulary
from training.data.samples import Dataset
from training.evaluation.pictures import panel
from training.run.folder import LOG
from training.run.loggers import Logger, apart

PANELS = 4  # pictures shown
PANEL_SIDE = 256  # longest side of a shown picture, pixels


class Curves:
    """Writes a run's curves.

    Args:
        run: the run's folder.
        step: steps done; what was logged later, by a run that was cut off, is removed.
        loggers: that are told as well.
    """

    def __init__(self, run: Path, step: int, loggers: Sequence[Logger]):
        self._log = run / LOG
        self._loggers = loggers
        _cut_log(self._log, step)

    def log(self, step: int, terms: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Adds one line and one point to each curve.

        Args:
            step: steps done.
            terms: of the loss, by "kind/stage"; a kind's curve is the sum over its stages.
            values: "loss" and others.
        """
        by_kind = sums_by_kind(terms)
        # a step that float16's scaler skipped has a gradient without end, which JSON cannot say
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line: dict[str, Any] = {"step": step, **plain, "terms": by_kind}
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._tell(step, _grouped("train", values) | _grouped("loss", by_kind))

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to the curve of each score."""
        self._tell(step, _grouped("evaluation", values))

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        with apart():
            for logger in self._loggers:
                logger.numbers(step, values)

    def pictures(self, step: int, panels: Sequence[NDArray[np.uint8]]) -> None:
        """Adds panels, uint8 [H, W, 3]."""
        with apart():
            for logger in self._loggers:
                logger.pictures(step, panels)

    def close(self) -> None:
        """Writes everything out."""
        for logger in self._loggers:
            logger.close()


def _grouped(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def sums_by_kind(terms: Mapping[str, float]) -> dict[str, float]:
    """Terms by "kind/stage" added up over the stages."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in terms.items():
        sums[name.partition("/")[0]] += value
    return dict(sums)


def make_panels(
    ebseg: EBSeg, dataset: Dataset, vocabulary: Vocabulary, short_side: int | None
) -> list[NDArray[np.uint8]]:
    """Panels of picture, truth and prediction (see `pictures.panel`), of the same few pictures each time."""
    segmenter = Segmenter(ebseg, short_side=short_side or "configured")
    text = segmenter.encode_text(vocabulary)
    panels = []
    for index in range(min(PANELS, len(dataset))):
        sample = dataset[index]
        height, width = sample.labels.shape
        shrink = min(1.0, PANEL_SIDE / max(height, width))
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        predictions = segmenter.predict([segmenter.prepare(sample.picture)])
        found = segmenter.label_map(predictions, vocabulary, output_size=size, text=text)
        nearest = np.ix_(np.arange(size[0]) * height // size[0], np.arange(size[1]) * width // size[1])
        prediction = found.labels.astype(np.int64) - 1
        panels.append(panel(sample.picture[nearest], sample.labels[nearest], prediction, vocabulary.names))
    return panels


def _cut_log(path: Path, step: int) -> None:
    """Keeps the log's lines up to a step; a last line that was cut off goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step:
            kept.append(line + "\n")
    replace_text(path, "".join(kept))
