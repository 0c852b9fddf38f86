"""A checkout in small: the Makefile and installer of this one, packages without content, an index of them."""

import contextlib
import functools
import hashlib
import http.server
import os
import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from requirements import layers

SECONDS = 300.0
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
BUILT = f"{TAG}-{TAG}-manylinux_2_28_{platform.machine()}"
ANY = "py3-none-any"
TORCH, VISION = "9.1.0", "0.9.0"
LOCKS = {
    "torch": {
        "torch": TORCH,
        "torchvision": VISION,
        "nvidia-cublas": "13.1",
        "triton": "3.8",
        "sympy": "1.14",
    },
    "serving": {"servething": "1.0"},
    "training": {"trainthing": "1.0"},
    "development": {"devthing": "1.0"},
    "moto": {"motothing": "1.0"},
}
# Builds a wheel that does nothing, since setuptools is not among the packages
_BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "{module}-1-py3-none-any.whl", "{module}-1.dist-info/"
    with zipfile.ZipFile(folder + "/" + name, "w") as file:
        file.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
        file.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(info + "RECORD", "")
    return name
"""  # noqa: E501
_PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1"
"""


def wheel(folder: Path, name: str, version: str, tag: str = ANY, requires: tuple[str, ...] = ()) -> Path:
    """Writes a wheel without content."""
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-{tag}.whl"
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


def index(folder: Path, wheels: Path) -> None:
    """Makes an index of wheels in a folder, each package with its page."""
    for path in wheels.glob("*.whl"):
        page = folder / path.name.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, page.parent)
        with page.open("a", encoding="utf-8") as file:
            name = path.name.replace("+", "%2B")
            file.write(f'<a href="{name}">{path.name}</a>\n')


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The folder over HTTP; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Checkout:
    """The checkout, and a folder of wheels that pip is configured with.

    Args:
        folder: that all of it is made in.
        environment: to begin with; making one takes seconds.

    Attributes:
        root: its folder.
        wheels: folder of the packages.
        variables: of the environment that its commands run in.
    """

    def __init__(self, folder: Path, environment: Path | None = None):
        self.root, self.wheels = folder / "checkout", folder / "wheels"
        empty = folder / "no-index"
        for made in (self.root, self.wheels, empty):
            made.mkdir(parents=True)
        shutil.copytree(
            layers.FOLDER, self.root / "requirements", ignore=shutil.ignore_patterns("*.txt", "__pycache__")
        )
        shutil.copy(layers.path("uv"), self.root / "requirements")
        shutil.copy(layers.ROOT / "Makefile", self.root)
        for name, place in (("ebseg", self.root), ("ebseg-client", self.root / "client")):
            place.mkdir(exist_ok=True)
            (place / "pyproject.toml").write_text(_PROJECT.format(name=name), encoding="utf-8")
            backend = _BACKEND.format(name=name, module=name.replace("-", "_"))
            (place / "backend.py").write_text(backend, encoding="utf-8")
        if environment is not None:
            shutil.copytree(environment, self.root / ".venv", symlinks=True)
        (self.root / "samples").mkdir()
        (self.root / "samples" / "demo.py").write_text("print('the demo runs')\n", encoding="utf-8")
        for lock, packages in LOCKS.items():
            entries = []
            for name, version in packages.items():
                built = wheel(self.wheels, name, version, BUILT if name in layers.BUILT_BOTH_WAYS else ANY)
                digest = hashlib.sha256(built.read_bytes()).hexdigest()
                entries.append(f"{name}=={version} \\\n    --hash=sha256:{digest}\n")
            (self.root / "requirements" / f"{lock}.txt").write_text("".join(entries), encoding="utf-8")
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS", "VIRTUAL_ENV"))
        }
        self.variables = clean | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": empty.as_uri(),
            "PIP_FIND_LINKS": str(self.wheels),
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "PIP_CACHE_DIR": str(folder / "pip-cache"),
        }

    def run(self, *command: str, code: int = 0, **variables: str) -> str:
        """Runs a command; what it printed.

        Args:
            command: "make" and targets, or arguments of the installer.
            code: that it has to exit with.
            variables: of the environment, beside the usual ones.
        """
        if command[0] != "make":
            command = (sys.executable, "-m", "requirements.install", *command)
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def installed(self, environment: str = ".venv") -> dict[str, str]:
        """Versions of the packages in an environment, but for pip and what comes with it."""
        (packages,) = (self.root / environment).glob("lib/python3*/site-packages")
        names = (path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info"))
        found = dict(name.rsplit("-", 1) for name in names)
        return {name.replace("_", "-"): found[name] for name in found if name not in ("pip", "setuptools")}
