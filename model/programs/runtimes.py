"""Files of `making`, read and run as somebody without this package would do it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.programs.making import INPUTS
from model.storage.golden import OUTPUTS

Program = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def torch_export_program(path: Path) -> Program:
    """By torch.export's own loader."""
    with open(path, "rb") as file:
        module = torch.export.load(file).module()

    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(module(images, sizes))

    return run


def onnxruntime_program(path: Path) -> Program:
    """By onnxruntime, on as many threads of the CPU as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; below them it tells of every initializer that it drops
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        fed = {name: tensor.numpy() for name, tensor in zip(INPUTS, (images, sizes), strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(OUTPUTS, fed))

    return run


def openvino_program(path: Path) -> Program:
    """By OpenVINO, on as many threads of the CPU as torch uses, in float32."""
    import openvino

    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        found = compiled({name: own.numpy() for name, own in zip(INPUTS, (images, sizes), strict=True)})
        return tuple(torch.from_numpy(found[name].copy()) for name in OUTPUTS)

    return run
