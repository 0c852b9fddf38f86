import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
# what the documents make before they use it
INIT = "ebseg init --variant tiny --seed 0 --out registry/ebseg-tiny/1"
HELD_OUT = "ebseg storybook data/held-out --train 0 --val 20 --seed 77"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """A user's environment: `ebseg` is found, and nothing is set for it."""
    bin_folder = Path(sys.executable).parent
    assert (bin_folder / "ebseg").exists(), "the project is not installed: run `make setup`"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EBSEG_")}
    return inherited | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A folder that looks like the repository's to the documents' commands, with what they make first."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(ROOT / "samples", folder / "samples")
    shutil.copytree(ROOT / "model" / "pretrained", folder / "model" / "pretrained")
    for command in (INIT, HELD_OUT):
        subprocess.run(command.split(), cwd=folder, env=environment, check=True, timeout=WAIT)
    return folder


@pytest.fixture(scope="session")
def untrained(workspace: Path) -> Path:
    """An untrained tiny checkpoint."""
    return workspace / "registry" / "ebseg-tiny" / "1"
