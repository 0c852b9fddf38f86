"""Who knows only the help texts gets a mask."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
EBSEG = Path(sys.executable).parent / "ebseg"


def ebseg(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [EBSEG, *arguments], cwd=folder, capture_output=True, text=True, timeout=WAIT, check=True
    )
    return done.stdout


def test_the_first_example_of_the_help_runs_as_it_stands(tmp_path: Path) -> None:
    shutil.copy(ROOT / "samples" / "village.jpg", tmp_path / "photo.jpg")
    text = ebseg(tmp_path, "--help")
    first = re.search(r"^Examples:\n  ebseg (.+)$", text, re.M)
    assert first
    arguments = shlex.split(first[1])
    assert f"  {arguments[0]} " in text  # it is among the commands
    assert "--overlay" in ebseg(tmp_path, arguments[0], "--help")
    told = ebseg(tmp_path, *arguments)
    names = arguments[arguments.index("--classes") + 1].split(", ")
    assert any(name in told for name in names)
    with Image.open(tmp_path / arguments[arguments.index("--overlay") + 1]) as overlay:
        assert overlay.size == (512, 384)
