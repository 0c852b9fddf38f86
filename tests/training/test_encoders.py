"""Published encoders' files, at tiny size in their exact formats, into EBSeg and out of it."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import ebseg as program
from model import VARIANTS, CheckpointError, EBSeg
from model.storage.checkpoint import load
from tests.training.encoder_files import (
    CLIP,
    SAM,
    clip_state,
    config,
    model,
    openai_archive,
    refused,
    saved,
    timm_swin,
    whole_sam,
    with_swin,
)
from training import encoders
from training.encoders import load_clip, load_sam, load_swin, save_sam, save_swin
from training.storybook.pretrain.clip_model import open_clip_model
from training.torchscript import is_torchscript

# --- CLIP


def save_clip(ebseg: EBSeg, path: Path) -> None:
    """A file as `ebseg pretrain clip` leaves it."""
    encoders._save(ebseg, path, "clip")


def test_openai_archive(tmp_path: Path) -> None:
    path = openai_archive(tmp_path / "ViT-B-16.pt")
    assert is_torchscript(path)
    ebseg = model()
    loaded = load_clip(ebseg, path)
    assert loaded.tensors == len(clip_state())
    assert loaded.left_out == {"input_resolution": 1, "context_length": 1, "vocab_size": 1}
    state = clip_state(half=True)
    assert all(t.dtype == torch.float32 for t in ebseg.state_dict().values())
    for ours, theirs in encoders.clip_names(ebseg).items():
        assert torch.equal(ebseg.state_dict()[ours], state[theirs].float()), ours
    assert [p.requires_grad for p in ebseg.clip_image.parameters()].count(True) == 1


@pytest.mark.parametrize("kind", ["safetensors", "plain", "wrapped"])
def test_state_dicts_of_clip(kind: str, tmp_path: Path) -> None:
    state = clip_state()
    if kind == "safetensors":
        path = tmp_path / "open_clip_model.safetensors"
        safetensors.torch.save_file(state, path, {"format": "pt"})
    else:
        path = saved(state if kind == "plain" else {"state_dict": state, "epoch": 3}, tmp_path / "clip.bin")
    ebseg = model()
    assert load_clip(ebseg, path).left_out == {}
    assert torch.equal(ebseg.mask_attention.proj, state["visual.proj"])


def test_it_computes_what_open_clip_computes(tmp_path: Path) -> None:
    """The whole image tower, so that no two tensors of one shape are swapped; text names are equal anyway."""
    clip = open_clip_model(CLIP).eval()
    clip.load_state_dict(clip_state(), strict=False)
    ebseg = model()
    load_clip(ebseg, saved(clip_state(), tmp_path / "clip.pt"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = nn.functional.normalize(clip.visual(images), dim=-1)
        features = ebseg.clip_image(images, surgery=False)
        no_masks = torch.zeros(2, CLIP.image_heads, 1, 16)
        # without bias, the query row of one block sees what the class token sees
        found, _ = ebseg.mask_attention(features, no_masks)
    assert torch.allclose(found[:, 0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("visual.proj"), "1 missing: visual.proj"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unknown: extra"),
        (
            lambda state: state.update({"visual.conv1.weight": torch.zeros(32, 3, 4, 4)}),
            "visual.conv1.weight is [32, 3, 4, 4] instead of [32, 3, 8, 8]",
        ),
        (
            lambda state: state["ln_final.bias"].fill_(float("nan")),
            "ln_final.bias holds values that are not finite",
        ),
        (
            lambda state: state.update({"ln_final.bias": torch.zeros(16, dtype=torch.int64)}),
            "ln_final.bias is torch.int64, not floating point",
        ),
    ],
)
def test_clip_that_does_not_fit(
    change: Callable[[dict[str, Tensor]], Any], reason: str, tmp_path: Path
) -> None:
    state = clip_state()
    change(state)
    assert reason in refused(load_clip, model(), saved(state, tmp_path / "clip.pt"))


# --- SAM


@pytest.mark.parametrize("own_grid", [True, False])
def test_segment_anythings_file(own_grid: bool, tmp_path: Path) -> None:
    sam = whole_sam()
    path = saved(sam.state_dict(), tmp_path / "sam_vit_b_01ec64.pth")
    ebseg = model()
    if not own_grid:
        other = model(sam=dataclasses.replace(SAM, image_size=128))
        message = refused(load_sam, other, path)
        assert "image_encoder.pos_embed is [1, 4, 4, 16] instead of [1, 8, 8, 16]" in message
        return
    loaded = load_sam(ebseg, path)
    state = sam.state_dict()
    assert loaded.left_out.keys() == {"image_encoder.neck", "prompt_encoder", "mask_decoder"}
    assert loaded.tensors + sum(loaded.left_out.values()) == len(state)
    for name, tensor in ebseg.backbone.state_dict().items():
        assert torch.equal(tensor, state[f"image_encoder.{name}"]), name
    assert ebseg.get_parameter("backbone.pos_embed").requires_grad


def test_sam_lacks_a_block(tmp_path: Path) -> None:
    state = whole_sam().state_dict()
    del state["image_encoder.blocks.3.attn.rel_pos_h"]
    message = refused(load_sam, model(), saved(state, tmp_path / "sam.pth"))
    assert "1 missing: image_encoder.blocks.3.attn.rel_pos_h" in message


def test_another_backbone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tiny-swin-t has a Swin as its image backbone, not sam"):
        load_sam(with_swin(), tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match="tiny has SAM as its image backbone, not swin"):
        save_swin(model(), tmp_path / "swin.safetensors")
    assert not any(tmp_path.iterdir())


# --- Swin


def test_timms_file(tmp_path: Path) -> None:
    tower, ebseg = timm_swin(), with_swin()
    safetensors.torch.save_file(tower.state_dict(), tmp_path / "swin.safetensors")
    loaded = load_swin(ebseg, tmp_path / "swin.safetensors")
    assert loaded.left_out == {"norm": 2, "head": 2}
    for name, tensor in ebseg.backbone.state_dict().items():
        assert torch.equal(tensor, tower.state_dict()[name]), name
    assert not any(parameter.requires_grad for parameter in ebseg.backbone.parameters())


def test_microsofts_file(tmp_path: Path) -> None:
    """Merging belongs to the stage before, and tables that are computed are part of the state."""
    theirs = {}
    for name, tensor in timm_swin().state_dict().items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        theirs[name.replace("head.fc.", "head.")] = tensor
    theirs["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    ebseg = with_swin()
    loaded = load_swin(ebseg, saved({"model": theirs}, tmp_path / "swin.pth"))
    assert loaded.left_out == {"norm": 2, "head": 2, "relative_position_index": 1, "attn_mask": 1}
    wanted = timm_swin().state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in ebseg.backbone.state_dict().items())


# --- own files


@pytest.mark.parametrize("encoder", ["clip", "sam", "swin"])
def test_saved_and_loaded(encoder: str, tmp_path: Path) -> None:
    make = with_swin if encoder == "swin" else model
    source, target, path = make(1), make(2), tmp_path / "deep" / f"{encoder}.safetensors"
    for _ in range(2):  # the second takes the first one's place
        encoders._save(source, path, encoder)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = getattr(encoders, f"load_{encoder}")(target, path)
    parts = encoders.CLIP_PARTS if encoder == "clip" else (encoders.BACKBONE,)
    own, theirs = target.state_dict(), source.state_dict()
    same = {name for name, tensor in own.items() if torch.equal(tensor, theirs[name])}
    assert {name for name in own if name.startswith(parts)} <= same
    assert loaded.tensors == len([name for name in own if name.startswith(parts)])
    assert "transformer_decoder.query_features" not in same


def test_a_clip_serves_all_backbones(tmp_path: Path) -> None:
    save_clip(model(), tmp_path / "clip.safetensors")
    assert load_clip(with_swin(1), tmp_path / "clip.safetensors").tensors > 0


def test_own_file_of_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_clip(model(), path)
    heads = model(clip=dataclasses.replace(CLIP, image_heads=2))
    assert "variant tiny with image_heads 4, this model has 2" in refused(load_clip, heads, path)
    wider = model(clip=dataclasses.replace(CLIP, text_vocabulary=40))
    assert "clip_text.token_embedding.weight is [32, 16] instead of [40, 16]" in refused(
        load_clip, wider, path
    )
    split = model(fused_layers=(1, 1, 2))
    assert "mask_attention.blocks" in refused(load_clip, split, path)
    save_sam(model(), tmp_path / "sam.safetensors")
    windows = model(sam=dataclasses.replace(SAM, window=3, global_blocks=(0, 1, 2, 3)))
    assert "window 2, this model has 3" in refused(load_sam, windows, tmp_path / "sam.safetensors")
    assert "it holds the encoder clip, not sam" in refused(load_sam, model(), path)


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_sam(model(), tmp_path / "sam.safetensors")
    assert not any(tmp_path.iterdir())


# --- files that are none


def test_no_file_at_all(tmp_path: Path) -> None:
    assert "is not there" in refused(load_clip, model(), tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert "not a torch file" in refused(load_clip, model(), tmp_path / "text.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_clip(model(), tmp_path / "text.safetensors")
    assert "holds no tensors" in refused(load_clip, model(), saved({}, tmp_path / "empty.pt"))


# --- the command


@pytest.fixture
def tiny_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "tiny", config())


@pytest.mark.usefixtures("tiny_variant")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = openai_archive(tmp_path / "ViT.pt")
    sam = saved(whole_sam().state_dict(), tmp_path / "sam.pth")
    out = tmp_path / "encoders-tiny" / "1"
    args = ["encoders", "--variant", "tiny", "--clip", str(clip), "--sam", str(sam), "--out", str(out)]
    assert program.main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["encoders"]["sam"]["left_out"]["prompt_encoder"] > 0
    loaded = load(out)
    assert loaded.manifest.untrained
    assert loaded.manifest.training["clip"]["file"] == "ViT.pt"
    wanted = clip_state(half=True)["visual.proj"].float()
    assert torch.equal(loaded.ebseg.mask_attention.proj, wanted)
    assert program.main(args) == 2
    assert "exists already" in capsys.readouterr().err
    assert program.main([*args[:-1], str(tmp_path / "encoders-tiny" / "2")]) == 0
    assert "left out: image_encoder.neck" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_variant")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "needs --sam FILE"),
        (["--sam", "a", "--swin", "b"], "takes no --swin"),
        (["--sam", "missing.pth"], "missing.pth cannot be read: No such file or directory"),
    ],
)
def test_command_refuses(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = saved(clip_state(), tmp_path / "clip.pt")
    out = tmp_path / "m" / "1"
    args = ["encoders", "--variant", "tiny", "--clip", str(clip), "--out", str(out), *options]
    assert program.main(args) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()
