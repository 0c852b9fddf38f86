"""Tables 5 and 6: the SSC loss on other embeddings and layers, in its two forms, or left out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from training.ablate.grid import GridRun, GridScore, by_seed, seeds_note, spread
from training.ablate.tables import ALL_TRAINED_NEW, TRAINED_NEW_ALL, Cell, Table
from training.config import Embeddings, Ssc, TrainConfig
from training.errors import TrainingError

A: Embeddings = "supervised"
B: Embeddings = "mask_attention"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row.

    Attributes:
        form: of the loss.
        embeddings: that it holds for.
        stages: how many of the last stages it holds for; None for all.
        paper: mIoU in the paper's table.
    """

    form: Ssc
    embeddings: tuple[Embeddings, ...]
    stages: int | None
    paper: float | None

    @property
    def letters(self) -> str:
        """As the paper names the embeddings."""
        if self.form == "none":
            return "none"
        return " and ".join({A: "A", B: "B"}[name] for name in self.embeddings)

    @property
    def layers(self) -> str:
        """As the paper names them."""
        if self.form == "none":
            return "none"
        return {None: "all", 1: "last"}.get(self.stages, f"last {self.stages}")


VARIANTS: dict[str, Variant] = {
    "none": Variant(form="none", embeddings=(A,), stages=1, paper=29.2),
    "a-all": Variant(form="official", embeddings=(A,), stages=None, paper=29.0),
    "a-last-3": Variant(form="official", embeddings=(A,), stages=3, paper=29.6),
    "a-last-1": Variant(form="official", embeddings=(A,), stages=1, paper=30.0),
    "a-last-1-cosine": Variant(form="cosine", embeddings=(A,), stages=1, paper=None),
    "b-all": Variant(form="official", embeddings=(B,), stages=None, paper=28.6),
    "b-last-3": Variant(form="official", embeddings=(B,), stages=3, paper=28.8),
    "b-last-1": Variant(form="official", embeddings=(B,), stages=1, paper=29.1),
    "ab-all": Variant(form="official", embeddings=(A, B), stages=None, paper=28.8),
    "ab-last-3": Variant(form="official", embeddings=(A, B), stages=3, paper=29.3),
    "ab-last-1": Variant(form="official", embeddings=(A, B), stages=1, paper=29.7),
}
CHOSEN = ("none", "a-last-1", "a-last-1-cosine", "a-last-3", "a-all", "b-last-1", "ab-last-1")
PAPER_TABLE_6 = {"none": (40.6, 19.9, 29.2), "a-last-1": (40.3, 21.6, 30.0)}  # trained, new, all


def runs(config: TrainConfig, variants: Sequence[str], seeds: int, decoder_layers: int) -> list[GridRun]:
    """The trainings; see `grid.by_seed`.

    Args:
        config: of all; the fields of the SSC loss are replaced.
        variants: keys of `VARIANTS`.
        seeds: how many, from the configuration's on.
        decoder_layers: "all layers" are one stage more, for the queries before the first layer are
            trained with the same losses.

    Raises:
        TrainingError: an unknown variant, or no seed.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise TrainingError(f"there is no SSC variant {unknown[0]!r}; known are {', '.join(VARIANTS)}")
    configs = {}
    for name in variants:
        variant = VARIANTS[name]
        stages = decoder_layers + 1 if variant.stages is None else variant.stages
        configs[name] = dataclasses.replace(
            config, ssc=variant.form, ssc_embeddings=variant.embeddings, ssc_stages=stages
        )
    return by_seed(configs, seeds)


def table_5(scores: Sequence[GridScore]) -> Table:
    """Embeddings and layers, of the variants that have a score."""
    rows: list[tuple[Cell, ...]] = []
    for name, variant in VARIANTS.items():
        if any(score.variant == name for score in scores):
            measured = [spread(scores, name, field) for field, _ in ALL_TRAINED_NEW]
            rows.append((variant.letters, variant.layers, variant.form, *measured, variant.paper))
    return Table(
        title="Table 5: where the SSC loss holds",
        columns=(
            ("embeddings", "embeddings"),
            ("layers", "layers"),
            ("form", "form"),
            *ALL_TRAINED_NEW,
            ("paper", "paper's mIoU"),
        ),
        rows=tuple(rows),
        notes=(seeds_note(scores),),
    )


def table_6(scores: Sequence[GridScore]) -> Table:
    """Trained and new classes without and with the loss as the paper uses it: on A, last layer."""
    rows: list[tuple[Cell, ...]] = []
    for name, label in (("none", "without"), ("a-last-1", "with")):
        measured = [spread(scores, name, field) for field in ("miou_trained", "miou_new", "miou_all")]
        rows.append((label, *measured, *PAPER_TABLE_6[name]))
    return Table(
        title="Table 6: the SSC loss, trained and new classes",
        columns=(("ssc", "SSC loss"), *TRAINED_NEW_ALL),
        rows=tuple(rows),
        notes=(seeds_note(scores),),
    )
