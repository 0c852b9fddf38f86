"""`ebseg pull` as a process that is killed at chosen moments."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.storage.manifest import FILES, MANIFEST, WEIGHTS
from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.waiting import LONG_WAIT, wait_until


@dataclass
class Pulling:
    """Pulls one file of a hub, in processes.

    Attributes:
        hub: that has it.
        source: the hf:// address, or a released name.
        size: bytes of the file.
        folder: that the processes work in.
        version: the folder that comes of it.
    """

    hub: Hub
    source: str
    size: int
    folder: Path
    version: Path

    @property
    def partial(self) -> int | None:
        """Bytes of the partial file; None without one."""
        found = list((self.hub.home / "hub").glob("models--*/blobs/*.incomplete"))
        return found[0].stat().st_size if found else None

    def has_blob(self) -> bool:
        """Whether the whole file is in the cache."""
        return any(path.suffix != ".incomplete" for path in (self.hub.home / "hub").glob("models--*/blobs/*"))

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "ebseg", "pull", self.source],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_when(self, moment: Callable[[], object]) -> None:
        """Starts a process and kills it at a moment; nothing of a version may be there then."""
        with self.start() as process:
            try:
                wait_until(lambda: moment() or process.poll() is not None)
            finally:
                process.kill()
                _, output = process.communicate()
        assert process.returncode == -9, output
        assert not self.version.exists()

    def finish(self) -> str:
        """The last process, which has to succeed; what it printed."""
        with self.start() as process:
            printed, output = process.communicate(timeout=LONG_WAIT)
        assert process.returncode == 0, output
        assert {path.name for path in self.version.iterdir()} == {*FILES, MANIFEST}
        assert [path.name for path in self.version.parent.iterdir()] == [self.version.name]
        return printed


def kill_five_times(pulling: Pulling) -> list[int]:
    """Kills it before the first byte, at the first, half-way, when all is fetched, and while it imports.

    Returns:
        Bytes of the partial file at the deaths, each of which the next process went on with.
    """
    hub, sizes = pulling.hub, [0]
    with hub.faults.during(Fault("HEAD", wait=300)):
        pulling.kill_when(lambda: hub.requests)
    assert pulling.partial is None
    with hub.faults.during(Fault("GET /cdn", bytes_per_second=pulling.size / 10)):
        pulling.kill_when(lambda: pulling.partial)
        sizes.append(pulling.partial or 0)
        pulling.kill_when(lambda: (pulling.partial or 0) > pulling.size // 2)
        sizes.append(pulling.partial or 0)
    assert 0 < sizes[1] < sizes[2] < pulling.size
    pulling.kill_when(pulling.has_blob)
    hidden = pulling.version.parent
    pulling.kill_when(lambda: list(hidden.glob(f".*/**/{WEIGHTS}")))
    assert list(hidden.glob(".*")) != []  # the dead one's, which the next removes
    return sizes


def ranges(hub: Hub) -> list[str | None]:
    """What was asked for, of each request for bytes."""
    return [request.range for request in hub.requests if request.host == "cdn"]
