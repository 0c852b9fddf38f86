"""The golden picture finds a model that computes something else."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.errors import CheckpointError, PictureError
from model.network.build import build
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.network.precision import ieee_float32
from model.storage import golden
from model.vocabulary.classes import TrainingClasses
from tests.waiting import WAIT

Golden = dict[str, Tensor]


def make() -> EBSeg:
    """The tiny model with next to no text tower."""
    tiny = VARIANTS["tiny"]
    clip = dataclasses.replace(tiny.clip, text_vocabulary=16, text_layers=1)
    return build(dataclasses.replace(tiny, clip=clip), TrainingClasses.of(["sky"]), seed=0).eval()


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    return make()


@pytest.fixture(scope="module")
def tensors(ebseg: EBSeg) -> Golden:
    return golden.make(ebseg)


def test_the_same_model_agrees(ebseg: EBSeg, tensors: Golden) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "image": (3, 96, 128),
        "mask_logits": (1, 24, 24, 32),
        "supervised": (1, 24, 96),
        "mask_attention": (1, 24, 96),
        "frozen": (1, 24, 96),
    }
    assert golden.compare(ebseg, tensors) <= 1e-6


def test_rounding_is_allowed(tensors: Golden) -> None:
    ebseg = make()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ebseg.parameters():
            parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape, generator=noise))
    assert 0 < golden.compare(ebseg, tensors) <= 1e-4


def test_a_changed_weight_is_found(tensors: Golden) -> None:
    ebseg = make()
    with torch.no_grad():
        ebseg.clip_image.conv1.weight.mul_(1.02)
    with pytest.raises(CheckpointError, match=r"off by more than the 0\.001 allowed: .*frozen by"):
        golden.compare(ebseg, tensors)


def test_another_activation_is_found(tensors: Golden) -> None:
    ebseg = make()
    for module in ebseg.clip_image.modules():
        if isinstance(module, nn.Sequential) and hasattr(module, "gelu"):
            module.gelu = nn.GELU()  # CLIP's is the quick approximation
    with pytest.raises(CheckpointError, match="outputs are off"):
        golden.compare(ebseg, tensors)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("frozen", torch.full((1, 24, 96), float("nan")), "frozen by nan"),
        ("frozen", torch.zeros(2), r"frozen has shape \[2\], the model gives \[1, 24, 96\]"),
        ("image", torch.zeros(2), "images must be uint8"),
        ("image", None, "lacks image"),
        ("mask_logits", None, "lacks mask_logits"),
    ],
)
def test_tensors_must_fit(
    ebseg: EBSeg, tensors: Golden, name: str, value: Tensor | None, reason: str
) -> None:
    changed = {key: tensor for key, tensor in tensors.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises((CheckpointError, ValueError), match=reason):
        golden.compare(ebseg, changed)


def test_small_differences_count_by_their_share(ebseg: EBSeg, tensors: Golden) -> None:
    assert golden.compare(ebseg, tensors | {"supervised": tensors["supervised"] * 1.0005}) == pytest.approx(
        0.0005, rel=0.01
    )
    with pytest.raises(CheckpointError, match=r"supervised by 0\.002"):
        golden.compare(ebseg, tensors | {"supervised": tensors["supervised"] * 1.002})


# --- on hardware that multiplies in TF32


class Tf32(TorchDispatchMode):
    """A GPU that rounds the factors of its products to 10 bits of mantissa wherever torch's settings let it.

    Counts the operations that it has rounded.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounded: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        setting = None
        if "convolution" in name:
            setting = CUDNN.conv.fp32_precision
        elif name in PRODUCTS or "attention" in name:
            setting = torch.backends.cuda.matmul.fp32_precision
        if setting == "tf32":
            self.rounded[name] += 1
            args = [ten_bits(arg) if isinstance(arg, Tensor) else arg for arg in args]
        return func(*args, **(kwargs or {}))


CUDNN: Any = torch.backends.cudnn
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "linear", "matmul", "addbmm", "baddbmm_"}


def ten_bits(tensor: Tensor) -> Tensor:
    """Rounded to the nearest float32 with 10 bits of mantissa."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def tf32_allowed() -> Iterator[None]:
    """As the user of a GPU sets it who wants speed; a convolution may by default."""
    places = (torch.backends.cuda.matmul, CUDNN.conv)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32"
    yield
    assert [place.fp32_precision for place in places] == ["tf32", "tf32"]  # put back by whoever changed it
    for place, setting in zip(places, before, strict=True):
        place.fp32_precision = setting


def test_the_emulated_gpu_rounds(ebseg: EBSeg, tensors: Golden, tf32_allowed: None) -> None:
    """Without the check's own precision its outputs would be off, and by more than is allowed."""
    with Tf32() as gpu:
        found = ebseg.predict(tensors["image"][None])
    assert gpu.rounded.total() > 50
    error = max(
        float((getattr(found, name) - tensors[name]).norm() / tensors[name].norm()) for name in golden.OUTPUTS
    )
    assert error > 2e-4


def test_a_sound_checkpoint_passes_where_products_are_tf32(
    ebseg: EBSeg, tensors: Golden, tf32_allowed: None
) -> None:
    with Tf32() as gpu:
        assert golden.compare(ebseg, tensors) <= 1e-6
    assert not gpu.rounded


def test_a_wrong_one_fails_there(tensors: Golden, tf32_allowed: None) -> None:
    ebseg = make()
    with torch.no_grad():
        ebseg.clip_image.conv1.weight.mul_(1.02)
    with (
        Tf32(),
        pytest.raises(
            CheckpointError, match=r"frozen by 0\.\d+.* \(computed on cpu \(.+\) in float32, IEEE\)"
        ),
    ):
        golden.compare(ebseg, tensors)


def test_golden_outputs_are_made_in_full_precision(ebseg: EBSeg, tensors: Golden, tf32_allowed: None) -> None:
    with Tf32():
        made = golden.make(ebseg)
    assert all(torch.equal(made[name], tensors[name]) for name in tensors)


def test_no_convolution_is_left_that_a_gpu_would_round(ebseg: EBSeg, tensors: Golden) -> None:
    """Only the pixel decoder's two 3x3 convolutions are any, and on a CPU they are products as well."""
    with Tf32() as gpu:
        ebseg.predict(tensors["image"][None])
    assert not any("convolution" in name for name in gpu.rounded)


def test_settings_are_put_back_once_nobody_needs_them(tf32_allowed: None) -> None:
    """Two threads at once: the first one out must not take the precision from the second."""
    inside, leave = threading.Barrier(3), [threading.Event(), threading.Event()]
    place = torch.backends.cuda.matmul

    def hold(event: threading.Event) -> None:
        with ieee_float32():
            inside.wait(WAIT)
            event.wait(WAIT)

    threads = [threading.Thread(target=hold, args=(event,)) for event in leave]
    for thread in threads:
        thread.start()
    inside.wait(WAIT)
    assert place.fp32_precision == "ieee"
    leave[0].set()
    threads[0].join()
    assert place.fp32_precision == "ieee"
    leave[1].set()
    threads[1].join()
    assert place.fp32_precision == "tf32"


def test_settings_are_put_back_after_an_error(ebseg: EBSeg, tensors: Golden, tf32_allowed: None) -> None:
    with pytest.raises(PictureError):
        golden.compare(ebseg, tensors | {"image": torch.zeros(2)})
    assert CUDNN.conv.fp32_precision == "tf32"


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_another_processor_agrees(tensors: Golden, tmp_path: Path, capability: str) -> None:
    """Kernels of older and newer processors add up in another order."""
    safetensors.torch.save_file(tensors, tmp_path / "golden.safetensors")
    code = (
        "import sys, safetensors.torch, torch; from model.storage import golden;"
        "from tests.model.network.test_golden import make;"
        "torch.set_num_threads(1);"
        "print(golden.compare(make(), safetensors.torch.load_file(sys.argv[1])),"
        "torch.backends.cpu.get_cpu_capability())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "golden.safetensors"],
        env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    error, found = done.stdout.split()
    assert float(error) <= 1e-4
    assert found == capability.upper()


def test_picture_is_smooth_and_fills_the_range() -> None:
    picture = golden.image(96, 128)
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 96, 128))
    assert picture.amin() < 32
    assert picture.amax() > 223
    assert picture.int().diff(dim=2).abs().amax() <= 20
    assert torch.equal(picture, golden.image(96, 128))
