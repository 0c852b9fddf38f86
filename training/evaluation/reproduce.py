"""The paper's Table 1 again: a released checkpoint on the five benchmarks, beside what the paper says.

A score counts as reproduced if, rounded to the paper's one digit, it is within `TOLERANCE` of the paper's,
on the whole benchmark. Scores are kept as soon as a benchmark is done, so an interrupted run goes on.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError
from model.released.known import RELEASED, ReleasedModel
from model.storage.checkpoint import LoadedCheckpoint
from model.storage.manifest import WEIGHTS
from model.vocabulary.classes import Vocabulary
from training.data.layout import SegmentationFolder
from training.errors import DatasetError
from training.evaluation.benchmarks import SPLIT, Benchmark, BenchmarkScore
from training.evaluation.confusion_counts import Options
from training.evaluation.evaluate import evaluate_checkpoint
from training.evaluation.kept_scores import KeptScores, data_digest

TOLERANCE = 0.1  # points of mIoU; the paper gives one digit after the point
PACKAGES = ("ebseg", "torch", "open_clip_torch", "segment_anything", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkRow:
    """A benchmark's line: the paper's score, ours if there is one, and what to do if there is none."""

    benchmark: Benchmark
    paper: float
    score: BenchmarkScore | None
    command: str

    @property
    def whole(self) -> bool:
        """Whether all of the benchmark's pictures were scored."""
        return self.score is not None and self.score.pictures == self.benchmark.pictures

    @property
    def reproduced(self) -> bool:
        """Whether the paper's score was found again."""
        if self.score is None or not self.whole:
            return False
        return abs(round(self.score.miou, 1) - self.paper) < TOLERANCE + 1e-9

    @property
    def agreement(self) -> str:
        """In words."""
        if self.score is None:
            return f"not there: {self.command}"
        if not self.whole:
            return f"{self.score.pictures:,} of {self.benchmark.pictures:,} images: not the benchmark"
        return f"{'' if self.reproduced else 'not '}within {TOLERANCE:g}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        score = self.score
        return {
            "benchmark": self.benchmark.name,
            "paper": self.paper,
            "miou": None if score is None else score.miou,
            "difference": None if score is None else score.miou - self.paper,
            "reproduced": self.reproduced,
            "verdict": self.agreement,
            "pictures": None if score is None else score.pictures,
            "data_digest": None if score is None else score.data,
            "seconds": None if score is None else score.seconds,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """All rows, and what is needed to repeat them."""

    model: ReleasedModel
    rows: tuple[BenchmarkRow, ...]
    setting: Mapping[str, Any]

    @property
    def reproduced(self) -> bool:
        """Whether every row is."""
        return all(row.reproduced for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "model": self.model.title,
            "tolerance": TOLERANCE,
            "reproduced": self.reproduced,
            "benchmarks": [row.to_json() for row in self.rows],
            "setting": dict(self.setting),
        }

    def markdown(self) -> str:
        """A page: the table, and below it everything that is needed to repeat it."""
        lines = [
            f"# {self.model.title}, Table 1 again",
            "",
            f"| mIoU, percent | paper | here | within {TOLERANCE:g} |",
            "|---|---|---|---|",
        ]
        for row in self.rows:
            ours = "" if row.score is None else f"{row.score.miou:.1f}"
            agreement = ("yes" if row.reproduced else "no") if row.whole else row.agreement
            lines.append(
                f"| {row.benchmark.title} ({row.benchmark.name}) | {row.paper} | {ours} | {agreement} |"
            )
        lines += ["", "| to repeat it | |", "|---|---|"]
        cells = {name: value for name, value in self.setting.items() if not isinstance(value, dict | list)}
        for name, values in self.setting.items():
            if isinstance(values, dict):
                cells |= {f"{name}: {key}": value for key, value in values.items()}
            elif isinstance(values, list):
                cells[name] = "; ".join(map(str, values))
        for row in self.rows:
            if row.score is not None:
                cells[f"{row.benchmark.name}: class list and images, sha256"] = row.score.data
        lines += [f"| {name} | `{value}` |" for name, value in cells.items()]
        return "\n".join(lines) + "\n"


def paper_of(loaded: LoadedCheckpoint) -> ReleasedModel:
    """The row of Table 1 that a checkpoint belongs to.

    Raises:
        CheckpointError: it is of another variant, or untrained.
    """
    manifest = loaded.manifest
    model = RELEASED.get(manifest.variant)
    if model is None:
        raise CheckpointError(
            f"{loaded.directory} is of the variant {manifest.variant}, and the paper has scores of "
            f"{' and '.join(RELEASED)} alone: ebseg pull base gets EBSeg-B"
        )
    if manifest.untrained:
        raise CheckpointError(f"{loaded.directory} is untrained: there is nothing to reproduce with it")
    return model


def reproduce(
    loaded: LoadedCheckpoint,
    data: Path,
    benchmarks: Sequence[Benchmark],
    kept: Path,
    *,
    command: str,
    processes: int = 1,
    shown: bool = True,
) -> Reproduction:
    """Scores a checkpoint on the benchmarks that are there.

    Args:
        loaded: the checkpoint, on its device.
        data: folder of the benchmarks' folders, each as `ebseg prepare` makes it.
        benchmarks: which of them.
        kept: JSON file for the scores, made or gone on with; scores of other weights, data, settings or
            versions in it stay and do not count.
        command: how this was called, for those who repeat it.
        processes: see `evaluate_checkpoint`.
        shown: whether to show progress.

    Raises:
        CheckpointError: see `paper_of`.
        DatasetError: `data` is no folder, or a benchmark's folder is damaged or holds something else.
        TrainingError: the file of kept scores is none, or an evaluation failed.
    """
    model = paper_of(loaded)
    if not data.is_dir():
        raise DatasetError(f"{data} is no folder; name the one that the prepared benchmarks lie in")
    setting = _setting(loaded, command, processes)
    folders = {  # all of them first: a wrong one should be reported before hours of work
        benchmark.name: _opened(benchmark, place)
        for benchmark in benchmarks
        if (place := benchmark.folder(data)) is not None
    }
    scores = KeptScores(kept, setting)
    rows = []
    for benchmark in benchmarks:
        score = None
        if benchmark.name in folders:
            folder = folders[benchmark.name]
            score = scores.find(benchmark, folder)
            if score is None:
                score = _scored(loaded, folder, processes, shown)
                scores.add(benchmark, score)
        paper = model.miou[benchmark.name]
        rows.append(
            BenchmarkRow(benchmark=benchmark, paper=paper, score=score, command=benchmark.command(data))
        )
    return Reproduction(model=model, rows=tuple(rows), setting=setting)


def _opened(benchmark: Benchmark, place: Path) -> SegmentationFolder:
    folder = SegmentationFolder(place, SPLIT)
    wanted = Vocabulary.builtin(benchmark.name).names
    if [item.name for item in folder.classes] != list(wanted):
        raise DatasetError(
            f"{place} is not {benchmark.name}: its {len(folder.classes)} classes are not the benchmark's "
            f"{len(wanted)}; remove it and run {benchmark.command(place.parent)}"
        )
    return folder


def _scored(
    loaded: LoadedCheckpoint, folder: SegmentationFolder, processes: int, shown: bool
) -> BenchmarkScore:
    began = time.monotonic()
    found = evaluate_checkpoint(loaded, folder, processes=processes, options=Options(shown=shown))
    if found.miou_all is None:
        raise DatasetError(f"{folder.root}: its label maps hold no class at all")
    return BenchmarkScore(
        miou=found.miou_all,
        pictures=found.pictures,
        data=data_digest(folder),
        seconds=round(time.monotonic() - began, 1),
    )


def _setting(loaded: LoadedCheckpoint, command: str, processes: int) -> dict[str, Any]:
    """Everything but the data that a score may depend on, as JSON values."""
    config, device = loaded.ebseg.config, loaded.ebseg.device
    is_cuda = device.type == "cuda"
    return {
        "command": command,
        "checkpoint": f"{loaded.manifest.name}/{loaded.manifest.version}",
        "digest": loaded.manifest.digest,
        "weights sha256": loaded.manifest.files[WEIGHTS].sha256,
        "source": loaded.manifest.training.get("source"),
        "source sha256": loaded.manifest.training.get("sha256"),
        "split": SPLIT,
        "short side": config.short_side,
        "long side": config.long_side,
        "balance": json.loads(json.dumps(asdict(config.balance))),
        "templates": list(Vocabulary.of(["x"]).templates),
        "dtype": str(loaded.ebseg.background.dtype).removeprefix("torch."),
        "device": device.type,
        "device name": torch.cuda.get_device_name(device) if is_cuda else platform.processor() or "cpu",
        "capability": "" if is_cuda else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
