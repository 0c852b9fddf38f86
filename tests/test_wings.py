"""The wings of each package import downwards only, and few modules lie loose beside them.

A wing is a folder of a package, or a module that lies loose beside the folders.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imported import imported

ROOT = Path(__file__).parents[1]

# From the top to the bottom: each wing imports from those below it; those of one line not from each other.
WINGS = {
    "model": """
        commands
        fetch
        official bench
        released programs
        storage
        confidence
        segmenter
        network transforms pictures
        vocabulary tiling
        errors command allocator urls
    """,
    "training": """
        commands gpu_check
        recipes ablate
        storybook publishing bench
        run
        evaluation
        data encoders
        losses config torchscript
        errors progress
    """,
    "service": """
        cli
        bench
        commands
        batch
        workers
        local app
        server
        routes
        inference_protocol
        segmentation
        http
        runtime
        vocabularies hot_loading caches remote_pictures
        redis
        scheduling
        observability
        schemas
        settings
        errors options caller setting_values
    """,
}
LOOSE = {"model": 8, "training": 6, "service": 8}  # at most


def floors(package: str) -> dict[str, int]:
    """Each wing's floor, the lowest having the highest number."""
    lines = WINGS[package].strip().splitlines()
    return {wing: floor for floor, line in enumerate(lines) for wing in line.split()}


def wing_of(module: str) -> str | None:
    """`service.http.auth` is of the wing http; a package itself is of none."""
    return module.split(".")[1] if "." in module else None


def arrows(package: str) -> Iterator[tuple[str, str, str]]:
    """Each import from one wing into another: the wings, and the file."""
    for path in sorted((ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT)
        own = wing_of(".".join(place.with_suffix("").parts))
        if own == "__init__":
            continue
        for target in imported(ast.parse(path.read_text(encoding="utf-8")), ".".join(place.parent.parts)):
            if (
                target.split(".")[0] == package
                and (wing := wing_of(target)) in floors(package)
                and wing != own
            ):
                assert own is not None
                assert wing is not None
                yield own, wing, str(place)


@pytest.mark.parametrize("package", WINGS)
def test_every_wing_has_its_floor(package: str) -> None:
    folder = ROOT / package
    loose = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    wings = {path.parent.name for path in folder.glob("*/*.py")}
    assert loose | wings == set(floors(package))
    assert len(loose) <= LOOSE[package]


@pytest.mark.parametrize("package", WINGS)
def test_wings_import_downwards(package: str) -> None:
    floor = floors(package)
    assert [arrow for arrow in arrows(package) if floor[arrow[1]] <= floor[arrow[0]]] == []


@pytest.mark.parametrize("package", WINGS)
def test_arrows_are_seen(package: str) -> None:
    """A check that sees no arrow would pass whatever stands in the files."""
    floor = floors(package)
    started = {start for start, _, _ in arrows(package)}
    assert {wing for wing in floor if floor[wing] < max(floor.values()) / 2} <= started


@pytest.mark.parametrize("package", WINGS)
def test_tests_mirror_the_wings(package: str) -> None:
    """Folders of tests are named as the folders that they test."""
    tests = {path.name for path in (ROOT / "tests" / package).iterdir() if (path / "__init__.py").exists()}
    assert tests <= {path.name for path in (ROOT / package).iterdir() if path.is_dir()}
