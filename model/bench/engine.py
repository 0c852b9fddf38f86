"""Benchmarks of the model: how near the engine comes to what the machine can do.

Seconds mean nothing on a shared machine, so every figure is a ratio of two things timed in one run,
in turn, as medians after a warm-up. Each benchmark returns one JSON object with the ratio and
everything that it is made of: `seconds` are of wall time, rates floating point operations a second (a
product and a sum are two), sizes bytes.
"""

import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import VARIANTS, EBSeg, Segmenter, TrainingClasses, Vocabulary
from model.allocator import keep_freed_memory
from model.network.build import build
from model.network.copies import copies_of, upload
from model.network.device import device_named
from model.storage.checkpoint import load

MATRIX_SIDE = 2048
WARM_UP_ROUNDS = 3  # after which the allocator has settled
TRIAL_SIDE = 512  # emulated products of the full size take seconds each
TRIAL_RUNS = 5
# Necessary work of base at 640 x 640, as design/performance counts it; other shapes are counted.
BASE_640_FLOPS = 590e9
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Progress = Callable[[str], None]


def bench_engine(
    *,
    variant: str,
    checkpoint: Path | None,
    size: int,
    classes: int,
    dtype: str,
    device: str,
    batch: list[int],
    compiled: bool,
    shape: tuple[int, int] | None,
    runtime: str | None,
    runs: int,
    progress: Progress,
) -> dict[str, Any]:
    """A picture to a label map, against the device's own matrix-product rate.

    The limit is the necessary floating point work over the rate of a 2048^3 matrix product of the
    same type (`limit_dtype` says when of another), taken between the runs, on a GPU before them. The
    vocabulary's text embeddings are at hand, as in a service.

    Args:
        variant, checkpoint: the model.
        size: side of the square picture, pixels.
        classes: of the vocabulary.
        dtype: that the model computes in.
        device: torch's name, or "auto".
        batch: numbers of pictures that `predict` is measured with besides (`device_bench`); on a GPU always.
        compiled: whether `torch.compile` makes the network for that.
        shape: rows and columns of the picture instead of the square.
        runtime: another one that runs the network, in turn with ours (`bench_runtime`).
        runs: timed ones.
        progress: told about the steps.
    """
    from model.bench.batches import bench_batches
    from model.bench.gpu_card import card_here
    from model.bench.runtimes import bench_runtime

    keep_freed_memory()
    progress("building the model")
    ebseg = model_of(variant, checkpoint)
    weights = ebseg.weight_bytes
    vocabulary = vocabulary_of(classes)
    text = ebseg.encode_text(vocabulary.names, ["a photo of a {}."])  # their values do not matter here
    shape = shape or (size, size)
    place = device_named(device)
    segmenter = Segmenter(
        ebseg.to_compute_dtype(DTYPES[dtype]).to(place), short_side=None, long_side=max(shape)
    )
    picture = segmenter.prepare(picture_array(*shape))
    there = upload(text, place)
    stages: dict[str, list[float]] = {"predict": [], "classify": []}

    def run() -> None:
        start = time.perf_counter()
        predictions = segmenter.predict([picture])
        middle = time.perf_counter()
        segmenter.label_map(predictions, vocabulary, output_size=shape, text=there)
        stages["predict"].append(middle - start)
        stages["classify"].append(time.perf_counter() - middle)

    flops = BASE_640_FLOPS
    if (ebseg.config.variant, shape) != ("base", (640, 640)):
        with FlopCounterMode(display=False) as counter:
            run()
        flops = float(counter.get_total_flops())
    card = card_here() if place.type == "cuda" else None
    batches: dict[str, Any] = {"device": str(place)}
    limit = DTYPES[dtype]
    if place.type != "cpu" or batch or compiled:
        batches = bench_batches(
            ebseg,
            picture,
            batch or [1],
            flops=flops,
            dtype=dtype,
            compiled=compiled,
            card=card,
            runs=runs,
            progress=progress,
        )
    if runtime is not None:
        batches["runtime"] = bench_runtime(ebseg, picture, runtime, runs=runs, progress=progress)
    if place.type == "cpu":
        limit = limit_dtype(limit, progress)
        seconds, product_seconds = in_turn([run, matrix_product(limit)], runs, progress)
        rate = 2 * MATRIX_SIDE**3 / statistics.median(product_seconds)
    else:
        (seconds,) = in_turn([run], runs, progress)
        rate = batches["device_matmul_flops_per_second"]
    median, rounds = statistics.median(seconds), len(seconds)
    return {
        "bench": "engine",
        "variant": ebseg.config.variant,
        "checkpoint": str(checkpoint) if checkpoint else "untrained",
        "size": size,
        "shape": list(shape),
        "classes": classes,
        "dtype": dtype,
        **machine(),
        "runs": rounds,
        "seconds": seconds,
        "seconds_median": median,
        "seconds_by_stage": {name: statistics.median(times[-rounds:]) for name, times in stages.items()},
        **limit_figures(DTYPES[dtype], limit),
        "matmul_flops_per_second": rate,
        "necessary_flops": flops,
        "ideal_seconds": flops / rate,
        "fraction_of_limit": flops / rate / median,
        "weights_bytes": weights,
        "peak_bytes": peak_bytes(),
        **batches,
    }


def bench_text(
    *,
    variant: str,
    checkpoint: Path | None,
    classes: int,
    size: int,
    device: str,
    runs: int,
    progress: Progress,
) -> dict[str, Any]:
    """Embedding unseen class names with 14 templates, in units of one float32 `predict`."""
    keep_freed_memory()
    progress("building the model")
    place = device_named(device)
    segmenter = Segmenter(model_of(variant, checkpoint).to(place), short_side=None)
    settle = copies_of(place).settle  # a GPU is done later than asked
    picture = segmenter.prepare(picture_array(size, size))
    names = Vocabulary.builtin("ade20k-847").names
    fresh = _unseen(names, classes)
    text_seconds, predict_seconds = in_turn(
        [
            lambda: (segmenter.ebseg.encode_text(next(fresh)), settle()),
            lambda: (segmenter.predict([picture]), settle()),
        ],
        runs,
        progress,
    )
    text, predict = statistics.median(text_seconds), statistics.median(predict_seconds)
    return {
        "bench": "text",
        "variant": segmenter.ebseg.config.variant,
        "classes": classes,
        "templates": 14,
        "size": size,
        "device": str(place),
        **machine(),
        "runs": len(text_seconds),
        "seconds": text_seconds,
        "seconds_median": text,
        "predict_seconds_median": predict,
        "ratio": text / predict,
        "peak_bytes": peak_bytes(),
    }


def bench_memory(
    *,
    variant: str,
    checkpoint: Path | None,
    width: int,
    height: int,
    classes: int,
    dtype: str,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Peak memory over the weights' own size while a large picture gets many classes; a GPU's where it is."""
    from model.bench.gpu_card import card_here

    keep_freed_memory()
    progress("building the model")
    place = device_named(device)
    ebseg = model_of(variant, checkpoint).to_compute_dtype(DTYPES[dtype]).to(place)
    card = card_here() if place.type == "cuda" else None
    weights = ebseg.weight_bytes
    segmenter = Segmenter(ebseg)
    progress(f"segmenting {width} x {height} pixels into {classes} classes")
    start = time.perf_counter()
    labels = segmenter.segment(picture_array(height, width), vocabulary_of(classes)).labels
    peak = peak_bytes() if card is None else card.memory()["peak_bytes"]
    return {
        "bench": "memory",
        "variant": ebseg.config.variant,
        "width": width,
        "height": height,
        "classes": classes,
        "dtype": dtype,
        "device": str(place),
        **machine(),
        "seconds": time.perf_counter() - start,
        "distinct_labels": int(np.unique(labels).size),
        "weights_bytes": weights,
        "peak_bytes": peak,
        "peak_over_weights_bytes": peak - weights,
    }


def model_of(variant: str, checkpoint: Path | None) -> EBSeg:
    """A checkpoint's model, or one with random weights."""
    if checkpoint is not None:
        ebseg = load(checkpoint).ebseg
    else:
        ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=0)
    return ebseg.requires_grad_(False)  # counting operations stumbles over what could have gradients


def vocabulary_of(classes: int) -> Vocabulary:
    """So many classes, each of one word list."""
    names = Vocabulary.builtin("ade20k-847").names
    more = [f"thing number {i}" for i in range(classes - len(names))]
    return Vocabulary.of((names + more)[:classes])


def _unseen(names: list[str], classes: int) -> Iterator[list[str]]:
    """Endless lists of class names, each with words that the lists before did not have."""
    serial = 0
    while True:
        start = serial * classes % len(names)
        some = (names[start:] + names)[:classes]
        yield some if serial * classes < len(names) else [f"{name} {serial}" for name in some]
        serial += 1


def picture_array(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth waves; inference takes as long on any picture."""
    rows = (np.sin(np.arange(height) * 0.02) * 60 + 60).astype(np.uint8)
    columns = (np.cos(np.arange(width) * 0.03) * 60 + 60).astype(np.uint8)
    plane = rows[:, None] + columns
    return np.stack([plane, plane[::-1], plane[:, ::-1]], -1)


def matrix_product(
    dtype: torch.dtype, side: int = MATRIX_SIDE, device: torch.device | str = "cpu"
) -> Callable[[], object]:
    """A product of two square matrices, 2 * side^3 floating point operations, to be timed."""
    a = torch.randn(side, side).to(dtype).to(device)
    b = torch.randn(side, side).to(dtype).to(device)
    return lambda: a @ b


def limit_dtype(dtype: torch.dtype, progress: Progress) -> torch.dtype:
    """The type whose matrix products are the machine's limit for work in `dtype`.

    That is `dtype` itself, unless the processor has no instructions for it: then its products are
    emulated, and float32's, which the work could be done in as well, are the faster ones.
    """
    if dtype == torch.float32:
        return dtype
    products = [matrix_product(one, TRIAL_SIDE) for one in (dtype, torch.float32)]
    for product in products:
        product()
    seconds: list[list[float]] = [[], []]
    for _ in range(TRIAL_RUNS):
        for product, times in zip(products, seconds, strict=True):
            start = time.process_time()  # other work on the machine does not count
            product()
            times.append(time.process_time() - start)
    own, float32 = map(statistics.median, seconds)
    if own <= float32:
        return dtype
    progress(
        f"this processor emulates {_name(dtype)}: the limit is float32's, {own / float32:.1f} times faster"
    )
    return torch.float32


def limit_figures(dtype: torch.dtype, limit: torch.dtype) -> dict[str, Any]:
    """In which type the limit was measured, and whether the machine emulates the one asked for."""
    return {"matmul_dtype": _name(limit), "dtype_emulated": limit != dtype}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_turn(functions: list[Callable[[], object]], runs: int, progress: Progress) -> list[list[float]]:
    """Seconds of each function: warm-ups, then `runs` rounds in which each is timed once.

    Ctrl-C ends it after the rounds that are whole, if there is one; progress says how long it will take.
    """
    last = 0.0  # seconds of the last round
    for warm_up in range(WARM_UP_ROUNDS):
        progress(f"warm-up {warm_up + 1} of {WARM_UP_ROUNDS}{_rest(last, WARM_UP_ROUNDS - warm_up + runs)}")
        began = time.perf_counter()
        for function in functions:
            function()
        last = time.perf_counter() - began
    rounds: list[list[float]] = []
    while len(rounds) < runs:
        progress(f"run {len(rounds) + 1} of {runs}{_rest(last, runs - len(rounds))}")
        try:
            rounds.append([_seconds_of(function) for function in functions])
        except KeyboardInterrupt:
            if not rounds:
                raise
            progress(f"stopped: the figures are of {len(rounds)} of {runs} runs")
            break
        last = sum(rounds[-1])
    return [list(times) for times in zip(*rounds, strict=True)]


def _seconds_of(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _rest(seconds: float, rounds: int) -> str:
    """How long so many rounds will take, where it is known what one takes."""
    return f", about {seconds * rounds:.0f} s to go" if seconds else ""


def peak_bytes() -> int:
    """Largest resident size that the process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, Any]:
    """What the figures depend on, as JSON values."""
    return {"torch": torch.__version__, "cpu": _cpu_name(), "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
