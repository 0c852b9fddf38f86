"""Files of pretrained encoders as their authors publish them, made at tiny size."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from model import VARIANTS, CheckpointError, EBSeg, EBSegConfig, TrainingClasses
from model.network.build import build
from model.network.config import ClipConfig, SamConfig, SwinConfig
from training.storybook.pretrain.clip_model import open_clip_model

CLIP = ClipConfig(
    joint_width=16,
    image_size=32,
    patch_size=8,
    image_width=32,
    image_layers=4,
    image_heads=4,
    text_width=16,
    text_layers=2,
    text_heads=2,
    context_length=8,
    text_vocabulary=32,
)
SAM = SamConfig(
    image_size=64, patch_size=16, width=16, layers=4, heads=2, window=2, global_blocks=(0, 1, 2, 3)
)
SWIN = SwinConfig(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4)


def config(**changes: Any) -> EBSegConfig:
    small: dict[str, Any] = {"clip": CLIP, "sam": SAM, "fused_layers": (1, 2, 3)} | changes
    return dataclasses.replace(VARIANTS["tiny"], **small)


def model(seed: int = 0, **changes: Any) -> EBSeg:
    return build(config(**changes), TrainingClasses.of(["sky"]), seed=seed)


def with_swin(seed: int = 0) -> EBSeg:
    return model(seed, variant="tiny-swin-t", sam=None, swin=SWIN)


def clip_state(half: bool = False) -> dict[str, Tensor]:
    """A state dict with OpenAI's names, as open_clip gives it too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state: dict[str, Tensor] = open_clip_model(CLIP).state_dict()
    state.pop("attn_mask", None)
    return {name: tensor.half() if half else tensor for name, tensor in state.items()}


class Bare(nn.Module):
    """A tree of modules that holds the tensors of a state dict; OpenAI's archive has such a tree."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def archive(state: dict[str, Tensor], path: Path) -> Path:
    """Saves a state dict as a TorchScript archive."""
    root = Bare()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Bare())
            module = module.get_submodule(parent)
        if tensor.is_floating_point():
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(last, tensor)
    with warnings.catch_warnings():  # torch leaves TorchScript behind; OpenAI's files stay what they are
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.trace(root, torch.zeros(1), check_trace=False), path)
    return path


def openai_archive(path: Path) -> Path:
    numbers = {"input_resolution": 32, "context_length": 8, "vocab_size": 32}
    return archive(clip_state(half=True) | {n: torch.tensor(v) for n, v in numbers.items()}, path)


def whole_sam() -> Sam:
    """segment_anything's whole model, built as its builder does, at tiny size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return Sam(
            image_encoder=ImageEncoderViT(
                depth=4,
                embed_dim=16,
                img_size=64,
                num_heads=2,
                patch_size=16,
                use_rel_pos=True,
                global_attn_indexes=(0, 1, 2, 3),
                window_size=2,
                out_chans=8,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=8, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(depth=1, embedding_dim=8, mlp_dim=8, num_heads=2),
                transformer_dim=8,
            ),
        )


def timm_swin(**changes: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        tower: nn.Module = timm.create_model(
            "swin_tiny_patch4_window7_224",
            embed_dim=8,
            depths=(2, 2, 2, 2),
            num_heads=(1, 2, 4, 8),
            window_size=4,
            img_size=128,
            num_classes=3,
            **changes,
        )
        return tower


def saved(tensors: dict[str, Any], path: Path) -> Path:
    torch.save(tensors, path)
    return path


def refused(load_one: Callable[[EBSeg, Path], Any], ebseg: EBSeg, path: Path) -> str:
    before = {name: tensor.clone() for name, tensor in ebseg.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_one(ebseg, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ebseg.state_dict().items())
    assert str(path) in str(caught.value)
    return str(caught.value)
