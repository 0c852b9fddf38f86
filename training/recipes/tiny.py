"""EBSeg-tiny from nothing: Storybook is drawn, CLIP and SAM are pretrained on it, then the segmenter trained.

    OUT/storybook         the data set
    OUT/scenes            scenes with captions for CLIP
    OUT/clip.safetensors  the tiny CLIP
    OUT/sam.safetensors   the tiny SAM's encoder
    OUT/encoders/1        both in an EBSeg whose decoder is untrained
    OUT/run               the run, with RUN/checkpoint and RUN/metrics.json, ready for `ebseg publish`

A step whose result is there already is not done again, so a recipe that was cut off goes on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
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
from training.run.precision import cpu_amp
from training.run.trainer import train
from training.storybook.classes import CLASSES, TRAINED
from training.storybook.generate import HELD_OUT, TRAIN, generate
from training.storybook.pretrain.backbone import BackbonePretraining, pretrain_backbone
from training.storybook.pretrain.ceiling import Ceiling, ceiling
from training.storybook.pretrain.clip import ClipPretraining, pretrain_clip
from training.storybook.pretrain.pictures import pool

VARIANT = "tiny"
LICENSE = "MIT"  # of weights that come of nothing but this code
CLIP_SIDE = 128  # pixels of the pictures that CLIP sees
CLIP_SHARES = (0.35, 0.3, 0.35)  # of scenes, quilts and close-ups
LEAST_CEILING = 0.8  # below it a segmenter is not worth training
CEILING_SCENES = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How much of everything.

    Attributes:
        seed: of data, weights and order.
        clip_scenes: scenes with captions.
        clip, sam: settings of the pretraining.
        train_scenes, held_out_scenes: Storybook's splits.
        steps, batch, learning_rate: of the segmenter's training.
        least_ceiling: share of true masks that CLIP has to name right.
    """

    seed: int = 0
    clip_scenes: int = 28_000
    clip: ClipPretraining = field(default_factory=ClipPretraining)
    sam: BackbonePretraining = field(default_factory=BackbonePretraining)
    train_scenes: int = 6000
    held_out_scenes: int = 300
    steps: int = 5000
    batch: int = 4
    learning_rate: float = 5e-4
    least_ceiling: float = LEAST_CEILING

    def shrunk(self, share: float) -> "Recipe":
        """The same recipe with a share of the steps and pictures, to see that everything runs.

        Raises:
            TrainingError: the share is not within 0..1.
        """
        if not 0 < share <= 1:
            raise TrainingError(f"the share of the recipe must be more than 0 and at most 1, got {share}")

        def part(count: int, least: int = 1) -> int:
            return max(least, round(share * count))

        return replace(
            self,
            clip_scenes=part(self.clip_scenes, 64),
            clip=replace(self.clip, steps=part(self.clip.steps)),
            sam=replace(self.sam, steps=part(self.sam.steps)),
            train_scenes=part(self.train_scenes, 2 * self.batch),
            held_out_scenes=part(self.held_out_scenes, 8),
            steps=part(self.steps),
            least_ceiling=self.least_ceiling if share == 1 else 0.0,
        )

    def run(self, data: Path, init: Path) -> TrainConfig:
        """The segmenter's training."""
        return TrainConfig(
            data=str(data),
            name="ebseg-tiny",
            val_split=HELD_OUT,
            init=str(init),
            fresh_decoder=True,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            clip_norm=0.01,
            warmup_steps=min(100, self.steps // 10),
            crop=192,
            short_sides=(160, 192, 224, 256),
            points=1024,
            amp=cpu_amp(),
            ema=0.998 if self.steps >= 1000 else 0.0,
            seed=self.seed,
            workers=1,
            log_every=50,
            pictures_every=1000,
            save_every=200,
            evaluate_every=0,
        )


def train_tiny(out: Path, recipe: Recipe, notify: Callable[[str], None]) -> Path:
    """Cooks the whole recipe; the run's folder.

    Args:
        out: folder for everything; what is there already is taken as it is.
        recipe: how much of everything; must be the same when a recipe goes on.
        notify: called with what begins and what was measured.

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
        generate(data, train=recipe.train_scenes, held_out=recipe.held_out_scenes, seed=recipe.seed)
    device = device_named(AUTO)
    ebseg = build(VARIANTS[VARIANT], TrainingClasses.of(TRAINED), seed=recipe.seed)
    if not clip.exists():
        notify("2/5 pretraining CLIP on pictures and captions")
        scenes = pool(
            out / "scenes", seed=recipe.seed, count=recipe.clip_scenes, side=CLIP_SIDE, shares=CLIP_SHARES
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
                f"{recipe.least_ceiling:.0%} that a segmenter is worth training with; give it more steps"
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
                card=storybook_card(recipe.seed),
            ),
        )
    notify("5/5 training the segmenter")
    return train(recipe.run(data, init), out / "run")


def storybook_card(seed: int) -> Card:
    """The card of what was trained on nothing but Storybook."""
    return Card(
        domain="drawn Storybook scenes, not photographs",
        words=CLASSES,
        training_data=(DataSource(name=f"Storybook, seed {seed}", terms="drawn by ebseg itself, MIT"),),
        notes="Its CLIP has read captions of these words only: of any other word it knows next to nothing.",
    )


def check_ceiling(ebseg: EBSeg, folder: Path, recipe: Recipe) -> Ceiling:
    """The ceiling on scenes of all classes that no training saw."""
    count = min(CEILING_SCENES, recipe.held_out_scenes)
    scenes = pool(folder, seed=recipe.seed + 1, count=count, side=CLIP_SIDE, shares=(1, 0, 0))
    return ceiling(ebseg, scenes, count)


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
