"""How much of everything the ways to EBSeg-tiny and to its kin on families of classes take."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from training.config import TrainConfig
from training.errors import TrainingError
from training.run.precision import cpu_amp
from training.storybook.classes import FAMILIES, STORYBOOK, Book
from training.storybook.generate import HELD_OUT
from training.storybook.pretrain.backbone import BackbonePretraining
from training.storybook.pretrain.clip import ClipPretraining

LEAST_CEILING = 0.8  # below it a segmenter is not worth training


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How much of everything.

    Attributes:
        book: what is drawn.
        name: of the model.
        seed: of data, weights and order.
        clip_scenes: scenes with captions.
        clip, sam: settings of the pretraining.
        train_scenes, held_out_scenes: Storybook's splits.
        steps, batch, learning_rate: of the segmenter's training.
        least_ceiling: share of true masks that CLIP has to name right.
    """

    book: Book = STORYBOOK
    name: str = "ebseg-tiny"
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
            name=self.name,
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


# Nineteen captioned scenes for one with masks, few sheets, rare words: CLIP knows many classes a
# little, masks teach some of them well. So no share of true masks is asked for.
OF_FAMILIES = Recipe(
    book=FAMILIES,
    name="ebseg-families",
    clip=ClipPretraining(cut_steps=0.8),
    train_scenes=1500,
    held_out_scenes=200,
    steps=3000,
    least_ceiling=0.0,
)


def recipe_of(families: bool) -> Recipe:
    """Storybook's recipe, or that of its families."""
    return OF_FAMILIES if families else Recipe()
