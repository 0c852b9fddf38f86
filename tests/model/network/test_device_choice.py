"""What "auto" means on each kind of processor, and which number types are refused there."""

import pytest
import torch

from model.errors import ModelError
from model.network import device as choice
from model.network.device import device_named, number_type

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def cpu_has(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(choice, "_cpu", lambda question: question in {f"_is_{x}_supported" for x in names})


@pytest.mark.parametrize(
    ("units", "wanted"),
    [
        (("avx2",), "float32"),
        (("avx2", "avx512"), "float32"),
        (("avx2", "avx512", "avx512_bf16"), "bfloat16"),
        (("avx2", "avx512", "amx_tile"), "bfloat16"),
    ],
)
def test_auto_on_a_cpu(units: tuple[str, ...], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_has(monkeypatch, *units)
    assert number_type("auto", CPU) == wanted
    assert number_type("float32", CPU) == "float32"


@pytest.mark.parametrize(
    ("capability", "wanted"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_auto_on_a_gpu(capability: tuple[int, int], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert number_type("auto", GPU) == wanted
    assert number_type("float16", GPU) == "float16"
    if wanted == "float32":
        with pytest.raises(ModelError, match="emulated on cuda:0"):
            number_type("bfloat16", GPU)
    else:
        assert number_type("bfloat16", GPU) == "bfloat16"


def test_emulated_types_are_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_has(monkeypatch, "avx2")
    for name, times in (("bfloat16", 50), ("float16", 36)):
        with pytest.raises(ModelError, match=f"{name} is emulated .* about {times} times slower"):
            number_type(name, CPU)
    cpu_has(monkeypatch, "avx2", "avx512", "amx_fp16")
    assert [number_type(name, CPU) for name in ("bfloat16", "float16")] == ["bfloat16", "float16"]


def test_the_processor_is_asked_what_torch_can_answer() -> None:
    for name in ("avx512", "amx_tile", "avx512_bf16", "amx_fp16"):
        assert choice._cpu(f"_is_{name}_supported") in (True, False)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == CPU
    with pytest.raises(ModelError, match="the device 'nowhere' cannot be used"):
        device_named("nowhere")
