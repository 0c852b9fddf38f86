"""The golden picture: an input stored with a checkpoint beside what `predict` made of it.

It tells, wherever the checkpoint is loaded, that the model there computes what it computed where it
was saved. Both compute in float32 as IEEE 754 has it: TF32, which a GPU may take for products, would move
the outputs of a sound EBSeg-B by more than `TOLERANCE`.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.network.ebseg import EBSeg
from model.network.precision import ieee_float32

# Other processors and torch builds add up in another order. Noise of that size (each weight moved by 1e-7
# of itself) moves the outputs by 1e-6, and where it tips a pixel over a mask's threshold by up to 1e-4
# (base) or 1e-3 (tiny); a wrong weight, resize or activation moves them by 1e-2 and more.
TOLERANCE = 1e-3
OUTPUTS = ("mask_logits", "supervised", "mask_attention", "frozen")


def make(ebseg: EBSeg) -> dict[str, Tensor]:
    """Tensors of golden.safetensors: `image`, uint8 [3, H, W], and `OUTPUTS` of `predict` on it, B = 1."""
    picture = image(*((96, 128) if ebseg.config.short_side < 256 else (160, 192)))
    training = ebseg.training
    ebseg.eval()
    try:
        return {"image": picture, **_predict(ebseg, picture)}
    finally:
        ebseg.train(training)


def compare(ebseg: EBSeg, golden: Mapping[str, Tensor]) -> float:
    """Runs the golden picture, and compares with the stored outputs.

    Returns:
        The largest relative error of an output (norm of the difference over the norm of the stored one).

    Raises:
        CheckpointError: an error above `TOLERANCE`, or tensors that do not fit the model.
    """
    absent = {"image", *OUTPUTS} - golden.keys()
    if absent:
        raise CheckpointError(f"the golden image's file lacks {', '.join(sorted(absent))}")
    found = _predict(ebseg, golden["image"])
    errors = {}
    for name in OUTPUTS:
        if found[name].shape != golden[name].shape:
            stored, given = list(golden[name].shape), list(found[name].shape)
            raise CheckpointError(f"golden output {name} has shape {stored}, the model gives {given}")
        errors[name] = relative_error(found[name], golden[name])
    # "not within" instead of "above", so that NaN is wrong as well
    wrong = [f"{name} by {error:.2g}" for name, error in errors.items() if not error <= TOLERANCE]
    if wrong:
        raise CheckpointError(
            f"the golden image's outputs are off by more than the {TOLERANCE:g} allowed: "
            f"{', '.join(wrong)} (computed {_where(ebseg)}): the weights are not those that made the golden "
            "file, or this installation or device computes something else"
        )
    return max(errors.values())


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    expected = wanted.double()
    return float((found.double() - expected).norm() / expected.norm().clamp_min(1e-12))


def largest_error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest `relative_error` of an output; infinity where there is NaN."""
    errors = [relative_error(a, b) for a, b in zip(found, wanted, strict=True)]
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def image(height: int, width: int) -> Tensor:
    """A smooth picture by formula, uint8 [3, height, width]: slow waves, in each channel another way."""
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)[None, :]
    waves = [torch.sin(2 * torch.pi * (a * x + b * y) + c) for a, b, c in ((1, 2, 0), (3, -1, 1), (-2, 3, 2))]
    return (127.5 + 100 * torch.stack(waves)).round().to(torch.uint8)


@torch.no_grad()
def _predict(ebseg: EBSeg, picture: Tensor) -> dict[str, Tensor]:
    with ieee_float32():
        predictions = ebseg.predict(picture[None].to(ebseg.device))
    return predictions.map(lambda output: output.detach().cpu().contiguous()).tensors()


def _where(ebseg: EBSeg) -> str:
    """Device and precision of a model, in words."""
    device = ebseg.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    precision = str(ebseg.background.dtype).removeprefix("torch.")
    return f"on {device}{f' ({name})' if name else ''} in {precision}, IEEE"
