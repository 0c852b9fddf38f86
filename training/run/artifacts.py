"""What a run leaves for others: RUN/checkpoint, RUN/last where the best is kept, RUN/metrics.json."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

from model.errors import CheckpointError
from model.network.ebseg import EBSeg
from model.storage import checkpoint
from model.storage.files import replace_text, sync
from model.storage.manifest import MANIFEST, Manifest
from training.config import Score, TrainConfig
from training.data.layout import SegmentationFolder
from training.data.mixture import Mixture
from training.errors import TrainingError
from training.evaluation.confusion_counts import evaluating
from training.evaluation.evaluate import evaluate
from training.run.cards import Described, described_run
from training.run.distributed import Processes
from training.run.ema import Ema
from training.run.evaluations import Evaluations
from training.run.folder import CHECKPOINT, LAST, NEW, OLD, RUN_METRICS
from training.run.lora import merged


def write_artifacts(
    run: Path,
    *,
    step: int,
    group: Processes,
    ebseg: EBSeg,
    ema: Ema | None,
    config: TrainConfig,
    data: Mixture,
    validation: SegmentationFolder | None,
    parent: str | None,
) -> dict[str, float]:
    """Evaluates the weights, or their averages; the first process writes the run's checkpoints and scores.

    Without `keep_best` the newest weights take the checkpoint's place. With it they do so if they are
    better than all before, and take the place of RUN/last in any case.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        group: the processes, which share the pictures of `validation`; all of them call this.
        data: what was trained on.
        validation: what is evaluated on; None evaluates nothing.
        parent: digest of the checkpoint that the run began with.

    Returns:
        The scores that there are, percent.

    Raises:
        TrainingError: the score that `keep_best` compares has no value.
    """
    averaged = ema.applied() if ema is not None else nullcontext()
    with evaluating(ebseg), averaged, merged(ebseg):
        metrics: dict[str, Any] = {}
        if validation is not None:
            short_side: int | Literal["configured"] = config.evaluate_short_side or "configured"
            found = evaluate(
                ebseg,
                validation,
                short_side=short_side,
                shown=group.first,
                part=group.rank,
                parts=group.count,
                over_all=group.sum,
            )
            metrics = found.to_json()
        if config.keep_best is not None and metrics[config.keep_best] is None:
            raise TrainingError(
                f"keep_best compares {config.keep_best}, which has no value: the split {config.val_split!r} "
                "holds no such class; choose another score"
            )
        scores = {name: metrics[name] for name in get_args(Score) if metrics.get(name) is not None}
        if not group.first:
            return scores
        evaluations = Evaluations(run, step)
        best = config.keep_best and evaluations.best(config.keep_best, before=step)
        better = config.keep_best is None or not best or metrics[config.keep_best] > best[1]
        if validation is not None:
            evaluations.add(step, scores)
            if better:
                # before the checkpoint, by whose step a run that was cut off here sees that it is not done
                write_metrics(run, step, metrics)
        places = ([CHECKPOINT] if better else []) + ([] if config.keep_best is None else [LAST])
        provenance = _provenance(step, config, metrics, parent, described_run(config, data, metrics))
        _replace_checkpoints(run, places, ebseg, provenance)
    return scores


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


def step_of_newest(run: Path, config: TrainConfig) -> int | None:
    """After how many steps the run's newest checkpoint was written; None if there is none that is whole."""
    return _step_of(run / (CHECKPOINT if config.keep_best is None else LAST))


def _step_of(folder: Path) -> int | None:
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
    except (OSError, CheckpointError):
        return None
    step = manifest.training.get("step")
    return step if isinstance(step, int) else None


def _provenance(
    step: int, config: TrainConfig, metrics: dict[str, Any], parent: str | None, described: Described
) -> checkpoint.Provenance:
    # names, for a published checkpoint should not tell of folders elsewhere
    notes = config.to_dict() | {"step": step, "data": Path(config.data).name}
    if config.extra_data:
        notes["extra_data"] = [f"{Path(path).name}={weight:g}" for path, weight in config.sources()[1:]]
    if config.init is not None:
        notes["init"] = "/".join(Path(config.init).parts[-2:])
    return checkpoint.Provenance(
        name=config.name,
        version=1,
        untrained=False,
        metrics=metrics,
        parent=parent,
        notes=notes,
        license=described.license,
        card=described.card,
    )


def _replace_checkpoints(
    run: Path, places: Sequence[str], ebseg: EBSeg, provenance: checkpoint.Provenance
) -> None:
    """Writes each new folder beside the old one, then renames both: no reader sees half a folder."""
    fresh = [run / f".{place}{NEW}" for place in places]
    for left in (*fresh, *(run / f".{place}{OLD}" for place in places)):
        shutil.rmtree(left, ignore_errors=True)
    checkpoint.save(ebseg, fresh[0], provenance)
    for copy in fresh[1:]:
        shutil.copytree(fresh[0], copy)
    for place, folder in zip(places, fresh, strict=True):
        target, old = run / place, run / f".{place}{OLD}"
        if target.exists():
            os.rename(target, old)
        os.rename(folder, target)
        sync(run)
        shutil.rmtree(old, ignore_errors=True)
