"""Benchmark of a training step: how near it comes to three times the forward pass' ideal time.

A backward pass does about twice the work of its forward pass, so a step cannot take less than three
times the forward's floating point work at the machine's own matrix-product rate. As in model/bench
the rate is measured in turn with the steps, and every figure is printed with what it is made of. Where
other work takes turns with it, the same ratio of processor time says more than that of seconds passed.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.allocator import keep_freed_memory
from model.bench.batches import OperationCounter
from model.bench.engine import (
    MATRIX_SIDE,
    WARM_UP_ROUNDS,
    Progress,
    in_turn,
    limit_dtype,
    limit_figures,
    machine,
    matrix_product,
    peak_bytes,
)
from model.bench.gpu_card import card_here
from model.network.build import build
from model.network.config import VARIANTS
from model.network.copies import copies_of
from model.network.device import device_named
from model.network.ebseg import EBSeg
from model.vocabulary.classes import TrainingClasses
from training.config import Amp, TrainConfig
from training.losses.criterion import EBSegLoss
from training.losses.matcher import Target
from training.run.loss_module import on_device
from training.run.optim import build_optimizer, clip_gradients
from training.run.pace import TIMES_FORWARD, forward_flops

AUTOCAST: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
PARTS = ("forward", "loss", "backward", "optimizer")


def bench_train(
    *,
    variant: str,
    size: int,
    batch: int,
    masks: int,
    points: int,
    dtype: str,
    device: str,
    steps: int,
    progress: Progress,
) -> dict[str, Any]:
    """Steps of the released training: all stages, the whole loss, clipping and AdamW.

    Args:
        variant: name of the configuration; its weights are random.
        size: side of the square pictures, pixels.
        batch: pictures a step.
        masks: ground-truth masks of each picture, regions that cover it.
        points: at how many points masks are compared.
        dtype: float32, or bfloat16 for the model under autocast.
        device: torch's name, or "auto".
        steps: timed ones, after the warm-up.
        progress: notified of the steps.

    Returns:
        JSON values; `ratio` is three times the forward's ideal seconds over the seconds of a step,
        `ratio_spread` the smallest and largest of a round, `ratio_of_processor_time` the same of seconds
        on all processors together, None on a GPU; `launches` the operations that a step asks the device for.
    """
    keep_freed_memory()
    place = device_named(device)
    card = card_here() if place.type == "cuda" else None
    progress("building the model")
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=0).to(place).train()
    weights = ebseg.weight_bytes
    amp: Amp = "off" if dtype == "float32" else "bfloat16"
    config = TrainConfig(data="none", variant=variant, batch=batch, crop=size, points=points, amp=amp)
    step = _Step(ebseg, config, masks, AUTOCAST[dtype])
    flops = forward_flops(ebseg, size, batch)
    products_dtype = AUTOCAST[dtype] or torch.float32
    limit = limit_dtype(products_dtype, progress) if place.type == "cpu" else products_dtype
    timings = _in_turn_with_products(
        step, _settled(matrix_product(limit, device=place), place), steps, progress
    )
    peak = peak_bytes() if card is None else card.memory()["peak_bytes"]
    with OperationCounter() as launches:
        step()
    timed = slice(WARM_UP_ROUNDS, WARM_UP_ROUNDS + len(timings.step))  # not the one counted just now
    return {
        "bench": "train",
        "variant": variant,
        "size": size,
        "batch": batch,
        "masks": masks,
        "points": points,
        "dtype": dtype,
        "device": str(place),
        "card": None if card is None else card.describe(),
        **machine(),
        "steps": len(timings.step),
        "seconds": timings.step,
        "seconds_median": statistics.median(timings.step),
        "seconds_by_part": {part: statistics.median(times[timed]) for part, times in step.seconds.items()},
        **limit_figures(products_dtype, limit),
        "matmul_seconds": timings.product,
        **_ratios(timings, flops),
        **({} if place.type == "cpu" else {"ratio_of_processor_time": None}),
        "launches": launches.count,
        "loss": step.losses[-1],
        "weights_bytes": weights,
        "peak_bytes": peak,
        "peak_over_weights_bytes": peak - weights,
    }


class _Step:
    """One step of training each time it is called; it notes the loss, and the seconds of each of `PARTS`."""

    def __init__(self, ebseg: EBSeg, config: TrainConfig, masks: int, autocast: torch.dtype | None):
        self.images, self._targets, self._text = _batch(ebseg, config.crop, config.batch, masks)
        self._ebseg = ebseg
        self._settle = copies_of(ebseg.device).settle  # a GPU is done later than asked
        self._autocast = autocast
        self._clip_norm = config.clip_norm
        self._optimizer, _ = build_optimizer(ebseg, config)
        self._loss = EBSegLoss(points=config.points)
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        self.losses: list[float] = []

    def __call__(self) -> None:
        with (
            self._timing("forward"),
            torch.autocast(self._ebseg.device.type, self._autocast, enabled=self._autocast is not None),
        ):
            stages = self._ebseg.stages(self.images)
        with self._timing("loss"):
            classifier = self._ebseg.classifier(self._text)
            total = self._loss(stages, classifier, self._text, self._targets).total
        with self._timing("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            total.backward()
        with self._timing("optimizer"):
            clip_gradients(self._optimizer, self._clip_norm)
            self._optimizer.step()
        self.losses.append(total.item())

    @contextmanager
    def _timing(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._settle()
        self.seconds[part].append(time.perf_counter() - start)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timings:
    """Steps and matrix products, timed in turn.

    Attributes:
        step, product: seconds of each round.
        step_work, product_work: seconds on all processors together, of each round.
    """

    step: list[float]
    product: list[float]
    step_work: list[float]
    product_work: list[float]


def _in_turn_with_products(
    step: Callable[[], object], product: Callable[[], object], rounds: int, progress: Progress
) -> _Timings:
    step_work: list[float] = []
    product_work: list[float] = []
    seconds = in_turn([_timed(step, step_work), _timed(product, product_work)], rounds, progress)
    return _Timings(
        step=seconds[0],
        product=seconds[1],
        step_work=step_work[WARM_UP_ROUNDS : WARM_UP_ROUNDS + len(seconds[0])],
        product_work=product_work[WARM_UP_ROUNDS : WARM_UP_ROUNDS + len(seconds[0])],
    )


def _ratios(timings: _Timings, flops: float) -> dict[str, Any]:
    """How near a step comes to three times the forward's ideal, and what that is made of.

    Args:
        timings: of `_in_turn_with_products`.
        flops: floating point operations of the forward.
    """
    products = TIMES_FORWARD * flops / (2 * MATRIX_SIDE**3)  # a step's ideal, in matrix products
    rate = 2 * MATRIX_SIDE**3 / statistics.median(timings.product)
    ratios = [products * b / a for a, b in zip(timings.step, timings.product, strict=True)]
    step_work, product_work = statistics.median(timings.step_work), statistics.median(timings.product_work)
    return {
        "matmul_flops_per_second": rate,
        "forward_flops": flops,
        "forward_ideal_seconds": flops / rate,
        "ratio": TIMES_FORWARD * flops / rate / statistics.median(timings.step),
        "ratio_spread": [min(ratios), max(ratios)],
        "processor_seconds_median": step_work,
        "ratio_of_processor_time": products * product_work / step_work,
    }


def _settled(function: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The function, which now also waits until its device is done."""
    settle = copies_of(device).settle

    def run() -> None:
        function()
        settle()

    return run


def _timed(function: Callable[[], object], times: list[float]) -> Callable[[], None]:
    """The function, which now also notes the seconds that all processors together spend on it."""

    def run() -> None:
        start = time.process_time()
        function()
        times.append(time.process_time() - start)

    return run


def _batch(ebseg: EBSeg, size: int, batch: int, masks: int) -> tuple[Tensor, list[Target], Tensor]:
    """Pictures of noise, each split into regions of the nearest of random places, and class embeddings."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    classes = len(ebseg.training_classes.classes)
    targets = []
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    for _ in range(batch):
        places = size * torch.rand(masks, 2, generator=generator)
        nearest = torch.cdist(pixels, places).argmin(1).view(size, size)
        targets.append(
            Target(
                labels=torch.randperm(classes, generator=generator)[:masks],
                masks=torch.stack([nearest == place for place in range(masks)]),
            )
        )
    # their values do not matter here
    text = torch.nn.functional.normalize(
        torch.randn(classes, ebseg.config.clip.joint_width, generator=generator), dim=-1
    )
    device = ebseg.device
    return images.to(device), [on_device(target, device) for target in targets], text.to(device)
