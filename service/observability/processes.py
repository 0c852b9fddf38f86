"""The metrics of the process, `process_...`; of several processes together where the service has several."""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_OWN = ("process_start_time_seconds", "process_max_fds")  # which no sum would mean anything of


class ServiceProcesses(Collector):
    """Collects them.

    Attributes:
        others: pids of the service's processes beside this one.
    """

    def __init__(self) -> None:
        self.others: set[int] = set()
        self._own = ProcessCollector(registry=None)

    def collect(self) -> Iterable[Metric]:
        """Processor time, files and memory; pages that processes share count once."""
        families = list(self._own.collect())
        if not self.others:
            return families
        of_others = [sample for pid in self.others for sample in _samples(pid)]
        for family in families:
            (own,) = family.samples
            if family.name == "process_resident_memory_bytes":
                total = float(sum(map(own_memory, ("self", *map(str, self.others)))))
            elif family.name in _OWN:
                continue
            else:
                total = own.value + sum(value for name, value in of_others if name == own.name)
            family.samples = [own._replace(value=total)]
        return families


def _samples(pid: int) -> list[tuple[str, float]]:
    """Names and values of another process; none if it has ended."""
    collector = ProcessCollector(pid=lambda: pid, registry=None)
    return [(sample.name, sample.value) for family in collector.collect() for sample in family.samples]


def own_memory(pid: str = "self") -> int:
    """Bytes of a process that are in use; of what several share, each has its part. 0 if there is none."""
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    try:
        lines = rollup.read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
