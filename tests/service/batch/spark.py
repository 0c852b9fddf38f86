"""Spark, beside the environment: half a gigabyte that one slow test needs, so no set-up brings it."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = """
pyspark==4.3.0 --hash=sha256:e8c517948eff7088a7aa07449aa8eafa4a15a8d50319de2525a6fd26622476c6
py4j==0.10.9.9 --hash=sha256:c7c26e4158defb37b0bb124933163641a2ff6e3a3913f7811b0ddbe07ed61533
"""
FOLDER = Path(sys.prefix) / "spark"


def spark_folder() -> Path:
    """Where pyspark can be imported from; fetched by pip, which compares its digests, when it is missing."""
    assert shutil.which("java"), "Spark needs Java, 17 or later; `make tools` installs it"
    if not FOLDER.exists():
        with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder:
            wanted = Path(folder, "requirements.txt")
            wanted.write_text(PACKAGES, encoding="utf-8")
            install = ["install", "--quiet", "--no-deps", "--require-hashes", f"--target={folder}/spark"]
            subprocess.run(
                [sys.executable, "-m", "pip", *install, f"--requirement={wanted}"], check=True, timeout=1200
            )
            Path(folder, "spark").rename(FOLDER)
    return FOLDER
