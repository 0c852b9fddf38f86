"""Run folders to publish, made in milliseconds."""

import json
from pathlib import Path
from typing import Any

from model.network.build import build
from model.network.ebseg import EBSeg
from model.storage.checkpoint import Provenance, save
from model.vocabulary.classes import TrainingClasses
from tests.training.run.runs import micro_config

SCORES: dict[str, Any] = {
    "miou_all": 60.0,
    "miou_trained": 75.0,
    "miou_new": 32.5,
    "data": "storybook",
    "split": "validation",
    "pictures": 64,
}


def small_ebseg(seed: int = 0) -> EBSeg:
    return build(micro_config(), TrainingClasses.of(["sky", "tree"]), seed=seed).eval()


def make_run(folder: Path, *, ebseg: EBSeg | None = None, untrained: bool = False, **scores: Any) -> Path:
    """What `ebseg train` leaves: checkpoint and scores; a score of `...` is left out."""
    save(
        ebseg or small_ebseg(),
        folder / "checkpoint",
        Provenance(name="tiny", version=1, untrained=untrained, notes={"step": 1200}),
    )
    write_scores(folder, **scores)
    return folder


def write_scores(folder: Path, **scores: Any) -> None:
    """The run's metrics.json: `SCORES` with changes."""
    values = {key: value for key, value in (SCORES | scores).items() if value is not ...}
    (folder / "metrics.json").write_text(json.dumps(values))
