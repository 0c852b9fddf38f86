"""docs/training.md: its commands in their order and as they are written, on data of a few pictures.

What makes them small comes after them, as further options: the last word on an option counts. EBSeg-B itself
stands for what it is, but at a size where a step takes milliseconds.
"""

import dataclasses
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT

import ebseg
from model.network.config import VARIANTS, EBSegConfig
from model.storage.checkpoint import load
from tests.e2e.documents import ROOT, blocks, lines
from tests.e2e.processes import done
from tests.training.data.prepare import miniature
from tests.training.encoder_files import archive
from tests.training.run.runs import micro_config
from training.data.layout import SegmentationFolder
from training.storybook.pretrain.clip_model import open_clip_model

DOCUMENT = "docs/training.md"
COMMANDS = [
    line
    for block in blocks()
    if (block.document, block.language) == (DOCUMENT, "sh")
    for line in lines(block)
]
NOT_RUN = {
    "ebseg reproduce data --checkpoint large --device cuda --processes 8 --out reproduced-large.md": "a GPU",
    "make train-tiny": "tests/e2e/test_train_tiny.py runs it",
    "make train-tiny SHARE=0.01 TINY=out/quick": "as above",
}
BASE = "--steps 2 --batch 4 --crop 64 --short-sides 48 64 --points 64 --workers 1 --pictures-every 0"
# What begins so is made small by these options.
SMALL = {
    "ebseg train runs/base": BASE,
    "torchrun": BASE.replace("--steps 2", "--steps 3"),  # it goes on with the run of the command before
    "ebseg storybook data/storybook": "--train 6 --val 3 --jobs 1",
    "ebseg storybook data/held-out": "--val 2 --jobs 1",
    "ebseg pretrain clip": "--scenes 45 --steps 2",
    "ebseg pretrain backbone": "--steps 1",
    "ebseg pretrain ceiling": "--scenes 3",
    "ebseg train runs/storybook": "--steps 2 --batch 2 --points 64 --workers 1 --pictures-every 0",
    "ebseg ablate ssc": "--seeds 1 --variants none a-last-1",
}
# Scores of miniatures are not the paper's, which the exit code says.
CODES = {"ebseg reproduce": 1}
ROWS: miniature.Rows = [[1, 2, 20], [1, 2, 2]]


def base_config() -> EBSegConfig:
    """What stands for EBSeg-B."""
    return dataclasses.replace(micro_config(), variant="base")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page's reader works in, with the downloads that it names."""
    folder = tmp_path_factory.mktemp("desk")
    coco = folder / "downloads" / "coco"
    for split in ("train2017", "val2017"):
        miniature.coco_stuff(coco, {f"{split}-{number}": ROWS for number in range(4)}, split)
    scenes = {f"ADE_val_{number:08}": ROWS for number in range(2)}
    miniature.ade20k_benchmark(folder / "downloads", {"validation": scenes})
    config = base_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        clip = open_clip_model(config.clip).state_dict()
        assert config.sam is not None
        sam = ImageEncoderViT(
            img_size=config.sam.image_size,
            patch_size=config.sam.patch_size,
            embed_dim=config.sam.width,
            depth=config.sam.layers,
            num_heads=config.sam.heads,
            use_rel_pos=True,
            window_size=config.sam.window,
            global_attn_indexes=config.sam.global_blocks,
        ).state_dict()
    clip.pop("attn_mask", None)
    archive(clip, folder / "ViT-B-16.pt")
    torch.save({f"image_encoder.{name}": x for name, x in sam.items()}, folder / "sam_vit_b_01ec64.pth")
    shutil.copytree(ROOT / "model" / "pretrained", folder / "model" / "pretrained")
    return folder


def of(table: dict[str, str], command: str) -> str:
    return next((value for start, value in table.items() if command.startswith(start)), "")


def test_every_command_is_run_in_order(
    desk: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(NOT_RUN) <= set(COMMANDS)
    assert all(any(command.startswith(start) for command in COMMANDS) for start in SMALL)
    monkeypatch.chdir(desk)
    monkeypatch.setitem(VARIANTS, "base", base_config())
    threads = environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = 0
    for command in COMMANDS:
        if command in NOT_RUN:
            continue
        words = [*shlex.split(command), *of(SMALL, command).split()]
        if words[0] == "ebseg":
            code = ebseg.main(words[1:])
            printed = capsys.readouterr()
            wanted = next((value for start, value in CODES.items() if command.startswith(start)), 0)
            assert code == wanted, f"{command}: {printed.err}"
            assert re.search(r"^(ebseg: )?next: ", printed.out + printed.err, re.M), command
        else:
            assert words[:3] == ["torchrun", "--nproc-per-node", "8"]
            done([*words[:2], "2", *words[3:]], threads, desk)
        ran += 1
    assert ran == len(COMMANDS) - len(NOT_RUN) > 20
    assert len(SegmentationFolder("data/coco-stuff", "train")) == 4
    assert load("runs/base/checkpoint").manifest.training["step"] == 3
    published = load("registry/ebseg-base/1")
    assert published.manifest.training["measured"] == {"data": "ADE20K-150", "split": "val"}
    assert published.metrics["pictures"] == 2
    assert load("registry/ebseg-tiny/1").manifest.training["stored_as"] == "float16"
    assert (desk / "runs" / "ssc" / "table.md").read_text().count("|") > 20
    assert os.listdir(desk / "out" / "pictures")
