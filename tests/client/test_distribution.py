"""`ebseg-client` as a distribution: what is built, what an installation holds, and how light it is."""

import re
import sys
import tarfile
import tomllib
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

import pytest

from tests.small_environment import ROOT, client_source, environment, ran, wheel

MODULES = sorted(path.name for path in (ROOT / "client" / "ebseg_client").iterdir() if path.suffix)
DEPENDENCIES = {"httpx", "numpy", "pillow"}
# those, and what they need themselves
INSTALLED = {*DEPENDENCIES, "anyio", "certifi", "h11", "httpcore", "idna", "sniffio", "typing-extensions"}
MOST_DOWNLOADED = 30e6  # bytes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    folder = tmp_path_factory.mktemp("client")
    return wheel(client_source(folder), folder / "wheels")


@pytest.fixture(scope="module")
def programs(built: Path) -> Path:
    """The programs of an environment that holds the client, and what it needs."""
    return environment(built.parent / "environment", built)


def document(path: str) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    return project


def test_wheel_holds_the_package_its_types_and_its_licence(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith("/METADATA"))
        fields = metadata.PathDistribution(zipfile.Path(archive, about.removesuffix("METADATA"))).metadata
        licence = archive.read(about.replace("METADATA", "licenses/LICENSE"))
    assert sorted(name.partition("/")[2] for name in names if name.startswith("ebseg_client/")) == MODULES
    assert "py.typed" in MODULES
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert (fields["Name"], fields["License-Expression"]) == ("ebseg-client", "MIT")
    assert "# Python client" in str(fields)
    assert {re.split(r"[^\w-]", line)[0] for line in fields.get_all("Requires-Dist", [])} == DEPENDENCIES


def test_source_distribution_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    archive = tmp_path / ran([sys.executable, "-c", code], client_source(tmp_path)).splitlines()[-1]
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    again = wheel(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "again")
    with zipfile.ZipFile(built) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert all(first.read(n) == second.read(n) for n in first.namelist() if "RECORD" not in n)


def test_both_distributions_have_one_version() -> None:
    """They are released together, and the commands use more of the client than its `__all__`."""
    client, ebseg = document("client/pyproject.toml"), document("pyproject.toml")
    assert client["version"] == ebseg["version"]
    assert f"ebseg-client=={client['version']}" in ebseg["dependencies"]  # type: ignore[operator]
    assert client["requires-python"] == ebseg["requires-python"]


def test_installation_holds_nothing_else(programs: Path) -> None:
    (site,) = programs.parent.glob("lib/python*/site-packages")
    found = {one.name.lower().replace("_", "-") for one in metadata.distributions(path=[str(site)])}
    assert found - {"pip", "setuptools"} <= INSTALLED | {"ebseg-client"}
    assert found >= DEPENDENCIES | {"ebseg-client"}


def test_download_is_small(programs: Path, built: Path) -> None:
    """Wheels are archives of deflated files: compressed again, what is installed tells their size."""
    (site,) = programs.parent.glob("lib/python*/site-packages")
    sizes = {}
    for one in metadata.distributions(path=[str(site)]):
        if one.name not in ("pip", "setuptools"):
            files = [Path(str(one.locate_file(file))) for file in one.files or [] if file.suffix != ".pyc"]
            sizes[one.name] = sum(len(zlib.compress(path.read_bytes())) for path in files if path.is_file())
    assert sum(sizes.values()) < MOST_DOWNLOADED, sizes
    assert sizes["numpy"] > 10e6, sizes  # it was looked at
    assert built.stat().st_size < 50e3


def test_import_loads_the_dependencies_alone(programs: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nbefore = set(sys.modules)\n"
        "from ebseg_client import EBSegClient, AsyncEBSegClient\nEBSegClient().close()\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    tops = set(ran([str(programs / "python"), "-W", "error", "-c", code], tmp_path).split())
    names = {"pillow": "PIL", "typing-extensions": "typing_extensions"}
    assert tops <= {names.get(name, name) for name in INSTALLED} | {"ebseg_client"}


def test_types_reach_the_users_type_checker(programs: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ebseg_client import EBSegClient\n"
        "with EBSegClient() as client:\n"
        "    answer = client.segment('p.jpg', ['sky'], background=0.5)\n"
        "reveal_type(answer.found[0].fraction)\n"
        "reveal_type(answer.labels)\n"
        "client.segment('p.jpg', ['sky'], treshold=0.5)\n"
        "answer.fraction\n"
    )
    words = ["-m", "mypy", "--strict", "--python-executable", str(programs / "python"), script.name]
    printed = ran([sys.executable, *words], tmp_path, 1)
    assert 'script.py:4: note: Revealed type is "float"' in printed
    assert re.search(r"script.py:5: note: Revealed type is .*ndarray.*unsignedinteger", printed)
    assert re.search(r'script.py:6: error: .*"treshold"', printed)
    assert 'script.py:7: error: "Segmentation" has no attribute "fraction"' in printed
    assert "Found 2 errors in 1 file" in printed
