"""From a released file to a version folder: read, fitted, saved, loaded again and compared.

Both `ebseg import` and `ebseg pull` end here. Nothing of the file is run, and the folder appears whole and
checked or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError
from model.released.account import Account
from model.released.cards import RELEASED_LICENSE, released
from model.released.fitting import account_of
from model.released.torch_file import read_entries
from model.storage.checkpoint import Provenance, check_golden, load, save
from model.storage.files import Progress, refuse_taken, renamed_into, sha256, silent
from model.storage.manifest import Manifest, check_name
from model.vocabulary.classes import TrainingClasses


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A version made of a released file, and what became of the file's tensors."""

    manifest: Manifest
    account: Account


def read_released(
    path: Path,
    variant: str | None = None,
    *,
    training_classes: TrainingClasses | None = None,
    ignore: Sequence[str] = (),
    progress: Progress | None = None,
) -> Account:
    """Reads a released file and fits it to a variant; whether it fits is for the account to say.

    Args:
        path: a torch file, or a pickle as detectron2 writes it.
        variant: "base", "large" or "tiny"; the one that the shapes tell when left out.
        training_classes: what the weights were trained on; COCO-Stuff's 171 classes when left out.
        ignore: patterns of names that may be left out, see `fitting.account_of`.
        progress: notified of the values that are looked at.

    Raises:
        CheckpointError: the file cannot be read, or `account_of` refuses it; the message names the file.
    """
    found = read_entries(path)
    try:
        return account_of(
            found.tensors,
            variant,
            others=found.others,
            training_classes=training_classes,
            ignore=ignore,
            progress=progress or silent,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def import_released(
    path: Path,
    directory: Path,
    *,
    name: str,
    version: int,
    source: str | None = None,
    variant: str | None = None,
    training_classes: TrainingClasses | None = None,
    ignore: Sequence[str] = (),
    digest: str | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Makes a version folder of a released file.

    The folder is written beside its place, loaded from there and run on its golden picture, and then
    renamed. Its manifest's notes tell `source`, the file's `sha256`, and what was left out.

    Args:
        path: the file.
        directory: the folder to make. It may exist if it is empty.
        name, version: the version's place in a registry.
        source: where the file comes from, for the notes; its name when left out.
        variant, training_classes, ignore: see `read_released`.
        digest: the file's sha256 where the caller has computed it; computed here when left out.
        progress: notified of the long steps.

    Raises:
        CheckpointError: the folder is taken, the name is unusable, the file cannot be read or does not fit,
            or the model computes something else when it is loaded again.
        OSError: the disk did not take it.
    """
    check_name(name, version)
    refuse_taken(directory)
    report = progress or silent
    account = read_released(path, variant, training_classes=training_classes, ignore=ignore, progress=report)
    try:
        ebseg = account.ebseg()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    notes: dict[str, object] = {"source": source or path.name, "sha256": digest or sha256(path, report)}
    if ignore:
        notes["ignored"] = list(ignore)
    with renamed_into(directory.absolute()) as folder:
        manifest = save(
            ebseg,
            folder,
            Provenance(
                name=name,
                version=version,
                untrained=False,
                notes=notes,
                license=RELEASED_LICENSE,
                card=released(account.variant, own_classes=training_classes is not None),
            ),
            progress=report,
        )
        check_golden(load(folder, verify_digests=False))
    return Imported(manifest=manifest, account=account)
