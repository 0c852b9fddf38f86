"""Real checkpoints for a registry, broken in every way that there is, and models that watch it."""

import os
import shutil
from pathlib import Path

from torch import Tensor

from model.storage.manifest import GOLDEN, WEIGHTS
from service.hot_loading.loader import LoadEngine
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.scheduling.torch_engine import load_engine
from service.settings import Settings
from tests.model.checkpoints import BIG_TENSOR, edit_tensors, put, reseal
from tests.service.fakes import picture
from tests.service.hot_loading.model_fakes import FakeDevice

NAME = "ebseg-tiny"


def flipped_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    put(folder / WEIGHTS, bytes(content))


def not_a_number(folder: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["background"].view(-1)[0] = float("nan")

    edit_tensors(folder / WEIGHTS, edit)
    reseal(folder)


def wrong_shape(folder: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[BIG_TENSOR] = tensors[BIG_TENSOR].T.contiguous()

    edit_tensors(folder / WEIGHTS, edit)
    reseal(folder)


def wrong_golden(folder: Path) -> None:
    edit_tensors(folder / GOLDEN, lambda tensors: tensors["supervised"].mul_(1.01))
    reseal(folder)


def wrong_text_digest(folder: Path) -> None:
    reseal(folder, text_digest="0" * 64)


def too_long(folder: Path) -> None:
    put(folder / WEIGHTS, (folder / WEIGHTS).read_bytes() + b"x")


BROKEN = {
    2: (flipped_byte, "model.safetensors does not match its sha256"),
    3: (not_a_number, "model.safetensors: tensor background holds NaN or infinity"),
    4: (wrong_shape, f"model.safetensors does not fit the model: {BIG_TENSOR} has shape"),
    5: (wrong_golden, "the golden image's outputs are off by more than"),
    6: (wrong_text_digest, "the manifest's text_digest is not that of the text tower"),
    7: (too_long, "model.safetensors has"),
}


def copied(saved: Path, folder: Path, number: int) -> Path:
    """A version of its own, by links to the saved one's files."""
    shutil.copytree(saved, folder, copy_function=os.link)
    reseal(folder, version=number)
    return folder


def started(registry: str | Path, *, poll: float = 1000.0, load: LoadEngine = load_engine) -> Models:
    settings = Settings(registry=str(registry), model=NAME, device="cpu", registry_poll_s=poll)
    return Models(settings, Metrics(), [FakeDevice()], load)


def prediction(models: Models) -> Tensor:
    with models.lease() as lease:
        (engine,) = lease.engines
        (made,) = engine.predict([engine.prepare(picture(64, 64))])
        mask_logits: Tensor = made.masks.mask_logits
        return mask_logits
