"""What one training run is configured with, as one frozen dataclass; goes to and comes from plain JSON.

Needs no torch: the command line makes its options of the fields.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from model.network.json_reading import read
from training.errors import TrainingError

Ssc = Literal["official", "cosine", "none"]
Embeddings = Literal["supervised", "mask_attention"]
ClassLoss = Literal["batch", "process"]
Amp = Literal["off", "bfloat16", "float16"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]
Score = Literal[
    "miou_all", "miou_trained", "miou_new", "pixel_accuracy", "mean_accuracy", "fwiou", "boundary_iou"
]

# May differ when a run goes on: they change what is written when, or how far it goes, and not the steps.
CHANGEABLE = frozenset(
    {"steps", "workers", "log_every", "pictures_every", "save_every", "evaluate_every", "evaluate_short_side"}
    | {"patience", "activation_checkpointing", "loggers"}
)


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run. The defaults are the paper's for the variant base (section 4.1, and the released code).

    Raises:
        TrainingError: a value makes no sense; the message names the field.
    """

    data: str = field(metadata=_help("data set: a folder in the layout that `ebseg prepare` makes"))
    extra_data: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "further data sets in the same run; WEIGHT: how often their images come where those of data "
            "come once (default: 1); classes that share a name or a synonym are one"
        ),
    )
    repeat_rare: float = field(
        default=0.0,
        metadata=_help(
            "images of trained classes that fewer than this share of the images show come more often; 0: none"
        ),
    )
    name: str = field(default="ebseg", metadata=_help("the model's name in its checkpoint"))
    train_split: str = field(default="train", metadata=_help("split that is trained on"))
    val_split: str | None = field(
        default=None, metadata=_help("split that is evaluated on; without, nothing is evaluated")
    )
    variant: str | None = field(default=None, metadata=_help("configuration to start anew from"))
    init: str | None = field(
        default=None, metadata=_help("checkpoint folder whose configuration and weights are started from")
    )
    fresh_decoder: bool = field(
        default=False, metadata=_help("with init: everything after the encoders starts at random")
    )
    forget: bool = field(
        default=False,
        metadata=_help("with init: the classes that it was trained on count as new from here on"),
    )
    train_backbone: bool = field(
        default=False, metadata=_help("train the whole image backbone, not only its position table")
    )
    rates: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "PART=FACTOR: trains a part of the model at so many times the learning rate, backbone=0.1; 0 "
            "freezes it; parts are the first names of tensors, transformer_decoder or backbone.blocks.11"
        ),
    )
    lora_rank: int = field(
        default=0,
        metadata=_help("train updates of this rank to CLIP's queries and values (LoRA); 0: none"),
    )
    activation_checkpointing: bool = field(
        default=False,
        metadata=_help("compute SAM's blocks again in the backward pass: less memory, more time"),
    )
    steps: int = field(default=120_000, metadata=_help("optimiser steps in all"))
    batch: int = field(default=16, metadata=_help("images a step, over all processes and parts"))
    accumulate: int = field(default=1, metadata=_help("parts that a process takes its images of a step in"))
    learning_rate: float = field(default=1e-4, metadata=_help("at the start; the paper's is 8e-5 for large"))
    weight_decay: float = field(default=0.05, metadata=_help("of everything but norms, embeddings, tables"))
    clip_norm: float = field(default=0.01, metadata=_help("largest norm of the whole model's gradient"))
    poly_power: float = field(default=0.9, metadata=_help("the rate falls as (1 - step / steps) to this"))
    warmup_steps: int = field(default=0, metadata=_help("steps in which the rate rises from zero"))
    crop: int = field(default=640, metadata=_help("side of the square crops, pixels"))
    short_sides: tuple[int, ...] = field(
        default=tuple(range(320, 961, 64)), metadata=_help("short sides that images are resized to, pixels")
    )
    long_side: int = field(default=2560, metadata=_help("largest long side after resizing, pixels"))
    pad_value: int = field(default=128, metadata=_help("grey value around images smaller than the crop"))
    color_jitter: bool = field(default=True, metadata=_help("change brightness, contrast, saturation, hue"))
    flip: bool = field(default=True, metadata=_help("mirror half of the images"))
    points: int = field(default=12_544, metadata=_help("points at which masks are compared"))
    ssc: Ssc = field(default="official", metadata=_help("form of the SSC loss"))
    ssc_embeddings: tuple[Embeddings, ...] = field(
        default=("supervised",), metadata=_help("embeddings that the SSC loss holds for")
    )
    ssc_stages: int = field(default=1, metadata=_help("last stages that the SSC loss holds for"))
    class_loss: ClassLoss = field(
        default="batch",
        metadata=_help(
            "what the class losses are means over: queries of the whole batch, or of each process, as in "
            "the released code"
        ),
    )
    group_by_shape: bool = field(
        default=False,
        metadata=_help("batches of wide images alone, or of high ones alone, as in the released code"),
    )
    amp: Amp = field(default="off", metadata=_help("number type of the model's products"))
    compile: bool = field(default=False, metadata=_help("compile the model with torch.compile"))
    ema: float = field(default=0.0, metadata=_help("decay of the weights' moving average; 0: none is kept"))
    seed: int = field(default=0, metadata=_help("of new weights, data order, augmentation and points"))
    workers: int = field(default=4, metadata=_help("threads that read images; 0: none but the main one"))
    loggers: tuple[LoggerName, ...] = field(
        default=("tensorboard",), metadata=_help("programs that show the run's curves and images")
    )
    log_every: int = field(default=50, metadata=_help("steps between lines of the log"))
    pictures_every: int = field(default=2000, metadata=_help("steps between images; 0: none"))
    save_every: int = field(default=1000, metadata=_help("steps between saved states"))
    evaluate_every: int = field(
        default=10_000, metadata=_help("steps between evaluations and checkpoints; 0: at the end only")
    )
    evaluate_short_side: int | None = field(
        default=None, metadata=_help("short side in evaluation, pixels; without, the model's own")
    )

    keep_best: Score | None = field(
        default=None,
        metadata=_help("keep the checkpoint that is best by this score, and the newest in RUN/last"),
    )
    patience: int = field(
        default=0,
        metadata=_help("evaluations in a row without a better one after which the run ends; 0: never"),
    )

    def __post_init__(self) -> None:
        if (self.variant is None) == (self.init is None):
            raise TrainingError("give either variant or init, to say what the run starts from")
        if self.fresh_decoder and self.init is None:
            raise TrainingError("fresh_decoder needs init: without it everything starts at random")
        if self.forget and self.init is None:
            raise TrainingError("forget needs init: without it there is nothing to forget")
        positive = ("steps", "batch", "accumulate", "learning_rate", "clip_norm", "crop", "points")
        for name in (*positive, "long_side", "log_every", "save_every", "ssc_stages"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} must be more than 0, got {getattr(self, name)!r}")
        not_negative = ("weight_decay", "poly_power", "warmup_steps", "workers", "pictures_every", "seed")
        for name in (*not_negative, "evaluate_every", "patience", "lora_rank"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if not self.short_sides or min(self.short_sides) < 1:
            raise TrainingError("short_sides must be one or more numbers of pixels")
        if not 0 <= self.pad_value <= 255:
            raise TrainingError(f"pad_value must lie in 0..255, got {self.pad_value}")
        if not 0 <= self.repeat_rare <= 1:
            raise TrainingError(f"repeat_rare is a share of the images, 0..1, got {self.repeat_rare}")
        self.sources()
        self.part_rates()
        if self.lora_rank and self.compile:
            raise TrainingError("lora_rank does not go with compile")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema must be at least 0 and less than 1, got {self.ema}")
        if self.evaluate_short_side is not None and self.evaluate_short_side < 1:
            raise TrainingError(f"evaluate_short_side must be more than 0, got {self.evaluate_short_side}")
        if self.ssc != "none" and not self.ssc_embeddings:
            raise TrainingError('ssc_embeddings is empty; for a run without the SSC loss set ssc to "none"')
        if self.batch % self.accumulate:
            raise TrainingError(f"batch {self.batch} cannot be split into accumulate {self.accumulate} parts")

        if self.keep_best is not None and (self.val_split is None or not self.evaluate_every):
            raise TrainingError("keep_best needs val_split and evaluate_every: it compares evaluations")
        if self.patience and self.keep_best is None:
            raise TrainingError("patience needs keep_best, the score that is to become better")

    def sources(self) -> list[tuple[str, float]]:
        """The data sets and their weights; the first is `data`.

        Raises:
            TrainingError: a weight is not more than 0, or a data set is named twice.
        """
        found = [(self.data, 1.0)]
        for text in self.extra_data:
            path, equals, tail = text.rpartition("=")
            try:
                found.append((path, float(tail)) if equals else (text, 1.0))
            except ValueError:
                raise TrainingError(f"extra_data: {text!r} must be PATH or PATH=WEIGHT") from None
        for path, weight in found:
            if not (path and 0 < weight < float("inf")):
                raise TrainingError(f"extra_data: the weight of {path!r} must be more than 0, got {weight:g}")
            if [one for one, _ in found].count(path) > 1:
                raise TrainingError(f"extra_data: {path} is named twice; a weight of 2 shows it twice")
        return found

    def part_rates(self) -> dict[str, float]:
        """`rates` by part.

        Raises:
            TrainingError: a factor is no number of 0 or more, or a part is named twice.
        """
        found: dict[str, float] = {}
        for text in self.rates:
            part, equals, tail = text.partition("=")
            try:
                factor = float(tail)
            except ValueError:
                factor = -1.0
            if not (part and equals and 0 <= factor < float("inf")) or part in found:
                raise TrainingError(
                    f"rates: {text!r} must be PART=FACTOR, each part once, a factor of 0 or more"
                )
            found[part] = factor
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(x) if isinstance(x, tuple) else x for name, x in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> "TrainConfig":
        """The opposite of `to_dict`; fields that have a default may be left out.

        Raises:
            TrainingError: a field is missing, unknown or of the wrong kind; the message names it.
        """
        config = read(cls, values, "training configuration", TrainingError)
        assert isinstance(config, cls)
        return config

    def differences(self, other: "TrainConfig") -> list[str]:
        """Names of the fields that have to be equal in one run, and are not."""
        names = (x.name for x in dataclasses.fields(self) if x.name not in CHANGEABLE)
        return [name for name in names if getattr(self, name) != getattr(other, name)]
