"""What is looked at on a machine with a GPU: that it computes what a CPU does, waits, speeds, memory.

Every check is one entry of the report, with its figures and whether they are as they should be.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from model.bench.gpu_card import CheckedDevice
from model.errors import ModelError
from model.network.copies import download, upload
from model.network.device import number_type
from model.network.ebseg import EBSeg
from model.network.label_map import LabelMap
from model.network.predictions import MaskPredictions
from model.segmenter import LabelRequest, Segmenter
from model.storage import golden
from model.storage.checkpoint import check_golden, load
from model.vocabulary.classes import Vocabulary
from training.config import TrainConfig
from training.losses.criterion import EBSegLoss
from training.losses.matcher import Target
from training.run.loss_module import on_device
from training.run.optim import build_optimizer, clip_gradients

MOST_WAITS = {"predict": 0, "label maps": 2, "training step": 4}
# Least share of labels, and least median cosine of the embeddings, against float32 on a CPU
LABELS = {"float32": 0.999, "bfloat16": 0.99, "float16": 0.99}
COSINE = 0.995
LOSS = 1e-3  # relative, of a training step in float32
GROWTH_BYTES = 2**20  # of memory over a soak
RUNS = 5
PRODUCT_SIDE = 2048  # of the matrices whose product is timed beside predict
Check = Callable[["Subject"], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What the checks look at.

    Attributes:
        card: the device.
        folder: of the checkpoint.
        on_cpu, on_card: its model.
        vocabulary: of the label maps.
        text: its embeddings, on the CPU.
        sizes: rows and columns of two pictures of one padded shape.
        batches: pictures that are predicted together for speed.
        soak_s: seconds that the last check takes.
    """

    card: CheckedDevice
    folder: Path
    on_cpu: EBSeg
    on_card: EBSeg
    vocabulary: Vocabulary
    text: Tensor
    sizes: tuple[tuple[int, int], tuple[int, int]]
    batches: Sequence[int]
    soak_s: float

    @classmethod
    def of(
        cls, card: CheckedDevice, folder: Path, *, side: int, batches: Sequence[int], soak_s: float
    ) -> "Subject":
        """Loads the checkpoint twice; pictures have about this side, pixels."""
        loaded = load(folder).ebseg
        vocabulary = Vocabulary.of([item.name for item in loaded.training_classes.classes][:150])
        return cls(
            card=card,
            folder=folder,
            on_cpu=loaded,
            on_card=copy.deepcopy(loaded).to(card.device),
            vocabulary=vocabulary,
            text=loaded.encode_text(vocabulary.words, vocabulary.templates),
            sizes=((side, side), (side - 3, side - 1)),
            batches=batches,
            soak_s=soak_s,
        )

    def in_numbers(self, dtype: str) -> EBSeg:
        """The model on the card, in another number type."""
        return copy.deepcopy(self.on_cpu).to_compute_dtype(getattr(torch, dtype)).to(self.card.device)

    def pictures(self) -> list[Tensor]:
        """By formula, uint8 [3, rows, columns]."""
        return [golden.image(*size) for size in self.sizes]

    def requests(self, ebseg: EBSeg, predictions: Sequence[MaskPredictions]) -> list[LabelRequest]:
        """A label map of each picture, and one of four times the pixels."""
        text = upload(self.text, ebseg.device)
        sizes = [*self.sizes, (2 * self.sizes[0][0], 2 * self.sizes[0][1])]
        return [
            LabelRequest(
                predictions=predictions[i % len(predictions)],
                vocabulary=self.vocabulary,
                output_size=size,
                text=text,
            )
            for i, size in enumerate(sizes)
        ]

    def label_maps(self, ebseg: EBSeg) -> list[LabelMap]:
        """Of all requests."""
        predictions = ebseg.predict_each(self.pictures())
        return Segmenter(ebseg).label_maps(self.requests(ebseg, predictions))


def golden_outputs(subject: Subject) -> dict[str, Any]:
    """The checkpoint's golden picture, in float32 as IEEE 754 has it."""
    loaded = load(subject.folder, device=str(subject.card.device))
    try:
        error = check_golden(loaded)
    except ModelError as wrong:
        return {"passed": False, "error": str(wrong)}
    return {"passed": True, "largest_relative_error": error, "allowed": golden.TOLERANCE}


def parity(subject: Subject) -> dict[str, Any]:
    """Labels and embeddings of each number type against float32 on the CPU."""
    wanted = subject.label_maps(subject.on_cpu)
    reference = subject.on_cpu.predict(subject.pictures()[0][None]).tensors()
    figures: dict[str, Any] = {}
    for dtype, least in LABELS.items():
        try:
            number_type(dtype, subject.card.device)
        except ModelError as refused:
            figures[dtype] = {"refused": str(refused)}
            continue
        own = subject.in_numbers(dtype)
        found = subject.label_maps(own)
        same = min(float((a.labels == b.labels).mean()) for a, b in zip(found, wanted, strict=True))
        computed = own.predict(subject.pictures()[0][None]).tensors()
        cosines = {
            name: float(cosine_similarity(download([computed[name]])[0], reference[name], dim=-1).median())
            for name in ("supervised", "mask_attention", "frozen")
        }
        passed = same >= least and min(cosines.values()) >= COSINE
        figures[dtype] = {"labels_equal": same, "cosines": cosines, "passed": passed}
    return {"passed": all(one.get("passed", True) for one in figures.values()), **figures}


def batched_is_alone(subject: Subject) -> dict[str, Any]:
    """Pictures of one padded shape in one batch against each alone, largest relative difference."""
    together = subject.on_card.predict_each(subject.pictures())
    worst = 0.0
    for picture, own in zip(subject.pictures(), together, strict=True):
        (alone,) = subject.on_card.predict_each([picture])
        for name, tensor in own.tensors().items():
            other = alone.tensors()[name]
            difference, size = download([(tensor - other).norm(), other.norm()])
            worst = max(worst, float(difference) / max(float(size), 1e-12))
    return {"passed": worst <= golden.TOLERANCE, "largest_relative_error": worst}


def waits(subject: Subject) -> dict[str, Any]:
    """How often the host waits, each step having run before."""
    ebseg, segmenter = subject.on_card, Segmenter(subject.on_card)
    requests = subject.requests(ebseg, ebseg.predict_each(subject.pictures()))
    step = _TrainingStep(subject, copy.deepcopy(subject.on_card))
    steps: dict[str, Callable[[], object]] = {
        "predict": lambda: ebseg.predict_each(subject.pictures()),
        "label maps": lambda: segmenter.label_maps(requests),
        "training step": step,
    }
    figures: dict[str, dict[str, Any]] = {}
    for name, run in steps.items():
        run()
        with subject.card.waits() as found:
            run()
        figures[name] = {"waits": len(found), "allowed": MOST_WAITS[name], "where": list(found)}
    return {"passed": all(one["waits"] <= one["allowed"] for one in figures.values()), **figures}


def training(subject: Subject) -> dict[str, Any]:
    """The loss of three steps in float32 on the card and on the CPU."""
    on_card = _TrainingStep(subject, copy.deepcopy(subject.on_card))
    on_cpu = _TrainingStep(subject, copy.deepcopy(subject.on_cpu))
    losses = [(on_card(), on_cpu()) for _ in range(3)]
    worst = max(abs(a - b) / max(abs(b), 1e-12) for a, b in losses)
    return {"passed": worst <= LOSS, "losses": losses, "largest_relative_error": worst}


def speed(subject: Subject) -> dict[str, Any]:
    """Seconds of predict by batch, in the number type that "auto" takes, and of a product in the same run."""
    dtype = number_type("auto", subject.card.device)
    own = subject.in_numbers(dtype)
    picture = subject.pictures()[0]
    figures: dict[str, Any] = {"dtype": dtype}
    for size in subject.batches:
        seconds = _median(subject.card, partial(own.predict_each, [picture] * size))
        figures[f"batch {size}"] = {"seconds": seconds, "pictures_per_second": size / seconds}
    matrix = torch.ones(PRODUCT_SIDE, PRODUCT_SIDE, dtype=getattr(torch, dtype), device=subject.card.device)
    figures["product_flops_per_second"] = 2 * PRODUCT_SIDE**3 / _median(subject.card, lambda: matrix @ matrix)
    return {"passed": True, **figures}


def soak(subject: Subject) -> dict[str, Any]:
    """The same pictures over and over: the labels stay, and memory does."""
    first = subject.label_maps(subject.on_card)
    subject.label_maps(subject.on_card)
    before, end = subject.card.memory(), time.monotonic() + subject.soak_s
    rounds, stayed = 0, True
    while rounds == 0 or time.monotonic() < end:
        again = subject.label_maps(subject.on_card)
        stayed &= all(np.array_equal(a.labels, b.labels) for a, b in zip(first, again, strict=True))
        rounds += 1
    after = subject.card.memory()
    grown = after["bytes"] - before["bytes"]
    return {
        "passed": stayed and grown <= GROWTH_BYTES,
        "rounds": rounds,
        "labels_stayed": stayed,
        "grown_bytes": grown,
        **after,
    }


CHECKS: dict[str, Check] = {
    "golden": golden_outputs,
    "parity": parity,
    "batched": batched_is_alone,
    "waits": waits,
    "training": training,
    "speed": speed,
    "soak": soak,
}


def run_checks(subject: Subject, notify: Callable[[str], None]) -> dict[str, Any]:
    """All of them, one after the other; one that raises has failed, and the others run."""
    report: dict[str, Any] = {"card": subject.card.describe(), "torch": torch.__version__}
    for name, check in CHECKS.items():
        notify(name)
        began = time.monotonic()
        try:
            found = check(subject)
        except Exception as error:  # whatever a card does, the report says it
            found = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        report[name] = {**found, "took_s": time.monotonic() - began}
    report["passed"] = all(report[name]["passed"] for name in CHECKS)
    return report


class _TrainingStep:
    """A step on two pictures with four masks each, at fixed points; gives its loss."""

    def __init__(self, subject: Subject, ebseg: EBSeg) -> None:
        config = TrainConfig(data="none", variant=ebseg.config.variant, points=1024)
        self._ebseg = ebseg.train()
        self._optimizer, _ = build_optimizer(ebseg, config)
        self._loss = EBSegLoss(points=config.points)
        self._clip_norm = config.clip_norm
        device, side = ebseg.device, min(subject.sizes[0])
        self._images = torch.stack([golden.image(side, side), golden.image(side, side).flip(2)])
        quarters = torch.zeros(4, side, side, dtype=torch.bool)
        half = side // 2
        for i, mask in enumerate(quarters):
            mask[(i // 2) * half : (i // 2 + 1) * half, (i % 2) * half : (i % 2 + 1) * half] = True
        target = Target(labels=torch.arange(4) % len(subject.text), masks=quarters)
        self._targets = [on_device(target, device) for _ in range(2)]
        points = torch.rand(config.points, 2, generator=torch.Generator().manual_seed(0))
        self._text, self._points = upload(subject.text, device), upload(points, device)

    def __call__(self) -> float:
        ebseg = self._ebseg
        self._optimizer.zero_grad(set_to_none=True)
        stages = ebseg.stages(upload(self._images, ebseg.device))
        classifier = ebseg.classifier(self._text)
        total = self._loss(stages, classifier, self._text, self._targets, self._points).total
        total.backward()
        clip_gradients(self._optimizer, self._clip_norm)
        self._optimizer.step()
        return float(download([total.detach()])[0])


def _median(card: CheckedDevice, run: Callable[[], object]) -> float:
    """Seconds of a run, of so many after two that warm it up."""
    seconds = []
    for number in range(RUNS + 2):
        card.settle()
        began = time.perf_counter()
        run()
        card.settle()
        if number >= 2:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
