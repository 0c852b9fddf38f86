"""Benchmark of other runtimes: the same network, exported, beside ours, in turn in one run on a CPU."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from model.bench.engine import WARM_UP_ROUNDS, Progress, in_turn
from model.errors import ModelError
from model.network.ebseg import EBSeg
from model.network.pictures import pad_to, padded_size
from model.programs.making import program_of, write_onnx
from model.programs.runtimes import Program, onnxruntime_program, openvino_program
from model.storage.golden import largest_error

LOADERS: Mapping[str, Callable[[Path], Program]] = {
    "onnxruntime": onnxruntime_program,
    "openvino": openvino_program,
}


def bench_runtime(
    ebseg: EBSeg, picture: Tensor, runtime: str, *, runs: int, progress: Progress
) -> dict[str, Any]:
    """One picture through our network and through another runtime's, which takes minutes to make.

    Args:
        ebseg: on a CPU, in float32.
        picture: uint8 [3, rows, columns].
        runtime: a key of `LOADERS`.
        runs: timed ones of each.
        progress: told about the steps.

    Returns:
        JSON values; `ratio` is the runtime's processor seconds over ours, so below 1 it is the faster one.
        Other work on the machine moves it less than `seconds_ratio`, the same of wall time.
        `largest_difference` is between outputs, relative.

    Raises:
        ModelError: the model is elsewhere or in another number type.
    """
    if ebseg.device.type != "cpu" or any(own.dtype != torch.float32 for own in ebseg.parameters()):
        raise ModelError(f"--runtime {runtime} is compared on a CPU in float32: --device cpu --dtype float32")
    size = (picture.shape[1], picture.shape[2])
    shape = padded_size(size)
    images, sizes = pad_to(picture, shape)[None], torch.tensor([size])
    with TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        progress(f"exporting the network for {shape[0]} x {shape[1]}")
        write_onnx(program_of(ebseg, shape), file, "{}")
        progress(f"loading it into {runtime}")
        program = LOADERS[runtime](file)

    @torch.inference_mode()
    def ours() -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = ebseg(images, sizes)
        return found

    spent: dict[str, list[float]] = {"ours": [], "theirs": []}

    def timed(name: str, function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            began = time.process_time()
            function()
            spent[name].append(time.process_time() - began)

        return run

    seconds = in_turn([timed("ours", ours), timed("theirs", lambda: program(images, sizes))], runs, progress)
    ours_s, theirs_s = (statistics.median(own) for own in seconds)
    processor = {
        name: statistics.median(own[WARM_UP_ROUNDS : WARM_UP_ROUNDS + len(seconds[0])])
        for name, own in spent.items()
    }
    return {
        "runtime": runtime,
        "ours_seconds_median": ours_s,
        "seconds_median": theirs_s,
        "ours_processor_seconds_median": processor["ours"],
        "processor_seconds_median": processor["theirs"],
        "ratio": processor["theirs"] / processor["ours"],
        "seconds_ratio": theirs_s / ours_s,
        "largest_difference": largest_error(program(images, sizes), ours()),
    }
