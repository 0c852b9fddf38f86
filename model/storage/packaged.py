"""The checkpoint that comes with the package, for whoever names none."""

from pathlib import Path

from model.errors import CheckpointError
from model.storage.manifest import MANIFEST

PRETRAINED = Path(__file__).parents[1] / "pretrained"  # a registry: NAME/VERSION
NAME = "ebseg-tiny"


def packaged_checkpoint() -> Path:
    """Folder of the newest EBSeg-tiny that was installed with this package; its files are not looked at.

    Raises:
        CheckpointError: the package holds none.
    """
    numbers = [
        int(path.parent.name)
        for path in (PRETRAINED / NAME).glob(f"*/{MANIFEST}")
        if path.parent.name.isascii() and path.parent.name.isdigit()
    ]
    if not numbers:
        raise CheckpointError(
            f"the checkpoint that comes with ebseg is missing, {PRETRAINED / NAME} holds no version: install "
            "ebseg again, or name another one with --checkpoint DIR or EBSEG_CHECKPOINT. `ebseg import` "
            "makes one of released weights, `make train-tiny` makes EBSeg-tiny anew"
        )
    return PRETRAINED / NAME / str(max(numbers))
