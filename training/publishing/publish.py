"""From a run's checkpoint to the next version in a registry: gate, golden outputs, number, place.

All work is done before a number is taken: the version is written to a hidden folder, loaded from there again
and run on its golden picture. What follows is short, and a crash anywhere leaves no version that a reader
would take.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from model.confidence.card import Card
from model.storage.checkpoint import LoadedCheckpoint, Provenance, check_golden, load, save
from model.storage.files import Progress, silent, write_text
from model.storage.manifest import MANIFEST, Manifest
from model.storage.versions import Versions
from model.storage.work_folder import temporary, work_folder
from training.data.layout import SegmentationFolder
from training.errors import DatasetError, NothingToCompareError, RefusedError, TrainingError
from training.evaluation.calibrate import calibrate
from training.evaluation.confusion_counts import Options
from training.publishing.finished_run import FinishedRun, read_run
from training.publishing.quality_gate import (
    GATED_METRICS,
    MARGIN,
    GateResult,
    MetricComparison,
    finite,
    judge,
)
from training.publishing.stores import Store, TakenError, VersionReservation, next_number, open_store
from training.run.cards import Described, amended, scores_of

MOST_PICTURES = 500  # that calibrate a threshold; more change it less than another draw of classes does
VALIDATION = "val"
DTYPES = {"float32": None, "float16": torch.float16}
"""What weights can be stored as; None keeps them as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityGate:
    """What a checkpoint has to show.

    Attributes:
        metrics: entries of metrics.json that count.
        margin: points by which each may be below the last version's.
        force: publish all the same; the manifest then says what spoke against it.
        reason: why, for the manifest.
    """

    metrics: Sequence[str] = GATED_METRICS
    margin: float = MARGIN
    force: bool = False
    reason: str | None = None

    def __post_init__(self) -> None:
        if not self.metrics or any(metric not in GATED_METRICS for metric in self.metrics):
            raise TrainingError(
                f"--metrics takes any of {','.join(GATED_METRICS)}; got {','.join(self.metrics)!r}"
            )
        if not self.margin >= 0:
            raise TrainingError(f"--margin must not be negative, got {self.margin:g}")
        if self.reason is not None and not self.force:
            raise TrainingError("--reason is for --force: without it nothing is overridden")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A version and what was compared for it.

    Attributes:
        location: its folder or URL.
        manifest: as it is stored; after a dry run, as it would have been.
        scores: new beside old.
        left_out: which of them were not compared, and why, a sentence each.
    """

    location: str
    manifest: Manifest
    scores: tuple[MetricComparison, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Passed:
    """The gate's answer: against which version, what was compared, and notes on what was overridden."""

    current: Manifest | None
    result: GateResult
    notes: dict[str, Any]


def publish(
    run: Path,
    destination: str | Path,
    *,
    gate: QualityGate | None = None,
    dtype: str = "float32",
    license: str | None = None,
    card: Path | None = None,
    data: Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Published:
    """Publishes a run's checkpoint as the next version.

    Args:
        run: folder of `ebseg train`, or a checkpoint folder with its scores inside.
        destination: REGISTRY/NAME, a folder or an fsspec URL.
        gate: what the checkpoint has to show.
        dtype: what weights are stored as, one of `DTYPES`.
        license: of the weights, as SPDX writes it; without, the run's checkpoint's.
        card: JSON file of fields of the card that are to be others than the run's checkpoint's.
        data: data set whose validation split calibrates the threshold; without, the run's.
        dry_run: do all but take a number and show the version.
        progress: notified of hashing and uploading.
        storage_options: of the URL's file system, see `Versions`.

    Raises:
        TrainingError: the run has no checkpoint.
        RefusedError: the gate stays shut; the message tells every score.
        CheckpointError: the checkpoint is damaged, computes something else when loaded again, or the registry
            does not answer.
        OSError: the disk did not take it.
    """
    gate, report = gate or QualityGate(), progress or silent
    if dtype not in DTYPES:
        raise TrainingError(f"weights are stored as {' or '.join(DTYPES)}, not as {dtype}")
    versions = Versions(destination, **storage_options or {})
    if versions.name.isdigit():
        raise TrainingError(
            f"{destination} ends in a version's number; name the model's place, as in registry/ebseg-tiny: "
            "the number is given here"
        )
    store = open_store(versions)
    if models := versions.models_inside():
        raise TrainingError(
            f"{destination} holds models ({', '.join(models[:3])}): name one of them or a new one, as in "
            f"{destination}/{models[0]}"
        )
    source = read_run(run)
    loaded = load(source.checkpoint, progress=report)
    own = Described(license=loaded.manifest.license, card=loaded.manifest.card)
    amended(own, license=license, file=card)  # first, for it is quicker to fail
    passed = _pass_quality_gate(source, loaded.manifest, versions, gate)
    described = amended(_calibrated(source, loaded, own, data, report), license=license, file=card)
    if dry_run:
        with work_folder(temporary()) as work:
            number = next_number(versions)
            staged = _stage(work / "version", source, loaded, described, versions.name, dtype, report)
            manifest = _seal(work / "version", staged, number, passed)
            return _published(versions, number, manifest, passed)
    with work_folder(store.work_root) as work:
        staged = _stage(work / "version", source, loaded, described, versions.name, dtype, report)
        while True:
            reservation = store.reservation()
            store.clean(reservation)
            if versions.newest() != passed.current:  # somebody was faster: the new one is what counts
                passed = _pass_quality_gate(source, loaded.manifest, versions, gate)
            manifest = _seal(work / "version", staged, reservation.number, passed)
            if _placed(store, reservation, work / "version", manifest, report):
                return _published(versions, reservation.number, manifest, passed)


def _published(versions: Versions, number: int, manifest: Manifest, passed: _Passed) -> Published:
    return Published(
        location=f"{versions}/{number}",
        manifest=manifest,
        scores=passed.result.scores,
        left_out=passed.result.left_out,
    )


def _pass_quality_gate(
    source: FinishedRun, manifest: Manifest, versions: Versions, gate: QualityGate
) -> _Passed:
    current = versions.newest()
    old = versions.metrics(current.version) if current is not None else None
    result = judge(
        source.metrics,
        old,
        old_version=current.version if current is not None else None,
        metrics=gate.metrics,
        margin=gate.margin,
    )
    objections = list(result.objections)
    if manifest.untrained:
        objections.insert(0, "the checkpoint is untrained: its masks mean nothing")
    if objections and not gate.force:
        raise RefusedError(
            f"{source.checkpoint} is not published: {'; '.join(objections)}. --force publishes it all the "
            "same, and the manifest will say so"
        )
    notes = {"forced": {"reason": gate.reason, "overridden": objections}} if objections else {}
    return _Passed(current, result, notes)


def _calibrated(
    source: FinishedRun, loaded: LoadedCheckpoint, own: Described, data: Path | None, progress: Progress
) -> Described:
    """With a measured threshold, or with the reason why there is none."""
    card = own.card
    if card is None or (card.threshold is not None and data is None):
        return own
    if source.metrics:
        card = dataclasses.replace(card, scores=scores_of(finite(source.metrics)))
    split = source.config.val_split if source.config is not None else None
    if data is not None:
        folder = SegmentationFolder(data, split or VALIDATION)
    elif loaded.manifest.untrained:
        return _uncalibrated(own, card, "the weights are untrained")
    elif source.config is None or split is None:
        return _uncalibrated(own, card, "the run names no validation data; `ebseg publish --data DIR` does")
    else:
        try:
            folder = SegmentationFolder(source.config.data, split)
        except DatasetError:
            return _uncalibrated(own, card, "the run's validation data was not there when it was published")
    options = Options(limit=MOST_PICTURES)
    try:
        found = calibrate(loaded.ebseg, folder, card, options=options, progress=progress)
    except NothingToCompareError as error:
        if data is not None:
            raise
        return _uncalibrated(own, card, str(error))
    return dataclasses.replace(own, card=found.into(card))


def _uncalibrated(own: Described, card: Card, why: str) -> Described:
    return dataclasses.replace(own, card=dataclasses.replace(card, threshold_note=f"not measured: {why}"))


def _stage(
    folder: Path,
    source: FinishedRun,
    loaded: LoadedCheckpoint,
    described: Described,
    name: str,
    dtype: str,
    progress: Progress,
) -> Manifest:
    """Writes the version, loads it as a reader will, and compares what it computes then."""
    try:
        release: str | None = metadata.version("ebseg")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        release = None
    notes = {key: value for key, value in loaded.manifest.training.items() if key != "forced"}
    manifest = save(
        loaded.ebseg,
        folder,
        Provenance(
            name=name,
            version=1,  # the number is not known yet; `_seal` writes it
            untrained=loaded.manifest.untrained,
            metrics=finite(source.metrics),
            notes=notes
            | {
                "run": source.name,
                "source": loaded.manifest.digest,
                "measured": {key: source.metrics.get(key) for key in ("data", "split")},
                "stored_as": dtype,
                "ebseg": release,
            },
            license=described.license,
            card=described.card,
        ),
        store_as=DTYPES[dtype],
        progress=progress,
    )
    check_golden(load(folder, progress=progress))
    return manifest


def _seal(folder: Path, staged: Manifest, number: int, passed: _Passed) -> Manifest:
    """Writes the manifest again, with what is known only now."""
    manifest = dataclasses.replace(
        staged,
        version=number,
        parent=passed.current.digest if passed.current is not None else None,
        training=staged.training | passed.notes,
    )
    (folder / MANIFEST).unlink()
    write_text(folder / MANIFEST, manifest.to_json())
    return manifest


def _placed(
    store: Store, reservation: VersionReservation, folder: Path, manifest: Manifest, progress: Progress
) -> bool:
    try:
        store.place(reservation, folder, manifest, progress)
    except TakenError:
        return False
    store.versions.check(reservation.number)
    return True
