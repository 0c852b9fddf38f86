"""Versioned checkpoint folders: `<registry>/<name>/<version>/`.

    model.safetensors      every tensor of the model's state, in the dtype it has, or in float16 to save room
    config.json            EBSegConfig
    training_classes.json  TrainingClasses
    golden.safetensors     a picture and what `predict` made of it
    metrics.json           scores, whatever the training measured
    manifest.json          written last: digests and sizes of all others (see manifest.py)

A folder appears whole or not at all: it is written beside its place and renamed into it. Nothing here
reads a pickle.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.confidence.card import Card, check_license
from model.errors import CheckpointError
from model.network.build import build
from model.network.config import EBSegConfig
from model.network.ebseg import EBSeg
from model.storage import golden
from model.storage.files import (
    Progress,
    read_tensors,
    refuse_taken,
    renamed_into,
    sha256,
    silent,
    write_tensors,
    write_text,
)
from model.storage.manifest import (
    CONFIG,
    FILES,
    GOLDEN,
    MANIFEST,
    METRICS,
    TRAINING_CLASSES,
    WEIGHTS,
    FileEntry,
    Manifest,
    check_name,
    files_digest,
    json_object,
    to_json,
)
from model.storage.verify import errors_in, verify
from model.vocabulary.classes import TrainingClasses

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedCheckpoint:
    """A checked model with what its folder says about it."""

    ebseg: EBSeg
    manifest: Manifest
    metrics: dict[str, Any]
    directory: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What a version is and where it comes from; its weights don't show it.

    Attributes:
        name, version: its place in a registry.
        untrained: the weights are random.
        metrics: scores, JSON values.
        parent: digest of the version that this one was trained from.
        notes: how the weights came about, JSON values.
        license: of the weights, as SPDX writes it.
        card: what the model is for and what it knows.

    Raises:
        CheckpointError: an unusable name, version or license.
    """

    name: str
    version: int
    untrained: bool
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    card: Card | None = None

    def __post_init__(self) -> None:
        check_name(self.name, self.version)
        if self.license is not None:
            check_license(self.license)


def save(
    ebseg: EBSeg,
    directory: str | Path,
    provenance: Provenance,
    *,
    store_as: torch.dtype | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Writes a version folder; on any error nothing of it is left.

    Args:
        ebseg: the model; it also makes the golden outputs, on the device it is on.
        directory: the folder to make. It may exist if it is empty.
        provenance: what goes into its manifest and metrics.
        store_as: torch.float16 halves the file of a float32 model. `load` gives float32 again, and the
            golden outputs and the text digest are those of the rounded weights.
        progress: notified of the long steps.

    Raises:
        CheckpointError: the folder is taken, or weights, metrics or notes hold what cannot be written (NaN
            and infinity included, and in float16 what exceeds 65504).
        OSError: the disk did not take it.
    """
    target = Path(directory).absolute()
    refuse_taken(target)
    tensors = {key: value.detach().cpu().contiguous() for key, value in ebseg.state_dict().items()}
    _refuse_non_finite(tensors)
    if store_as is not None:
        tensors = _narrowed(tensors, store_as)
        _refuse_non_finite(tensors, of=f"in {store_as}, tensor")
        wide = dict(tensors)
        _widen(wide)
        ebseg = _assembled(ebseg.config, ebseg.training_classes, wide).to(ebseg.device)
    outputs = golden.make(ebseg)
    _refuse_non_finite(outputs, of="golden output")
    with renamed_into(target) as folder:
        _write_descriptions(folder, ebseg, provenance.metrics)
        write_tensors(folder / GOLDEN, outputs)
        _write_weights(folder, tensors, progress)
        manifest = _manifest(folder, ebseg, provenance, progress)
        write_text(folder / MANIFEST, manifest.to_json())  # last: it says that all others are there
    return manifest


def _write_descriptions(folder: Path, ebseg: EBSeg, metrics: Mapping[str, Any]) -> None:
    """Configuration, training classes and scores, each as JSON."""
    write_text(folder / CONFIG, to_json(ebseg.config.to_dict()))
    write_text(folder / TRAINING_CLASSES, to_json(ebseg.training_classes.to_json()))
    write_text(folder / METRICS, to_json(dict(metrics)))


def _write_weights(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    size = sum(tensor.nbytes for tensor in tensors.values())
    progress("writing the weights", 0, size)
    write_tensors(folder / WEIGHTS, tensors)
    progress("writing the weights", size, size)


def _manifest(folder: Path, ebseg: EBSeg, provenance: Provenance, progress: Progress) -> Manifest:
    """The manifest of a folder in which every other file stands."""
    files = {
        file: FileEntry(sha256=sha256(folder / file, progress), bytes=(folder / file).stat().st_size)
        for file in FILES
    }
    return Manifest(
        name=provenance.name,
        version=provenance.version,
        variant=ebseg.config.variant,
        untrained=provenance.untrained,
        files=files,
        digest=files_digest(files),
        text_digest=ebseg.text_digest(),
        parent=provenance.parent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        training=dict(provenance.notes),
        license=provenance.license,
        card=provenance.card,
    )


def load(
    directory: str | Path,
    *,
    device: torch.device | str = "cpu",
    verify_digests: bool = True,
    mapped: bool = False,
    progress: Progress | None = None,
) -> LoadedCheckpoint:
    """Loads a version folder, strictly: every tensor fits, is used and is finite.

    Args:
        directory: a version folder.
        device: where the model goes.
        verify_digests: hash every file first; leave it out only for a folder that was just verified.
        mapped: leave weights on the CPU in the file, as of `read_tensors`, unless that holds float16.
        progress: notified of hashing.

    Returns:
        The model in eval mode, with its manifest and metrics. Weights have the dtype that they are stored
        in, but float16, which only saves room, becomes float32.

    Raises:
        CheckpointError: the first thing that is wrong, with the file's and tensor's name.
    """
    folder = Path(directory)
    manifest = verify(folder, digests=verify_digests, progress=progress)
    with errors_in(folder):
        config = EBSegConfig.from_dict(json_object((folder / CONFIG).read_bytes(), CONFIG))
        if config.variant != manifest.variant:
            raise CheckpointError(f"{CONFIG} is of variant {config.variant}, not {manifest.variant}")
        classes = TrainingClasses.from_json(
            json_object((folder / TRAINING_CLASSES).read_bytes(), TRAINING_CLASSES)
        )
        metrics = json_object((folder / METRICS).read_bytes(), METRICS)
        tensors = read_tensors(folder / WEIGHTS, mapped=mapped)
        _refuse_non_finite(tensors, of=f"{WEIGHTS}: tensor")
        _widen(tensors)
        ebseg = _assembled(config, classes, tensors)
    if manifest.untrained:
        _LOG.warning("%s version %d is untrained: its masks mean nothing", manifest.name, manifest.version)
    return LoadedCheckpoint(
        ebseg=ebseg.to(device).eval(), manifest=manifest, metrics=metrics, directory=folder
    )


def check_golden(loaded: LoadedCheckpoint) -> float:
    """Runs the folder's golden picture, and compares with the outputs stored beside it.

    Returns:
        The largest relative error of an output (norm of the difference over the norm of the stored one).

    Raises:
        CheckpointError: an error above `golden.TOLERANCE`, or a golden file that does not fit the model.
    """
    with errors_in(loaded.directory):
        return golden.compare(loaded.ebseg, read_tensors(loaded.directory / GOLDEN))


def _narrowed(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as they are stored: only what has more bits than `dtype` is cast."""
    if dtype != torch.float16:
        raise CheckpointError(f"weights are stored as they are or in torch.float16, not in {dtype}")
    return {
        name: tensor.to(dtype) if tensor.dtype in (torch.float32, torch.float64) else tensor
        for name, tensor in tensors.items()
    }


def _assembled(config: EBSegConfig, classes: TrainingClasses, tensors: Mapping[str, Tensor]) -> EBSeg:
    """The model with the tensors of a file: the one way from stored weights to computing ones."""
    ebseg = build(config, classes, seed=None)
    _refuse_misfits(ebseg.state_dict(), tensors)
    ebseg.load_state_dict(tensors, strict=True, assign=True)
    return ebseg.eval()


def _widen(tensors: dict[str, Tensor]) -> None:
    """Makes float32 of float16, in place and one by one, so that never all of them are there twice."""
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16:
            tensors[name] = tensor.float()


def _refuse_misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Compares names, shapes and kinds, so that the message can name all tensors that do not fit."""
    problems = []
    for what, names in (
        ("missing", wanted.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - wanted.keys()),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(f"{what} {', '.join(sorted(names)[:5])}{more}")
    for name in sorted(wanted.keys() & tensors.keys()):
        if wanted[name].shape != tensors[name].shape:
            problems.append(f"{name} has shape {list(tensors[name].shape)}, not {list(wanted[name].shape)}")
        elif wanted[name].is_floating_point() != tensors[name].is_floating_point():
            problems.append(f"{name} is {tensors[name].dtype}, not {wanted[name].dtype}")
    if problems:
        raise CheckpointError(f"{WEIGHTS} does not fit the model: {'; '.join(problems[:5])}")


def _refuse_non_finite(tensors: Mapping[str, Tensor], of: str = "tensor") -> None:
    for name, tensor in tensors.items():
        # least and greatest, because both pass NaN on, and need no second copy of the tensor
        if tensor.is_floating_point() and tensor.numel():
            least, greatest = tensor.aminmax()
            if not (least.isfinite() and greatest.isfinite()):
                raise CheckpointError(f"{of} {name} holds NaN or infinity")
