"""Table 7: SAM's encoder against Swin Transformers as the image backbone."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.ablate.grid import GridRun, GridScore, by_seed, seeds_note, spread
from training.ablate.tables import ALL_TRAINED_NEW, Cell, Table
from training.config import TrainConfig
from training.errors import TrainingError


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneRow:
    """One row.

    Attributes:
        label: as the paper names it.
        backbone: key of the start.
        trained: whether the whole backbone is trained.
        paper_parameters: trained ones in the paper's table, millions.
        paper: mIoU there.
    """

    label: str
    backbone: str
    trained: bool
    paper_parameters: float
    paper: float


ROWS: dict[str, BackboneRow] = {
    "swin-t-trained": BackboneRow(
        label="Swin-T", backbone="swin-t", trained=True, paper_parameters=50.2, paper=28.5
    ),
    "swin-t": BackboneRow(
        label="Swin-T", backbone="swin-t", trained=False, paper_parameters=24.5, paper=29.0
    ),
    "swin-b": BackboneRow(
        label="Swin-B", backbone="swin-b", trained=False, paper_parameters=24.9, paper=29.3
    ),
    "sam": BackboneRow(label="SAM", backbone="sam", trained=False, paper_parameters=26.6, paper=30.0),
}
SWINS = ("swin-t", "swin-b")


def starts(config: TrainConfig, given: Mapping[str, str]) -> dict[str, TrainConfig]:
    """What each backbone's runs start from.

    A configuration with `variant` starts every backbone anew, the Swins from `<variant>-swin-t` and
    `<variant>-swin-b`. One with `init` needs a checkpoint for each Swin, with the same CLIP: a start with
    random weights would be compared with a pretrained one.

    Args:
        config: of SAM's runs.
        given: checkpoint folders by "swin-t" and "swin-b"; with `init` only.

    Raises:
        TrainingError: a start is missing, or given for nothing.
    """
    if config.variant is not None:
        if given:
            raise TrainingError("the configuration starts from a variant, at random: give no checkpoints")
        return {
            "sam": config,
            **{name: dataclasses.replace(config, variant=f"{config.variant}-{name}") for name in SWINS},
        }
    missing = [name for name in SWINS if name not in given]
    if missing:
        raise TrainingError(
            f"the configuration starts from the checkpoint {config.init}: give one with pretrained "
            f"weights for {' and '.join(f'--{name}' for name in missing)} as well"
        )
    return {"sam": config, **{name: dataclasses.replace(config, init=given[name]) for name in SWINS}}


def runs(configs: Mapping[str, TrainConfig], seeds: int) -> list[GridRun]:
    """The trainings; see `grid.by_seed`.

    Args:
        configs: of `starts`.
        seeds: how many, from the configuration's on.

    Raises:
        TrainingError: no seed.
    """
    return by_seed(
        {
            name: dataclasses.replace(configs[row.backbone], train_backbone=row.trained)
            for name, row in ROWS.items()
        },
        seeds,
    )


def table_7(scores: Sequence[GridScore]) -> Table:
    """The rows that have a score."""
    rows: list[tuple[Cell, ...]] = []
    for name, row in ROWS.items():
        own = [score for score in scores if score.variant == name]
        if own:
            measured = [spread(own, name, field) for field, _ in ALL_TRAINED_NEW]
            frozen = "no" if row.trained else "yes"
            rows.append(
                (row.label, frozen, own[0].trained_parameters, *measured, row.paper_parameters, row.paper)
            )
    return Table(
        title="Table 7: image backbones",
        columns=(
            ("backbone", "backbone"),
            ("frozen", "frozen"),
            ("parameters", "trained parameters"),
            *ALL_TRAINED_NEW,
            ("paper_parameters", "paper's, millions"),
            ("paper", "paper's mIoU"),
        ),
        rows=tuple(rows),
        notes=(seeds_note(scores),),
    )
