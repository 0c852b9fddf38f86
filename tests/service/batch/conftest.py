"""A service, pictures, and the rows that they make."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.rows import Row
from tests.service.batch.pictures import write_pictures
from tests.service.batch.runs import BROKEN, COUNT, rows_of, words
from tests.service.cli_calls import run
from tests.service.fakes import live


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live() as (address, _):
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    write_pictures(made, COUNT, broken=BROKEN)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of one run that nothing disturbs."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert run(*words(folder, out, url)) == 1
    rows = rows_of(out)
    assert [row["id"] for row in rows] == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.png")
    )
    assert sum(row["error"] is not None for row in rows) == COUNT // BROKEN
    return rows
