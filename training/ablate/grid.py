"""Trains and scores variants of one run, several seeds each; goes on where it was stopped.

OUT/<variant>/seed-<n>/              a run folder, as `ebseg train` makes it
OUT/<variant>/seed-<n>/score.json    written last: configuration and scores
OUT/table.md                         the table so far, written anew after every run
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.network.config import VARIANTS, EBSegConfig
from model.network.ebseg import EBSeg
from model.network.json_reading import read
from model.storage import checkpoint
from model.storage.files import replace_text
from model.storage.manifest import CONFIG, json_object
from training.ablate.tables import Spread, Table, as_markdown
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.evaluation.confusion_counts import Options
from training.evaluation.evaluate import evaluate_checkpoint
from training.run import folder as run_folder
from training.run import trainer as loop
from training.run.folder import CHECKPOINT

SCORE = "score.json"
TABLE = "table.md"
# What may differ between a finished run and the wanted one: they change no weights and no scores.
HARMLESS = frozenset({"workers", "log_every", "pictures_every", "save_every", "evaluate_every"})


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRun:
    """One training of a grid."""

    variant: str
    config: TrainConfig

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        return out / self.variant / f"seed-{self.config.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridScore:
    """What a run scored, percent; None where the truth holds no such class."""

    variant: str
    seed: int
    miou_all: float | None
    miou_trained: float | None
    miou_new: float | None
    trained_parameters: int


def read_config(path: Path) -> TrainConfig:
    """A run's configuration from a JSON file, with a split to evaluate on.

    Raises:
        TrainingError: the file cannot be read or is no such configuration.
    """
    config = run_folder.read_config(path)
    if config.val_split is None:
        raise TrainingError(f"{path}: set val_split to the split that the variants are scored on")
    return config


def model_config(config: TrainConfig) -> EBSegConfig:
    """The configuration of the model that a run starts from.

    Raises:
        TrainingError: an unknown variant, or a checkpoint whose configuration cannot be read.
    """
    if config.init is None:
        if config.variant not in VARIANTS:
            raise TrainingError(f"there is no variant {config.variant!r}; known are {', '.join(VARIANTS)}")
        return VARIANTS[config.variant]
    try:
        content = (Path(config.init) / CONFIG).read_bytes()
    except OSError as error:
        raise TrainingError(f"init: {config.init} is no checkpoint folder: {error}") from error
    return EBSegConfig.from_dict(json_object(content, CONFIG))


def run_grid(
    runs: Sequence[GridRun],
    out: Path,
    tables: Callable[[Sequence[GridScore]], Sequence[Table]],
    *,
    processes: int = 1,
    device: str = "cpu",
) -> list[GridScore]:
    """Trains and scores what is not finished yet, one after another, reported line by line on standard error.

    Args:
        runs: in this order.
        out: folder of all.
        tables: of the scores so far; written to `table.md` after every run.
        processes: for scoring.
        device: for training and scoring.

    Returns:
        All runs' scores, in order.

    Raises:
        TrainingError: a run fails, or a finished one in `out` had another configuration.
    """
    known = {run: _finished(run, out) for run in runs}
    todo = [run for run in runs if known[run] is None]
    _notify(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before")
    began = time.monotonic()
    for number, run in enumerate(todo):
        hours = (time.monotonic() - began) / max(number, 1) * (len(todo) - number) / 3600
        left = f", about {hours:.1f} h left" if number else ""
        _notify(f"run {number + 1} of {len(todo)}: {run.variant}, seed {run.config.seed}{left}")
        known[run] = _trained_and_scored(run, out, processes, device)
        replace_text(out / TABLE, as_markdown(tables(_scores(known))))
    replace_text(out / TABLE, as_markdown(tables(_scores(known))))
    return _scores(known)


def _scores(known: Mapping[GridRun, GridScore | None]) -> list[GridScore]:
    return [score for score in known.values() if score is not None]


def spread(scores: Sequence[GridScore], variant: str, field: str) -> Spread | None:
    """Of one variant's seeds; None while there is no score."""
    return Spread.of([getattr(score, field) for score in scores if score.variant == variant])


def by_seed(configs: Mapping[str, TrainConfig], seeds: int) -> list[GridRun]:
    """The trainings of variants, seed by seed: what stops early has all variants of the first seeds.

    Args:
        configs: of each variant.
        seeds: how many, from each configuration's own on.

    Raises:
        TrainingError: fewer than one.
    """
    if seeds < 1:
        raise TrainingError(f"at least one seed is needed, got {seeds}")
    return [
        GridRun(variant=variant, config=dataclasses.replace(config, seed=config.seed + number))
        for number in range(seeds)
        for variant, config in configs.items()
    ]


def seeds_note(scores: Sequence[GridScore]) -> str:
    """The sentences below a table of spreads."""
    seeds = ", ".join(map(str, sorted({score.seed for score in scores})))
    return (
        f"Mean (least to greatest) over the seeds {seeds}. "
        "Paper's figures: EBSeg-B on ADE20K-150, one training each."
    )


def trained_parameters(ebseg: EBSeg, train_backbone: bool) -> int:
    """Numbers that a run changes; the whole backbone's among them if it is trained."""
    changed = {id(x): x.numel() for x in ebseg.parameters() if x.requires_grad}
    if train_backbone:
        changed |= {id(x): x.numel() for x in ebseg.backbone.parameters()}
    return sum(changed.values())


def _trained_and_scored(run: GridRun, out: Path, processes: int, device: str) -> GridScore:
    folder = run.folder(out)
    loop.train(run.config, folder, device=device)
    loaded = checkpoint.load(folder / CHECKPOINT, device=device)
    assert run.config.val_split is not None
    side = run.config.evaluate_short_side
    found = evaluate_checkpoint(
        loaded,
        SegmentationFolder(run.config.data, run.config.val_split),
        processes=processes,
        options=Options(short_side="configured" if side is None else side),
    )
    score = GridScore(
        variant=run.variant,
        seed=run.config.seed,
        miou_all=found.miou_all,
        miou_trained=found.miou_trained,
        miou_new=found.miou_new,
        trained_parameters=trained_parameters(loaded.ebseg, run.config.train_backbone),
    )
    content = {"config": run.config.to_dict(), "score": dataclasses.asdict(score)}
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / SCORE, json.dumps(content, indent=1) + "\n")
    return score


def _finished(run: GridRun, out: Path) -> GridScore | None:
    """The score of an earlier call, or None if the run has not ended."""
    path = run.folder(out) / SCORE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = TrainConfig.from_dict(content["config"])
        score = read(GridScore, content["score"], "score", TrainingError)
        assert isinstance(score, GridScore)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, TrainingError) as error:
        raise TrainingError(f"{path} is damaged, remove it to score the run again: {error}") from error
    wanted, had = run.config.to_dict(), config.to_dict()
    other = sorted(name for name in wanted if name not in HARMLESS and wanted[name] != had[name])
    if other:
        raise TrainingError(
            f"{path.parent} was trained with another {', '.join(other)}; "
            "take another --out, or the configuration of then"
        )
    return score


def _notify(line: str) -> None:
    print(f"ablation: {line}", file=sys.stderr, flush=True)
