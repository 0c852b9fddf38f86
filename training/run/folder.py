"""Where a run keeps its checkpoint; needs no torch, so that saying that there is none is quick."""

from pathlib import Path

from model.storage.manifest import MANIFEST
from training.errors import TrainingError

CHECKPOINT = "checkpoint"
CONFIG = "config.json"


def checkpoint_in(run: Path) -> Path:
    """The checkpoint of a run folder, or the folder itself if it is one.

    Raises:
        TrainingError: there is none.
    """
    checkpoint = run if (run / MANIFEST).is_file() else run / CHECKPOINT
    if not (checkpoint / MANIFEST).is_file():
        raise TrainingError(
            f"{run} holds no checkpoint: it has neither {CHECKPOINT}/{MANIFEST} nor {MANIFEST}. Name a "
            "folder that ebseg train has written to, once it has evaluated or ended"
        )
    return checkpoint


def in_run(folder: Path) -> Path:
    """The checkpoint of a run folder; any other folder stays what it is."""
    inner = folder / CHECKPOINT
    return inner if (inner / MANIFEST).is_file() and not (folder / MANIFEST).is_file() else folder


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint lies in.

    Raises:
        TrainingError: it lies in none.
    """
    folder = checkpoint.resolve()
    if folder.name != CHECKPOINT or not (folder.parent / CONFIG).is_file():
        raise TrainingError(
            f"{checkpoint} is not the checkpoint of a run, so that there is nowhere to save scores: name a "
            "folder that ebseg train has written to"
        )
    return folder.parent
