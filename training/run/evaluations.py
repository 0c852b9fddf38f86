"""The scores of a run's evaluations, by step: which is the best so far, and whether the run ends early."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.storage.files import replace_text
from training.config import TrainConfig
from training.errors import TrainingError
from training.run.folder import EVALUATIONS


class Evaluations:
    """What `RUN/evaluations.jsonl` holds: a line an evaluation, {"step": ..., "miou_all": ...}.

    Args:
        run: the run's folder.
        step: steps done; what was evaluated later, by a run that was cut off, does not count.

    Raises:
        TrainingError: the file is damaged.
    """

    def __init__(self, run: Path, step: int):
        self._path = run / EVALUATIONS
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        try:
            rows = [json.loads(line) for line in lines]
            self._rows: list[dict[str, Any]] = [row for row in rows if row["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{self._path} is damaged ({error}); remove it to count afresh") from error

    def add(self, step: int, scores: Mapping[str, Any]) -> None:
        """Adds an evaluation, in the place of one of the same step."""
        self._rows = [row for row in self._rows if row["step"] < step] + [{"step": step, **scores}]
        replace_text(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))

    def best(self, metric: str, before: int | None = None) -> tuple[int, float] | None:
        """Step and score of the best evaluation, the first of several that are equal; None if there is none.

        Args:
            metric: the score that counts, the more the better.
            before: only evaluations of earlier steps.
        """
        scored = [
            (row["step"], float(row[metric]))
            for row in self._rows
            if row.get(metric) is not None and (before is None or row["step"] < before)
        ]
        return max(scored, key=lambda found: found[1], default=None)

    def is_over(self, config: TrainConfig) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        best = None if config.keep_best is None else self.best(config.keep_best)
        if not config.patience or best is None:
            return False
        since = [row for row in self._rows if row["step"] > best[0]]
        return len(since) >= config.patience
