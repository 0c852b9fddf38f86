"""EBSeg-tiny from nothing: Storybook is drawn, CLIP and SAM are pretrained on it, the segmenter trained.

    OUT/storybook         the data set
    OUT/scenes            scenes with captions for CLIP
    OUT/clip.safetensors  the tiny CLIP
    OUT/sam.safetensors   the tiny SAM's encoder
    OUT/encoders/1        both in an EBSeg whose decoder is untrained
    OUT/run.json          the settings of the segmenter's training, for `ebseg ablate`
    OUT/run               the run, with RUN/checkpoint and RUN/metrics.json, ready for `ebseg publish`

A step whose result is there already is not done again, so a recipe that was cut off goes on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from model.allocator import keep_freed_memory
from model.confidence.card import Card, DataSource
from model.network.build import build
from model.network.config import VARIANTS
from model.network.device import AUTO, device_named
from model.network.ebseg import EBSeg
from model.storage.checkpoint import Provenance, save
from model.storage.files import replace_text
from model.vocabulary.classes import TrainingClasses
from training import encoders
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.recipes.recipe import Recipe
from training.run.trainer import train
from training.storybook.classes import Book
from training.storybook.generate import TRAIN, generate
from training.storybook.pretrain.backbone import pretrain_backbone
from training.storybook.pretrain.ceiling import Ceiling, ceiling
from training.storybook.pretrain.clip import pretrain_clip
from training.storybook.pretrain.pictures import Pool, pool

VARIANT = "tiny"
LICENSE = "MIT"  # of weights that come of nothing but this code
CLIP_SIDE = 128  # pixels of the pictures that CLIP sees
CLIP_SHARES = (0.35, 0.3, 0.35)  # of scenes, quilts and close-ups
CEILING_SCENES = 300


def train_tiny(out: Path, recipe: Recipe, notify: Callable[[str], None]) -> Path:
    """Cooks the whole recipe; the run's folder.

    Args:
        out, recipe, notify: see `make_encoders`.

    Raises:
        TrainingError: see `make_encoders`.
    """
    config = make_encoders(out, recipe, notify)
    notify("5/5 training the segmenter")
    return train(config, out / "run")


def make_encoders(out: Path, recipe: Recipe, notify: Callable[[str], None]) -> TrainConfig:
    """All but the segmenter: its data, and the encoders that it starts from.

    Args:
        out: folder for everything; what is there already is taken as it is.
        recipe: how much of everything; must be the same when a recipe goes on.
        notify: called with what begins and what was measured.

    Returns:
        The segmenter's training, as `run.json` says it.

    Raises:
        TrainingError: another recipe was begun in the folder, or CLIP names too few true masks right.
    """
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    _take_folder(out, recipe)
    data, clip, sam, init = (
        out / "storybook",
        out / "clip.safetensors",
        out / "sam.safetensors",
        out / "encoders" / "1",
    )
    if not data.exists():
        notify("1/5 drawing Storybook")
        counts = {"train": recipe.train_scenes, "held_out": recipe.held_out_scenes}
        generate(data, **counts, seed=recipe.seed, book=recipe.book)
    device = device_named(AUTO)
    ebseg = build(VARIANTS[VARIANT], TrainingClasses.of(recipe.book.trained), seed=recipe.seed)
    if not clip.exists():
        notify("2/5 pretraining CLIP on images and captions")
        scenes = pool(
            out / "scenes",
            seed=recipe.seed,
            count=recipe.clip_scenes,
            side=CLIP_SIDE,
            shares=CLIP_SHARES,
            book=recipe.book,
        )
        pretrain_clip(VARIANTS[VARIANT], scenes, replace(recipe.clip, seed=recipe.seed), clip, device)
    if not sam.exists():
        notify("3/5 pretraining SAM on masks without classes")
        settings = replace(recipe.sam, seed=recipe.seed)
        iou = pretrain_backbone(ebseg, SegmentationFolder(data, TRAIN), settings, device)
        encoders.save_sam(ebseg, sam)
        notify(f"regions around given points: mean IoU {iou:.2f}")
    if not init.exists():
        notify("4/5 naming true masks with CLIP alone, the ceiling of what follows")
        encoders.load_clip(ebseg, clip)
        encoders.load_sam(ebseg, sam)
        found = check_ceiling(ebseg, out / "ceiling", recipe)
        notify(ceiling_line(found))
        if found.least < recipe.least_ceiling:
            raise TrainingError(
                f"CLIP names {found.least:.0%} of some true masks right, less than the "
                f"{recipe.least_ceiling:.0%} that a segmenter is worth training with; give it more "
                "--clip-steps, in another folder"
            )
        save(
            ebseg,
            init,
            Provenance(
                name="encoders-tiny",
                version=1,
                untrained=True,
                notes={"seed": recipe.seed},
                license=LICENSE,
                card=storybook_card(recipe.seed, recipe.book),
            ),
        )
    config = recipe.run(data, init)
    replace_text(out / "run.json", json.dumps(config.to_dict(), indent=1) + "\n")
    return config


def storybook_card(seed: int, book: Book) -> Card:
    """The card of what was trained on nothing but a Storybook."""
    return Card(
        domain="drawn Storybook scenes, not photographs",
        words=book.classes,
        training_data=(DataSource(name=f"{book.title}, seed {seed}", terms="drawn by ebseg itself, MIT"),),
        notes="Its CLIP has read captions of these words only: of any other word it knows next to nothing.",
    )


def check_ceiling(ebseg: EBSeg, folder: Path, recipe: Recipe) -> Ceiling:
    """The ceiling on scenes of all classes that no training saw."""
    count = min(CEILING_SCENES, recipe.held_out_scenes)
    return ceiling(ebseg, ceiling_scenes(folder, recipe.seed + 1, count, recipe.book), count)


def ceiling_scenes(folder: Path, seed: int, count: int, book: Book) -> Pool:
    """Scenes of a book, drawn into a folder; no word is rare in them."""
    return pool(
        folder, seed=seed, count=count, side=CLIP_SIDE, shares=(1, 0, 0), book=book, allowed=book.classes
    )


def ceiling_line(found: Ceiling) -> str:
    """The ceiling in a line."""
    return (
        f"right under true masks, of training and of new classes: "
        f"D {found.frozen_trained:.1%} and {found.frozen_new:.1%}, "
        f"B {found.mask_attention_trained:.1%} and {found.mask_attention_new:.1%}"
    )


def _take_folder(out: Path, recipe: Recipe) -> None:
    """Notes the recipe in the folder, or finds that it is the same.

    Raises:
        TrainingError: it is another one.
    """
    path = out / "recipe.json"
    content = json.dumps(asdict(recipe), indent=1) + "\n"
    if path.exists():
        if path.read_text(encoding="utf-8") != content:
            raise TrainingError(f"{out} holds what another recipe made; take another folder")
    elif any(out.iterdir()):
        raise TrainingError(f"{out} is not empty, and holds no recipe; take another folder")
    else:
        replace_text(path, content)
