"""Which device a model runs on, and which numbers it computes with, where "auto" is asked for.

A number type that a processor only emulates is refused: it would be served in silence, many times slower.
"""

from typing import Any

import torch

from model.errors import ModelError

AUTO = "auto"
AMPERE = (8, 0)  # the first NVIDIA GPUs with bfloat16 units
# One product of 512 x 512 on one core of a server CPU, in times of float32's: bfloat16 without AVX-512
# (measured on AVX2), float16 without AMX-FP16 (measured with AVX-512)
SLOWER_ON_CPU = {"bfloat16": 50, "float16": 36}


def device_named(name: str) -> torch.device:
    """A device by torch's name, or for "auto" the first GPU, and a CPU where there is none.

    Raises:
        ModelError: there is no such device here.
    """
    if name == AUTO:
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the device {name!r} cannot be used, take auto or cpu: {reason}") from None


def number_type(name: str, device: torch.device) -> str:
    """The number type to compute with on a device, float32, bfloat16 or float16.

    Args:
        name: one of them, or "auto": bfloat16 where the processor has units for it, which are NVIDIA's GPUs
            from Ampere on and CPUs with AMX or AVX512-BF16; else float32.
        device: where the model is.

    Raises:
        ModelError: the device only emulates the type.
    """
    if name == AUTO:
        return "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if name == "bfloat16" and device.type == "cuda" and _capability(device) < AMPERE:
        raise ModelError(f"bfloat16 is emulated on {device}, slower than float32 is; take float16 or auto")
    if device.type == "cpu" and name in SLOWER_ON_CPU and not _is_quick(name):
        raise ModelError(
            f"{name} is emulated on this processor, about {SLOWER_ON_CPU[name]} times slower than float32; "
            "take float32 or auto"
        )
    return name


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return _capability(device) >= AMPERE
    return device.type == "cpu" and (_cpu("_is_amx_tile_supported") or _cpu("_is_avx512_bf16_supported"))


def _is_quick(name: str) -> bool:
    """Whether a CPU is not much slower with a half type: with AVX-512, bfloat16 is as fast as float32."""
    return _cpu("_is_avx512_supported" if name == "bfloat16" else "_is_amx_fp16_supported")


def _cpu(question: str) -> bool:
    asked: Any = getattr(torch.cpu, question)
    return bool(asked())


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
