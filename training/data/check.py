"""What is wrong with a data set, before anything trains on it: files that cannot be used, and what looks odd.

An error keeps a run from starting or ends it. A warning is something that a data set may be meant to have,
and mostly has by mistake: the bounds below say from where on.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.class_file import read_classes
from training.data.layout import SegmentationFolder, read_labels
from training.data.pictures import is_turned, read_picture
from training.errors import DatasetError
from training.progress import progress

SMALLEST_SIDE = 64  # pixels; a crop is ten times that
LEAST_LABELLED = 0.05  # of a picture's pixels that have a class
MOST_SPECKS = 0.02  # of the pixels whose four neighbours all are of other classes
MOST_NAMED = 10  # classes, in a sentence
FEW_PICTURES = 3  # that show a class, in the split that is trained on
SHOWN = 5  # pictures that a line names
TRAIN = "train"

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, and where.

    Attributes:
        severity: whether it keeps a run from training.
        text: what is wrong, a sentence without the pictures.
        pictures: SPLIT/NAME of those that it is wrong with; empty where it is wrong with the whole.
    """

    severity: Severity
    text: str
    pictures: tuple[str, ...] = ()

    def line(self) -> str:
        """As one line."""
        if not self.pictures:
            return f"{self.severity}: {self.text}"
        named = ", ".join(self.pictures[:SHOWN])
        more = f" and {len(self.pictures) - SHOWN} more" if len(self.pictures) > SHOWN else ""
        return f"{self.severity}: {self.text}: {named}{more}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What a data set holds, and what is wrong with it.

    Attributes:
        root: the data set.
        classes: names of the K classes.
        pictures: of each split.
        shown: for each split the pictures that show each class, [K].
        pixels: for each split the pixels of each class, [K].
        findings: errors first, then what concerns most pictures.
    """

    root: Path
    classes: tuple[str, ...]
    pictures: dict[str, int]
    shown: dict[str, NDArray[np.int64]]
    pixels: dict[str, NDArray[np.int64]]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings keep a run from training."""
        return sum(finding.severity == "error" for finding in self.findings)

    def worst(self, count: int) -> list[tuple[str, str, list[str]]]:
        """Split and name of the pictures with the most wrong with them, an error weighing most, and what."""
        texts: dict[str, list[str]] = defaultdict(list)
        weights = Counter[str]()
        for finding in self.findings:
            for name in finding.pictures:
                texts[name].append(f"{finding.severity}: {finding.text}")
                weights[name] += 1000 if finding.severity == "error" else 1
        ranked = sorted(weights, key=lambda name: (-weights[name], name))[:count]
        return [(*_split_of(name), texts[name]) for name in ranked]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "data": str(self.root),
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "pictures": self.pictures,
            "classes": [
                {"name": name}
                | {
                    split: {"pictures": int(self.shown[split][k]), "pixels": int(self.pixels[split][k])}
                    for split in self.pictures
                }
                for k, name in enumerate(self.classes)
            ],
            "findings": [
                {"severity": one.severity, "text": one.text, "pictures": list(one.pictures)}
                for one in self.findings
            ],
        }


@dataclass(frozen=True, slots=True)
class _Facts:
    """Of one picture: what is wrong with it, the pixels of its classes, and a digest of its file."""

    name: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pixels: dict[int, int] = field(default_factory=dict)
    digest: bytes = b""


def check_data(root: Path, *, jobs: int | None = None, shown: bool = True) -> DataReport:
    """Reads all of a data set and says what is wrong with it.

    Args:
        root: folder in the one layout.
        jobs: threads that read; None takes one a processor.
        shown: whether to show bars on standard error.

    Raises:
        DatasetError: it has no class list, or that is damaged, so that there is nothing to compare with.
    """
    _, classes, trained, _ = read_classes(root)
    splits = sorted({path.name for kind in ("images", "labels") for path in (root / kind).glob("*/")})
    pictures: dict[str, int] = {}
    shows, pixels = ({split: np.zeros(len(classes), np.int64) for split in splits} for _ in range(2))
    found: dict[tuple[Severity, str], list[str]] = defaultdict(list)
    copies: dict[bytes, list[str]] = defaultdict(list)
    for split in splits:
        pictures[split] = 0
        try:
            folder = SegmentationFolder(root, split)
        except DatasetError as error:
            found["error", str(error)] = []
            continue
        pictures[split] = len(folder)
        for facts in _read(folder, jobs or os.cpu_count() or 1, shown):
            where = f"{split}/{facts.name}"
            for text in facts.errors:
                found["error", text].append(where)
            for text in facts.warnings:
                found["warning", text].append(where)
            copies[facts.digest].append(where)
            for k, count in facts.pixels.items():
                shows[split][k] += 1
                pixels[split][k] += count
    for text, names in _copied(copies):
        found["warning", text] += names
    for text in _rare([item.name for item in classes], trained, shows):
        found["warning", text] = []
    if not splits:
        found["error", f"{root / 'images'} holds no split: no folder with images"] = []
    findings = [
        Finding(severity=kind, text=text, pictures=tuple(names)) for (kind, text), names in found.items()
    ]
    findings.sort(key=lambda one: (one.severity != "error", -len(one.pictures)))
    return DataReport(
        root=root,
        classes=tuple(item.name for item in classes),
        pictures=pictures,
        shown=shows,
        pixels=pixels,
        findings=tuple(findings),
    )


def _read(folder: SegmentationFolder, jobs: int, shown: bool) -> Iterator[_Facts]:
    with (
        progress(f"checking {folder.split}", len(folder), shown=shown) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        for facts in pool.map(partial(_facts, folder), folder.names):
            bar.advance()
            yield facts


def _facts(folder: SegmentationFolder, name: str) -> _Facts:
    file, label_file = folder.files(name)
    found = _Facts(name)
    try:
        picture, stored = read_picture(file, remark=found.warnings.append), read_labels(label_file)
    except DatasetError as error:
        return _Facts(name, errors=[str(error)])
    turned = is_turned(file)
    if stored.shape != picture.shape[:2]:
        as_stored = turned and stored.shape == picture.shape[1::-1]
        why = ": its label map was drawn on the image as it is stored" if as_stored else ""
        found.errors.append(f"image and label map differ in size{why}")
        return found
    if turned:
        found.warnings.append(
            "the image is turned by its orientation mark; its label map must be of the turned one"
        )
    if min(stored.shape) < SMALLEST_SIDE:
        found.warnings.append(f"a side is shorter than {SMALLEST_SIDE} pixels")
    values, counts = np.unique(stored, return_counts=True)
    pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    pixels.pop(folder.ignore, None)
    unknown = [value for value in pixels if value >= len(folder.classes)]
    found.errors.extend(
        f"label {value} is no class: labels go from 0 to {len(folder.classes) - 1}, {folder.ignore} is none"
        for value in unknown[:SHOWN]
    )
    labelled = sum(pixels.values())
    if labelled == 0:
        found.warnings.append("no pixel has a class")
    elif labelled < LEAST_LABELLED * stored.size:
        found.warnings.append(f"less than {LEAST_LABELLED:.0%} of the pixels have a class")
    if specks(stored) > MOST_SPECKS:
        found.warnings.append(
            "the label map is full of single pixels, as if it had been resized smoothly or saved as JPEG"
        )
    known = {value: count for value, count in pixels.items() if value < len(folder.classes)}
    digest = hashlib.sha256(file.read_bytes()).digest()
    return _Facts(name, found.errors, found.warnings, known, digest)


def specks(labels: NDArray[np.integer]) -> float:
    """Share of a label map's inner pixels whose four neighbours all have other labels, 0..1."""
    middle = labels[1:-1, 1:-1]
    if middle.size == 0:
        return 0.0
    alone = middle != labels[:-2, 1:-1]
    for neighbour in (labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        alone &= middle != neighbour
    return float(alone.mean())


def _copied(copies: dict[bytes, list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Pictures whose files are equal to the byte, in one split or, which is worse, in two."""
    for digest, names in copies.items():
        if digest and len(names) > 1:
            apart = len({_split_of(name)[0] for name in names}) > 1
            yield (
                "the same image is trained on and scored on" if apart else "the same image comes twice",
                names,
            )


def _rare(
    names: Sequence[str], trained: Sequence[bool], shows: dict[str, NDArray[np.int64]]
) -> Iterable[str]:
    """Classes that no picture shows, or that a run would see too little of: a sentence for each number."""
    unseen, few = [], defaultdict(list)
    for k, name in enumerate(names):
        counts = {split: int(shown[k]) for split, shown in shows.items()}
        if not any(counts.values()):
            unseen.append(name)
        elif TRAIN in counts and trained[k] and counts[TRAIN] < FEW_PICTURES:
            few[counts[TRAIN]].append(name)
    if unseen:
        yield f"no image shows {_listed(unseen)}"
    for count, found in sorted(few.items()):
        each = " each" if len(found) > 1 and count else ""
        yield f"{TRAIN} has {count or 'no'} image{'s' * (count != 1)}{each} with {_listed(found)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _split_of(name: str) -> tuple[str, str]:
    split, _, rest = name.partition("/")
    return split, rest
