"""The checkpoints that the paper's authors released: one table for commands, cards and documents.

Scores are mIoU in percent as the paper's Table 1 gives them; nothing here was measured by this project.
"""

from dataclasses import dataclass
from types import MappingProxyType

REPOSITORY = "slonetime/EBSeg"
BENCHMARKS = ("ade20k-847", "pascal-context-459", "ade20k-150", "pascal-context-59", "voc-20")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedModel:
    """One released checkpoint.

    Attributes:
        name: what users call it ("base"); also the variant of its configuration.
        title: what the paper calls it.
        checkpoint: its name in a registry.
        repository, revision, file: where it lies on the Hugging Face hub.
        clip: the CLIP model that it was trained from, and the side of CLIP's input in pixels.
        parameters: numbers in the model.
        short_side: pixels that a picture's short side is resized to.
        licence: of the code that they were released with.
        miou: the paper's scores, percent by benchmark.
    """

    name: str
    title: str
    checkpoint: str
    repository: str = REPOSITORY
    revision: str = "main"
    file: str
    clip: str
    parameters: int
    short_side: int = 640
    licence: str = "MIT"
    miou: MappingProxyType[str, float]


def _scores(*values: float) -> MappingProxyType[str, float]:
    return MappingProxyType(dict(zip(BENCHMARKS, values, strict=True)))


RELEASED = MappingProxyType(
    {
        model.name: model
        for model in (
            ReleasedModel(
                name="base",
                title="EBSeg-B",
                checkpoint="ebseg-base",
                file="EBSeg_base.pth",
                clip="ViT-B/16",
                parameters=261_829_572,
                miou=_scores(11.1, 17.3, 30.0, 56.7, 94.6),
            ),
            ReleasedModel(
                name="large",
                title="EBSeg-L",
                checkpoint="ebseg-large",
                file="EBSeg_large.pth",
                clip="ViT-L/14 at 336",
                parameters=541_073_604,
                miou=_scores(13.7, 21.0, 32.8, 60.2, 96.4),
            ),
        )
    }
)


def released_model(name: str) -> ReleasedModel | None:
    """The model that a name stands for, "base" as well as "ebseg-base"; None for any other text."""
    return next((model for model in RELEASED.values() if name in (model.name, model.checkpoint)), None)
