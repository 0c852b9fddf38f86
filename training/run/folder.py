"""Where a run keeps its checkpoint; needs no torch, so that saying that there is none is quick."""

from pathlib import Path

from model.storage.manifest import MANIFEST
from training.errors import TrainingError


def checkpoint_in(run: Path) -> Path:
    """The checkpoint of a run folder, or the folder itself if it is one.

    Raises:
        TrainingError: there is none.
    """
    checkpoint = run if (run / MANIFEST).is_file() else run / "checkpoint"
    if not (checkpoint / MANIFEST).is_file():
        raise TrainingError(
            f"{run} holds no checkpoint: it has neither checkpoint/{MANIFEST} nor {MANIFEST}. Name a folder "
            "that ebseg train has written to, once it has evaluated or ended"
        )
    return checkpoint
