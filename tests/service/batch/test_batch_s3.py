"""A run from an object store into another one, of which most requests fail, are cut or are late."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.batch.deaths import Attempt
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan
from service.batch.rows import Row
from service.batch.sinks import FORMATS, Sink, open_sink
from service.batch.worker import ShardTask, finished, segmenter_of, there
from tests.service.batch.runs import BROKEN, COUNT, SHARD, rows_of, same
from tests.service.hot_loading.s3_server import S3, s3_server

MOST_FAILURES = 200  # of the same run, that end it early


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def run_once(plan: BatchPlan, sink: Sink) -> int:
    """What one worker does of a run, and how many rows have errors."""
    errors = 0
    with closing(segmenter_of(plan, "service", torch_threads=None)) as segmenter:
        for number, shard in plan.shards():
            about = there(sink, number)
            if about is None or not plan.is_done(about, shard):
                task = ShardTask(number, shard, example=False, attempt=Attempt())
                errors += finished(plan, sink, segmenter, task, lambda _: None).errors
    return errors


@pytest.mark.parametrize(
    "form", [form if form == "parquet" else pytest.param(form, marks=pytest.mark.slow) for form in FORMATS]
)
def test_faults_cost_time_and_no_row(
    form: str, s3: S3, folder: Path, url: str, expected: list[Row], tmp_path: Path
) -> None:
    base = f"s3://bucket/{tmp_path.name}"
    OutputPlace(base).fs.put(str(folder), f"{base}/in", recursive=True)
    plan = BatchPlan(
        source=f"{base}/in",
        out=f"{base}/out",
        request={"classes": ["house", "boat", "sky"]},
        checkpoint=None,
        url=url,
        form=form,
        shard_size=SHARD,
        retry_errors=True,
    )
    s3.spoil()
    try:
        failures = 0
        while failures < MOST_FAILURES:
            try:
                if run_once(plan, open_sink(OutputPlace(plan.out), form)) == COUNT // BROKEN:
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
