"""What a run leaves for others: RUN/checkpoint, RUN/metrics.json."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from model.errors import CheckpointError
from model.network.ebseg import EBSeg
from model.storage import checkpoint
from model.storage.files import replace_text, sync
from model.storage.manifest import MANIFEST, Manifest
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.evaluation.confusion_counts import evaluating
from training.evaluation.evaluate import evaluate
from training.run.cards import Described, described_run
from training.run.ema import Ema
from training.run.folder import CHECKPOINT, CHECKPOINT_NEW, CHECKPOINT_OLD, RUN_METRICS

SCORES = ("miou_all", "miou_trained", "miou_new", "pixel_accuracy")


def write_artifacts(
    run: Path,
    *,
    step: int,
    ebseg: EBSeg,
    ema: Ema | None,
    config: TrainConfig,
    data: SegmentationFolder,
    validation: SegmentationFolder | None,
    parent: str | None,
) -> dict[str, float]:
    """Evaluates the weights, or their averages, and replaces the run's checkpoint and metrics by theirs.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        data: what was trained on.
        validation: what is evaluated on; None evaluates nothing.
        parent: digest of the checkpoint that the run began with.

    Returns:
        The scores that there are, percent.
    """
    with evaluating(ebseg), ema.applied() if ema is not None else nullcontext():
        metrics: dict[str, Any] = {}
        if validation is not None:
            short_side: int | Literal["configured"] = config.evaluate_short_side or "configured"
            metrics = evaluate(ebseg, validation, short_side=short_side).to_json()
            # before the checkpoint, by whose step a run that was cut off here sees that it is not done
            write_metrics(run, step, metrics)
        _replace_checkpoint(run, step, ebseg, config, metrics, parent, described_run(config, data, metrics))
    return {name: metrics[name] for name in SCORES if metrics.get(name) is not None}


def write_metrics(run: Path, step: int | None, metrics: Mapping[str, Any]) -> None:
    """Replaces the run's scores.

    Args:
        run: the run's folder.
        step: that the weights are of; `publish` takes the scores for no others.
        metrics: of `Evaluation.to_json`.

    Raises:
        OSError: the disk did not take them; the former ones are still there.
    """
    replace_text(run / RUN_METRICS, json.dumps({"step": step} | dict(metrics), indent=1) + "\n")


def step_of_checkpoint(run: Path) -> int | None:
    """After how many steps the run's checkpoint was written; None if there is none that is whole."""
    try:
        manifest = Manifest.from_json((run / CHECKPOINT / MANIFEST).read_bytes())
    except (OSError, CheckpointError):
        return None
    step = manifest.training.get("step")
    return step if isinstance(step, int) else None


def _replace_checkpoint(
    run: Path,
    step: int,
    ebseg: EBSeg,
    config: TrainConfig,
    metrics: dict[str, Any],
    parent: str | None,
    described: Described,
) -> None:
    """Writes the new folder beside the old one, then renames both: no reader sees half a folder."""
    fresh, target, old = run / CHECKPOINT_NEW, run / CHECKPOINT, run / CHECKPOINT_OLD
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    notes = config.to_dict() | {"step": step, "data": Path(config.data).name}
    if config.init is not None:  # names, for a published checkpoint should not tell of folders elsewhere
        notes["init"] = "/".join(Path(config.init).parts[-2:])
    checkpoint.save(
        ebseg,
        fresh,
        checkpoint.Provenance(
            name=config.name,
            version=1,
            untrained=False,
            metrics=metrics,
            parent=parent,
            notes=notes,
            license=described.license,
            card=described.card,
        ),
    )
    if target.exists():
        os.rename(target, old)
    os.rename(fresh, target)
    sync(run)
    shutil.rmtree(old, ignore_errors=True)
