"""Components of other packages are theirs, and come without the rest of those packages."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from model import VARIANTS, TrainingClasses
from model.network.build import build
from model.network.libraries import folders
from model.network.libraries.open_clip import transformer, utils
from training.storybook.pretrain.clip_model import open_clip_model

ROOT = Path(__file__).parents[3]
# each takes as long to import as all of EBSeg beside torch, or longer
HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "timm", "transformers")
LOAD = f"""
import sys
from model.storage.checkpoint import check_golden, load
from model.storage.packaged import packaged_checkpoint
check_golden(load(packaged_checkpoint()))
print(*(name for name in {(*HEAVY, "open_clip", "segment_anything")} if name in sys.modules))
"""


def test_a_checkpoint_is_loaded_and_run_without_heavy_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_random_weights_are_those_of_open_clips_own_model() -> None:
    """Same sizes, same order of random numbers: a seed gives the weights that it always gave."""
    config = VARIANTS["tiny"]
    ours = build(config, TrainingClasses.coco_stuff(), seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = open_clip_model(config.clip)
    for part, whole, layers in (
        (ours.clip_image, theirs.visual, "transformer.resblocks"),
        (ours.clip_text, theirs, "transformer.resblocks"),
    ):
        wanted = whole.state_dict()
        for name, tensor in part.state_dict().items():
            assert torch.equal(tensor, wanted[name.replace("blocks", layers)]), name


def test_building_without_memory_takes_no_random_numbers() -> None:
    before = torch.get_rng_state()
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=None)
    assert torch.equal(torch.get_rng_state(), before)
    in_memory = sum(tensor.nbytes for tensor in ebseg.state_dict().values() if not tensor.is_meta)
    assert 0 < in_memory < 1 << 20


def test_blocks_are_pickled_and_copied() -> None:
    block: Any = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0).clip_image.blocks[0]
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert type(twin) is type(block) is transformer.ResidualAttentionBlock
        assert torch.equal(twin.attn.in_proj_weight, block.attn.in_proj_weight)


def test_open_clip_itself_stays_whole() -> None:
    assert transformer.__file__ == open_clip.transformer.__file__
    assert open_clip.transformer.ResidualAttentionBlock is not transformer.ResidualAttentionBlock
    assert open_clip.utils.__file__ != utils.__file__


def test_what_is_not_here_comes_from_open_clips_own_utils() -> None:
    assert utils.freeze_batch_norm_2d is open_clip.utils.freeze_batch_norm_2d
    assert utils.feature_take_indices(4, 2) == open_clip.utils.feature_take_indices(4, 2)
    assert utils.to_2tuple(3) == open_clip.utils.to_2tuple(3)
    assert utils.to_2tuple((3, 4)) == open_clip.utils.to_2tuple((3, 4))
    with pytest.raises(AttributeError):
        _ = utils.no_such_name


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as raised:
        folders("no_such_package")
    assert raised.value.name == "no_such_package"
    assert folders("segment_anything", "modeling")[0].endswith("modeling")
