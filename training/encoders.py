"""Weights of pretrained encoders, into an EBSeg and out of it.

Read are the files that the encoders' authors publish, by their own names, and the files that the
functions here write. Every tensor of the encoder has to be there and has to fit, heads and windows
included where the file tells them; parts that EBSeg has no use for are left out and counted. Position
tables keep their own size: EBSeg resizes them for each picture.

    CLIP    OpenAI's .pt (TorchScript), a state dict of it, open_clip's .safetensors
    SAM     segment_anything's .pth
    Swin    timm's .safetensors or state dict, Microsoft's .pth
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from model.errors import CheckpointError
from model.network.ebseg import EBSeg
from model.released.misfits import check_tensors
from model.released.torch_file import read_state_dict
from model.storage.files import read_tensors, replacing
from training.torchscript import is_torchscript, read_torchscript

CLIP_PARTS = ("clip_image.", "clip_text.", "mask_attention.")
BACKBONE = "backbone."
# What OpenAI's archive holds beside weights.
CLIP_LEFT_OUT = ("input_resolution", "context_length", "vocab_size", "attn_mask")
SAM_PREFIX = "image_encoder."
SAM_LEFT_OUT = ("image_encoder.neck", "prompt_encoder", "mask_decoder")
SWIN_LEFT_OUT = ("norm", "head")
SWIN_TABLES = ("relative_position_index", "attn_mask")  # computed, but part of older state dicts


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What became of a file.

    Attributes:
        tensors: how many were taken.
        left_out: how many were not, by the part that they belong to.
    """

    tensors: int
    left_out: dict[str, int] = field(default_factory=dict)


def load_clip(ebseg: EBSeg, path: Path) -> Loaded:
    """Loads both of CLIP's towers, from OpenAI's names or from a file of `ebseg pretrain clip`.

    Raises:
        CheckpointError: the file is unreadable, or does not fit; the message names the tensors.
    """
    return _load(ebseg, path, "clip", clip_names(ebseg), _clip_part)


def load_sam(ebseg: EBSeg, path: Path) -> Loaded:
    """Loads SAM's image encoder, from segment_anything's names or from a file of `save_sam`.

    Raises:
        CheckpointError: as `load_clip`, or the model's image backbone is not SAM.
    """
    names = {name: SAM_PREFIX + name.removeprefix(BACKBONE) for name in _own(ebseg, "sam")}
    return _load(ebseg, path, "sam", names, _sam_part)


def load_swin(ebseg: EBSeg, path: Path) -> Loaded:
    """Loads a Swin, from timm's or Microsoft's names or from a file of `save_swin`.

    Raises:
        CheckpointError: as `load_clip`, or the model's image backbone is not a Swin.
    """
    names = {name: name.removeprefix(BACKBONE) for name in _own(ebseg, "swin")}
    return _load(ebseg, path, "swin", names, _swin_part)


def save_sam(ebseg: EBSeg, path: Path) -> None:
    """Writes SAM's image encoder as safetensors, with its sizes; whole, in place of an older file.

    Raises:
        CheckpointError: the model's image backbone is not SAM.
    """
    _save(ebseg, path, "sam")


def save_swin(ebseg: EBSeg, path: Path) -> None:
    """Writes the Swin as `save_sam` does.

    Raises:
        CheckpointError: the model's image backbone is not a Swin.
    """
    _save(ebseg, path, "swin")


def clip_names(ebseg: EBSeg) -> dict[str, str]:
    """{our tensor's name: OpenAI's}, for both towers; the mask attention has the last image blocks."""
    first = ebseg.config.fused_layers[-1]
    names = {}
    for name in _own(ebseg, "clip"):
        part, rest = name.split(".", 1)
        if part == "mask_attention" and (block := re.match(r"blocks\.(\d+)\.", rest)):
            rest = f"blocks.{first + int(block[1])}.{rest[block.end() :]}"
        rest = re.sub(r"^blocks\.", "transformer.resblocks.", rest)
        names[name] = rest if part == "clip_text" else f"visual.{rest}"
    return names


def _own(ebseg: EBSeg, encoder: str) -> dict[str, Tensor]:
    """The model's own tensors of an encoder."""
    if encoder != "clip" and getattr(ebseg.config, encoder) is None:
        other = "a Swin" if encoder == "sam" else "SAM"
        raise CheckpointError(
            f"the variant {ebseg.config.variant} has {other} as its image backbone, not {encoder}"
        )
    parts = CLIP_PARTS if encoder == "clip" else (BACKBONE,)
    return {name: tensor for name, tensor in ebseg.state_dict().items() if name.startswith(parts)}


def _sizes(ebseg: EBSeg, encoder: str) -> dict[str, Any]:
    """All that two models must agree on to share the encoder's weights, as JSON values."""
    sizes = dataclasses.asdict(getattr(ebseg.config, encoder))
    if encoder == "clip":
        sizes["fused_layers"] = ebseg.config.fused_layers
    plain: dict[str, Any] = json.loads(json.dumps(sizes))
    return plain


def _save(ebseg: EBSeg, path: Path, encoder: str) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in _own(ebseg, encoder).items()}
    metadata = {
        "encoder": encoder,
        "variant": ebseg.config.variant,
        "sizes": json.dumps(_sizes(ebseg, encoder)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        safetensors.torch.save_file(tensors, partial, metadata)


def _load(
    ebseg: EBSeg, path: Path, encoder: str, names: Mapping[str, str], left_out: Callable[[str], str | None]
) -> Loaded:
    """Checks and copies tensors.

    Args:
        ebseg: the model.
        path: the file.
        encoder: clip, sam or swin.
        names: {our name: name in the published file}.
        left_out: the part of a published file's tensor that EBSeg has no use for, None of one that it has.
    """
    tensors, metadata = _read(path)
    own = _own(ebseg, encoder)
    parts: Counter[str] = Counter()
    try:
        if "encoder" in metadata:
            names = {name: name for name in own}
            _check_encoder(metadata, encoder)
        else:
            if encoder == "swin":
                tensors = _merging_first(tensors)
            parts = Counter(part for part in map(left_out, tensors) if part)
            tensors = {name: tensor for name, tensor in tensors.items() if not left_out(name)}
        check_tensors(tensors, {theirs: own[ours].shape for ours, theirs in names.items()})
        if "encoder" in metadata:
            _check_sizes(metadata, _sizes(ebseg, encoder))
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                raise CheckpointError(f"tensor {name} is {tensor.dtype}, not floating point")
            if not tensor.isfinite().all():
                raise CheckpointError(f"tensor {name} holds values that are not finite")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(tensors[theirs])
    return Loaded(tensors=len(names), left_out=dict(parts))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata of a safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there, or is no file")
    if path.suffix == ".safetensors":
        tensors = read_tensors(path, mapped=True)  # of gigabytes, and copied at once
        with safe_open(path, "pt") as file:
            return tensors, file.metadata() or {}
    if is_torchscript(path):
        return read_torchscript(path), {}
    return read_state_dict(path), {}


def _check_encoder(metadata: Mapping[str, str], encoder: str) -> None:
    if metadata["encoder"] != encoder:
        raise CheckpointError(f"it holds the encoder {metadata['encoder']}, not {encoder}")


def _check_sizes(metadata: Mapping[str, str], wanted: Mapping[str, Any]) -> None:
    """What shapes do not tell, as the number of heads."""
    sizes = json.loads(metadata["sizes"])
    for name, value in wanted.items():
        if sizes.get(name) != value:
            raise CheckpointError(
                f"it was made for the variant {metadata['variant']} with {name} {sizes.get(name)}, "
                f"this model has {value}"
            )


def _clip_part(name: str) -> str | None:
    last = name.rpartition(".")[2]
    return last if last in CLIP_LEFT_OUT else None


def _sam_part(name: str) -> str | None:
    return next((part for part in SAM_LEFT_OUT if name.startswith(f"{part}.")), None)


def _swin_part(name: str) -> str | None:
    table = next((table for table in SWIN_TABLES if name.endswith(f".{table}")), None)
    return table or next((part for part in SWIN_LEFT_OUT if name.startswith(f"{part}.")), None)


def _merging_first(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Microsoft's files merge tokens at the end of a stage, timm at the beginning of the next."""
    if not any(name.startswith("layers.0.downsample.") for name in tensors):
        return tensors
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name): tensor
        for name, tensor in tensors.items()
    }
