"""A run killed with -9 leaves no process, no half file, and nothing that passes for a data set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.data.prepare import miniature
from tests.waiting import wait_until
from training.data.layout import SegmentationFolder, check
from training.data.prepare.convert import prepare
from training.errors import DatasetError

PAIRS = 20
SCRIPT = """
import sys
from training.data.prepare.convert import prepare
prepare("ade20k-150", *sys.argv[1:], splits=("val",), jobs=2, shown=False)
"""


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead, and only waits for somebody to ask for its exit code


def test_killed_and_gone_on(tmp_path: Path) -> None:
    names = [f"ADE_val_{index:08}" for index in range(PAIRS)]
    rows: miniature.Rows = [[0, 1, 2]] * 2
    src, dst = tmp_path / "src", tmp_path / "dst"
    miniature.ade20k_benchmark(src, {"validation": dict.fromkeys(names, rows)})
    last = src / "ADEChallengeData2016" / "annotations" / "validation" / f"{names[-1]}.png"
    last.unlink()
    os.mkfifo(last)  # nobody ever writes to it, so reading it lasts until the kill
    written = dst / "labels" / "val"
    command = [sys.executable, "-c", SCRIPT, str(src), str(dst)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[4]) as process:
        try:
            wait_until(lambda: len(list(written.glob("ADE_*"))) == PAIRS - 1 or process.poll() is not None)
            listing = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    helpers = [int(number) for number in listing.split()]
    assert len(helpers) >= 2

    wait_until(lambda: not any(runs(helper) for helper in helpers))

    with pytest.raises(DatasetError, match=r"classes\.json is missing"):
        SegmentationFolder(dst, "val")
    last.unlink()
    miniature.grey(last, rows)
    made = prepare("ade20k-150", src, dst, splits=("val",), shown=False)
    assert made.splits["val"].skipped == PAIRS - 1
    folder = SegmentationFolder(dst, "val")
    check(folder, progress=False)
    assert folder.names == names
