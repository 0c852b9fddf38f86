"""Benchmark of a training step: how near it comes to three times the forward pass' ideal time.

A backward pass does about twice the work of its forward pass, so a step cannot take less than three
times the forward's floating point work at the machine's own matrix-product rate. As in model/bench.py
the rate is measured in turn with the steps, and every figure is printed with what it is made of. Where
other work takes turns with it, the same ratio of processor time says more than that of seconds passed.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.allocator import keep_freed_memory
from model.bench import (
    MATRIX_SIDE,
    Progress,
    in_turn,
    limit_dtype,
    limit_figures,
    machine,
    matrix_product,
    peak_bytes,
    weights_size,
)
from model.network.build import build
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.vocabulary.classes import TrainingClasses
from training.config import Amp, TrainConfig
from training.losses.criterion import EBSegLoss
from training.losses.matcher import Target
from training.run.optim import build_optimizer, clip_gradients

TIMES_FORWARD = 3
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
        steps: timed ones, after the warm-up.
        progress: told about the steps.

    Returns:
        JSON values; `ratio` is three times the forward's ideal seconds over the seconds of a step,
        `ratio_spread` the smallest and largest of a round, `ratio_of_processor_time` the same of seconds
        on all processors together.
    """
    keep_freed_memory()
    progress("building the model")
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=0).train()
    weights = weights_size(ebseg)
    images, targets, text = _batch(ebseg, size, batch, masks)
    flops = _forward_flops(ebseg, images)
    amp: Amp = "off" if dtype == "float32" else "bfloat16"
    config = TrainConfig(data="", variant=variant, batch=batch, crop=size, points=points, amp=amp)
    optimizer, _ = build_optimizer(ebseg, config)
    loss = EBSegLoss(points=config.points)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    totals: list[float] = []

    def step() -> None:
        times = [time.perf_counter()]
        with torch.autocast("cpu", AUTOCAST[dtype], enabled=AUTOCAST[dtype] is not None):
            stages = ebseg.stages(images)
        times.append(time.perf_counter())
        total = loss(stages, ebseg.classifier(text), text, targets).total
        times.append(time.perf_counter())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        times.append(time.perf_counter())
        clip_gradients(optimizer, config.clip_norm)
        optimizer.step()
        times.append(time.perf_counter())
        totals.append(total.item())
        for part, start, end in zip(PARTS, times[:-1], times[1:], strict=True):
            seconds[part].append(end - start)

    products_dtype = AUTOCAST[dtype] or torch.float32
    limit = limit_dtype(products_dtype, progress)
    on_processors: list[list[float]] = [[], []]
    functions: list[Callable[[], object]] = [
        _timed(function, times)
        for function, times in zip((step, matrix_product(limit)), on_processors, strict=True)
    ]
    step_seconds, product_seconds = in_turn(functions, steps, progress)
    # floating point operations of a step's ideal, in matrix products
    products = TIMES_FORWARD * flops / (2 * MATRIX_SIDE**3)
    ratios = [products * b / a for a, b in zip(step_seconds, product_seconds, strict=True)]
    rate = 2 * MATRIX_SIDE**3 / statistics.median(product_seconds)
    median = statistics.median(step_seconds)
    step_work, product_work = (statistics.median(times[-steps:]) for times in on_processors)
    peak = peak_bytes()
    return {
        "bench": "train",
        "variant": variant,
        "size": size,
        "batch": batch,
        "masks": masks,
        "points": points,
        "dtype": dtype,
        **machine(),
        "steps": steps,
        "seconds": step_seconds,
        "seconds_median": median,
        "seconds_by_part": {part: statistics.median(times[-steps:]) for part, times in seconds.items()},
        **limit_figures(products_dtype, limit),
        "matmul_seconds": product_seconds,
        "matmul_flops_per_second": rate,
        "forward_flops": flops,
        "forward_ideal_seconds": flops / rate,
        "ratio": TIMES_FORWARD * flops / rate / median,
        "ratio_spread": [min(ratios), max(ratios)],
        "processor_seconds_median": step_work,
        "ratio_of_processor_time": products * product_work / step_work,
        "loss": totals[-1],
        "weights_bytes": weights,
        "peak_bytes": peak,
        "peak_over_weights_bytes": peak - weights,
    }


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
    return images, targets, text


def _forward_flops(ebseg: EBSeg, images: Tensor) -> float:
    """Of all stages' outputs; counting stumbles over what could have gradients."""
    trained = [parameter for parameter in ebseg.parameters() if parameter.requires_grad]
    ebseg.requires_grad_(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            ebseg.stages(images)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return float(counter.get_total_flops())
