"""The benchmarks of the paper's Table 1, and what a checkpoint scored on one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.present import CLASSES_FILE
from training.errors import TrainingError

SPLIT = "val"


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One column of Table 1.

    Attributes:
        name: of its classes, as in `Vocabulary.builtin`, and of its folder.
        archive: what `ebseg prepare` calls it; a folder of that name is taken as well.
        title: the paper's short name.
        pictures: in its validation split.
    """

    name: str
    archive: str
    title: str
    pictures: int

    def folder(self, data: Path) -> Path | None:
        """Where it lies below `data`; None if it does not."""
        places = [data / name for name in dict.fromkeys((self.name, self.archive))]
        return next((place for place in places if (place / CLASSES_FILE).is_file()), None)

    def command(self, data: Path) -> str:
        """What makes it."""
        return f"ebseg prepare {self.archive} downloads {data / self.name} --splits {SPLIT}"


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(name="ade20k-847", archive="ade20k-847", title="A-847", pictures=2000),
        Benchmark(name="pascal-context-459", archive="pascal-context-459", title="PC-459", pictures=5104),
        Benchmark(name="ade20k-150", archive="ade20k-150", title="A-150", pictures=2000),
        Benchmark(name="pascal-context-59", archive="pascal-context-59", title="PC-59", pictures=5104),
        Benchmark(name="voc-20", archive="voc", title="VOC", pictures=1449),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScore:
    """What a checkpoint scored on a benchmark.

    Attributes:
        miou: percent.
        pictures: how many were scored.
        data: digest of the benchmark's class list and of the names of its pictures.
        seconds: how long it took.
    """

    miou: float
    pictures: int
    data: str
    seconds: float


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name.

    Raises:
        TrainingError: an unknown one, or one twice.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise TrainingError(f"there is no benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    if len(set(names)) < len(names):
        raise TrainingError("name each benchmark once")
    return [BENCHMARKS[name] for name in names]
