"""What a run left for publishing: its checkpoint and its metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.storage.manifest import MANIFEST, METRICS, Manifest, json_object
from training.config import TrainConfig
from training.run.folder import RUN_CONFIG, RUN_METRICS, checkpoint_in, read_config


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """What is published: a checkpoint folder and its scores; and how it was trained, where a run tells."""

    name: str
    checkpoint: Path
    metrics: dict[str, Any]
    config: TrainConfig | None = None


def read_run(run: Path) -> FinishedRun:
    """Finds checkpoint and scores of a run folder, or of a checkpoint folder.

    The run's own metrics.json counts, it may have been measured again since, unless it tells of another step
    than the checkpoint: then the scores inside the checkpoint do.

    Raises:
        TrainingError: there is no checkpoint.
        CheckpointError: metrics.json is broken.
    """
    checkpoint = checkpoint_in(run)
    step = Manifest.from_json((checkpoint / MANIFEST).read_bytes()).training.get("step")
    metrics: dict[str, Any] = {}
    for scores in (run / RUN_METRICS, checkpoint / METRICS):
        if scores.is_file():
            metrics = json_object(scores.read_bytes(), str(scores))
            if metrics.get("step", step) == step:
                break
    config = run / RUN_CONFIG if checkpoint != run else None
    return FinishedRun(
        name=run.resolve().name,
        checkpoint=checkpoint,
        metrics=metrics,
        config=read_config(config) if config is not None and config.is_file() else None,
    )
