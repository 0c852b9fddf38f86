"""A run from an object store into another one, of which most requests fail, are cut or are late."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.place import OutputPlace
from service.batch.rows import Row
from service.batch.sinks import FORMATS, open_sink
from tests.service.batch.runs import BROKEN, COUNT, SHARD, plan_of, rows_of, run_here, same
from tests.service.hot_loading.s3_server import S3, s3_server

MOST_FAILURES = 200  # of the same run, that end it early


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.mark.parametrize(
    "form", [form if form == "parquet" else pytest.param(form, marks=pytest.mark.slow) for form in FORMATS]
)
def test_faults_cost_time_and_no_row(
    form: str, s3: S3, folder: Path, url: str, expected: list[Row], tmp_path: Path
) -> None:
    base = f"s3://bucket/{tmp_path.name}"
    OutputPlace(base).fs.put(str(folder), f"{base}/in", recursive=True)
    plan = plan_of(f"{base}/in", f"{base}/out", url, form=form, retry_errors=True)
    s3.spoil()
    try:
        failures = 0
        while failures < MOST_FAILURES:
            try:
                if run_here(plan, open_sink(OutputPlace(plan.out), form)) == COUNT // BROKEN:
                    break
            except OSError:
                failures += 1
    finally:
        s3.spoil(False)
    assert 0 < failures < MOST_FAILURES
    assert same(rows_of(f"{base}/out", form), expected)
    names = OutputPlace(f"{base}/out").fs.find(f"{base}/out")
    masks = COUNT - COUNT // BROKEN if form == "folder" else 0
    assert len(names) == -(-COUNT // SHARD) + masks
