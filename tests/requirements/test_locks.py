"""pyproject.toml and the locks agree: each requirement is locked, once a platform, at a version that fits."""

import re
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from requirements import layers
from requirements.lock import OWN, SOURCES
from tests.requirements import wanted
from tests.requirements.wanted import OTHERS, PLATFORMS, Platform

MOTO = Path(sys.prefix) / "moto"
RENEW = "`make lock` renews the locks"
ALL = [layers.path(name) for name in SOURCES]


def packages_of_moto() -> tuple[str, ...]:
    found = tuple(map(str, MOTO.glob("lib/python3*/site-packages")))
    assert found, f"moto is not installed in {MOTO}; `make setup` installs it"
    return found


def asked(lock: str) -> tuple[list[Requirement], tuple[str, ...]]:
    """What a lock, with those below it, is made from, and where its packages lie."""
    if lock == "moto":
        return [
            Requirement(line) for line in wanted.document()["dependency-groups"]["moto"]
        ], packages_of_moto()
    if lock == "torch":
        return [Requirement(name) for name in layers.BUILT_BOTH_WAYS], ()
    return wanted.direct(lock), ()


def files(lock: str) -> list[Path]:
    return layers.files(lock) if lock in layers.FILES else [layers.path(lock)]


def name(platform: Platform) -> str:
    return "-".join(platform[key] for key in ("sys_platform", "platform_machine", "python_full_version"))


LOCKS = ("torch", *layers.LAYERS, "moto")


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=name)
def test_every_requirement_is_locked_at_a_version_that_fits(lock: str, platform: Platform) -> None:
    found = wanted.locked(files(lock), platform)
    wrong = []
    for package, requirements in wanted.all_of(*asked(lock), platform).items():
        if package in OWN:
            continue
        versions = found.get(package, set())
        if len(versions) != 1:
            wrong.append(f"{package} is locked at {sorted(versions) or 'no version'}")
        wrong += [
            f"{requirement} is locked at {version}"
            for requirement in requirements
            for version in versions
            if not requirement.specifier.contains(version, prereleases=True)
        ]
    assert wrong == [], RENEW


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_needed(lock: str) -> None:
    needed = {package for platform in PLATFORMS + OTHERS for package in wanted.all_of(*asked(lock), platform)}
    if metadata.version("torch").endswith("+cpu"):  # its metadata don't name what CUDA needs
        needed |= {
            name
            for line in layers.entries(layers.path("torch"))
            if layers.is_cuda_only(name := layers.name_of(line))
        }
    idle = {layers.name_of(line) for file in files(lock) for line in layers.entries(file)} - needed
    assert idle == set(), RENEW


def test_no_layer_repeats_a_lower_one_or_departs_from_it() -> None:
    lines = Counter(line for file in layers.files("development") for line in layers.entries(file))
    assert [line for line, count in lines.items() if count > 1] == []
    for platform in PLATFORMS:
        found = wanted.locked(layers.files("development"), platform)
        assert {package: versions for package, versions in found.items() if len(versions) > 1} == {}


def test_extras_and_groups_are_all_locked() -> None:
    project = wanted.document()
    assert set(project["project"]["optional-dependencies"]) == {
        "model", "service", "training", "wandb", "mlflow", "export", "batch", "ray", "s3", "gs", "azure",
        "otlp", "geo", "jxl", "dev"
    }  # fmt: skip
    (everything,) = project["project"]["optional-dependencies"]["dev"]
    assert everything == "ebseg[service,training,wandb,mlflow,export,batch,ray,s3,gs,azure,otlp,geo,jxl]"
    assert layers.EXTRAS["development"] == ("dev",)
    assert set(project["dependency-groups"]) == {"dev", "moto"}


def test_what_builds_the_project_is_installed_before_it() -> None:
    """The installer builds without isolation, so that nothing is looked for."""
    for path in (layers.ROOT / "pyproject.toml", wanted.CLIENT):
        for line in wanted.document(path)["build-system"]["requires"]:
            requirement = Requirement(line)
            for platform in PLATFORMS:
                (version,) = wanted.locked([layers.path("torch")], platform)[requirement.name]
                assert requirement.specifier.contains(version)


def test_the_clients_version_is_the_one_asked_for() -> None:
    (requirement,) = [found for found in wanted.direct("serving") if found.name == "ebseg-client"]
    assert requirement.specifier.contains(wanted.document(wanted.CLIENT)["project"]["version"])


@pytest.mark.parametrize("lock", SOURCES)
def test_lock_has_hashes_and_no_address(lock: str) -> None:
    path = layers.path(lock)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|(?<![\w.])/\w|--(index|extra|find|trusted)", text)
    entries = layers.entries(path)
    assert len(entries) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 0
    for line, entry in entries.items():
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", line)
        hashes = re.findall(r"^    --hash=sha256:([0-9a-f]{64})(?: \\)?$", entry, re.MULTILINE)
        assert len(hashes) == entry.count("\n") > 0


def test_this_environment_is_the_locked_one() -> None:
    """Else the tests would run with other packages than users do."""
    wrong = {}
    for line in (line for file in layers.files("development") for line in layers.entries(file)):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                version = "not installed"
            if version.split("+")[0] != layers.version_of(line) and not layers.is_cuda_only(requirement.name):
                wrong[requirement.name] = version
    assert wrong == {}, "`make setup` installs what is locked"
