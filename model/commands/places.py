"""Where commands put checkpoint folders, and which configurations there are."""

from pathlib import Path

from model.errors import CheckpointError

# the keys of model.network.config.VARIANTS, which needs torch
SWIN_VARIANTS = ("tiny-swin-t", "tiny-swin-b", "base-swin-t", "base-swin-b")
VARIANTS = ("tiny", "base", "large", *SWIN_VARIANTS)
OUT_HELP = "folder to make, ending in NAME/VERSION as in registry/ebseg-base/1"


def name_and_version(directory: Path) -> tuple[str, int]:
    """What `.../NAME/NUMBER` says.

    Raises:
        CheckpointError: the path does not end so.
    """
    from model.storage.manifest import check_name

    path = directory.absolute()
    if not (path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name):
        raise CheckpointError(
            f"--out must end in a name and a version number, as in registry/ebseg-base/1; got {directory}"
        )
    check_name(path.parent.name, int(path.name))
    return path.parent.name, int(path.name)
