"""Keeps what the service answered, and compares it afterwards with what each picture gets alone."""

import hashlib
import io
import json
import threading
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model.network.label_map import LabelMap
from model.network.predictions import MaskPredictions
from model.segmenter import Segmenter
from model.storage import checkpoint
from tests.load.workload import Wanted, Workload

CLOSE = 1e-5  # where the two best scores are closer, either label is right
CONFIDENCE = 1e-4  # mean confidences may differ by so much


@dataclass(frozen=True, order=True, slots=True)
class Asked:
    """What an answer depends on: version, picture, vocabulary; and the form that it came in."""

    version: int
    picture: int
    vocabulary: int
    form: str


@dataclass(slots=True)
class Findings:
    """Sums over all answers, each as often as it was given."""

    answers: int = 0
    distinct: int = 0
    pixels: int = 0
    differing_pixels: int = 0  # labels that are not those of the picture alone
    wrong_pixels: int = 0  # those of them where the two best scores are not close
    largest_confidence_error: float = 0.0
    by_version: "Counter[int]" = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


class Judge:
    """Collects answers while the load runs; `findings` is slow.

    Args:
        workload: that the numbers of `Asked` refer to.
    """

    def __init__(self, workload: Workload):
        self._workload = workload
        self._bodies: dict[tuple[Asked, bytes], bytes] = {}
        self._counts: Counter[tuple[Asked, bytes]] = Counter()
        self._lock = threading.Lock()

    def keep(self, asked: Asked, body: bytes, request_id: str) -> str | None:
        """Notes an answer. Says what is wrong with it, if that shows without the model."""
        if asked.form == "json":
            document = json.loads(body)
            if document["request_id"] != request_id:
                return "the document has another request's id"
            names = [entry["name"] for entry in document["classes"]]
            if names != list(self._workload.vocabularies[asked.vocabulary].names):
                return "the document has another request's classes"
            if document["model"]["version"] != asked.version:
                return "document and header name different versions"
            kept = {key: document.get(key) for key in ("size", "classes", "other")}
            body = json.dumps(kept, sort_keys=True).encode()
        key = (asked, hashlib.sha256(body).digest())
        with self._lock:
            if key not in self._bodies:
                self._bodies[key] = zlib.compress(body, 1)
            self._counts[key] += 1
        return None

    def findings(self, versions: dict[int, Path]) -> Findings:
        """Compares all that was kept.

        Args:
            versions: folders of the checkpoints that may have answered.
        """
        made = Findings()
        alone: dict[int, Alone] = {}
        for (asked, digest), compressed in sorted(self._bodies.items()):
            if asked.version not in versions:
                made.complaints.append(f"version {asked.version} answered, and must not")
                continue
            if asked.version not in alone:
                alone.clear()  # they come in order, and one in memory is enough
                alone[asked.version] = Alone(versions[asked.version], self._workload)
            count = self._counts[asked, digest]
            made.answers += count
            made.distinct += 1
            made.by_version[asked.version] += count
            _compare(asked, zlib.decompress(compressed), alone[asked.version], count, made)
        return made


class Alone:
    """What a version makes of each picture when nothing else is going on.

    Args:
        folder: of the checkpoint.
        workload: whose pictures and vocabularies.
    """

    def __init__(self, folder: Path, workload: Workload):
        self._segmenter = Segmenter(checkpoint.load(folder).ebseg)
        self._workload = workload
        self._predictions: dict[int, MaskPredictions] = {}
        self._texts: dict[int, torch.Tensor] = {}

    def label_map(self, picture: int, wanted: Wanted) -> LabelMap:
        """Labels and confidences at the picture's size."""
        return self._segmenter.label_map(
            self._prediction(picture),
            wanted.vocabulary(),
            output_size=self._size(picture),
            text=self._text(wanted),
            threshold=wanted.threshold or 0.0,
        )

    def close_calls(self, picture: int, wanted: Wanted, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels where another label is as right, bool [H, W]."""
        scores = self._segmenter.score_maps(
            self._prediction(picture),
            wanted.vocabulary(),
            output_size=self._size(picture),
            text=self._text(wanted),
        )
        best = scores.topk(2, 0).values
        close: NDArray[np.bool_] = (best[0] - best[1] < CLOSE).numpy()
        if wanted.threshold is not None:
            close |= np.abs(confidence - wanted.threshold) < CLOSE
        return close

    def _prediction(self, picture: int) -> MaskPredictions:
        if picture not in self._predictions:
            pixels = self._workload.pictures[picture].pixels
            self._predictions[picture] = self._segmenter.predict([self._segmenter.prepare(pixels)])
        return self._predictions[picture]

    def _text(self, wanted: Wanted) -> torch.Tensor:
        if wanted.number not in self._texts:
            vocabulary = wanted.vocabulary()
            self._texts[wanted.number] = self._segmenter.ebseg.encode_text(
                vocabulary.names, vocabulary.templates
            )
        return self._texts[wanted.number]

    def _size(self, picture: int) -> tuple[int, int]:
        rows, columns, _ = self._workload.pictures[picture].pixels.shape
        return rows, columns


def _compare(asked: Asked, body: bytes, alone: Alone, count: int, made: Findings) -> None:
    wanted = alone._workload.vocabularies[asked.vocabulary]
    expected = alone.label_map(asked.picture, wanted)
    labels, confidences = _read(asked.form, body, len(wanted.names))
    if labels.shape != expected.labels.shape:
        made.complaints.append(f"{asked}: of shape {labels.shape}, not {expected.labels.shape}")
        return
    made.pixels += count * labels.size
    differing = labels != expected.labels
    if differing.any():
        wrong = differing & ~alone.close_calls(asked.picture, wanted, expected.confidence)
        made.differing_pixels += count * int(differing.sum())
        made.wrong_pixels += count * int(wrong.sum())
        if wrong.any():
            made.complaints.append(f"{asked}: {int(wrong.sum())} of {labels.size} labels are wrong")
            return
    for label, reported in enumerate(confidences, start=1):
        mine = expected.confidence[labels == label]
        if (reported is None) != (mine.size == 0):
            made.complaints.append(f"{asked}: mean confidence {reported} of {mine.size} pixels")
        elif reported is not None:
            error = abs(reported - float(mine.mean(dtype=np.float64)))
            made.largest_confidence_error = max(made.largest_confidence_error, error)
            if error > CONFIDENCE:
                made.complaints.append(f"{asked}: the mean confidence of label {label} is off by {error:.2g}")


def _read(form: str, body: bytes, classes: int) -> tuple[NDArray[np.uint16], list[float | None]]:
    """Labels [H, W] of an answer, and its mean confidences where it has some."""
    if form == "npy":
        labels: NDArray[np.uint16] = np.load(io.BytesIO(body), allow_pickle=False)
        return labels, []
    if form == "png":
        with Image.open(io.BytesIO(body)) as opened:
            return np.asarray(opened).astype(np.uint16), []
    document: dict[str, Any] = json.loads(body)
    size = document["size"]
    labels = np.zeros((size["height"], size["width"]), np.uint16)
    owners = np.zeros(labels.shape, np.uint16)
    for entry in document["classes"]:
        mask = _mask(entry["rle"])
        labels[mask] = entry["label"]
        owners += mask
        if entry["area"] != int(mask.sum()):
            raise ValueError(f"area {entry['area']} of a mask of {int(mask.sum())} pixels")
    if owners.max(initial=0) > 1 or len(document["classes"]) != classes:
        raise ValueError("masks overlap, or classes are missing")
    return labels, [entry["mean_confidence"] for entry in document["classes"]]


def _mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
        decoded: NDArray[np.uint8] = coco.decode({**rle, "counts": rle["counts"].encode()})
    return decoded.astype(bool)
