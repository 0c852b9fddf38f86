"""Runs of `ebseg batch` by a service with an engine that needs no model: then a worker starts in a second."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import service
from service.batch.deaths import Attempt
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan
from service.batch.rows import Row
from service.batch.sinks import Sink, open_sink
from service.batch.worker import ShardTask, finished, segmenter_of, there

ROOT = Path(service.__file__).parents[1]
CLASSES = ("--classes", "house, boat, sky")
COUNT, BROKEN, SHARD = 24, 6, 5  # pictures, of which every sixth is broken; of a shard


def words(source: Path, out: Path, url: str, *more: object) -> list[str]:
    common = ("batch", source, *CLASSES, "--out", out, "--shard-size", SHARD, "--url", url, "--json", *more)
    return [str(word) for word in common]


def rows_of(out: Path | str, form: str = "parquet") -> list[Row]:
    sink = open_sink(OutputPlace(str(out)), form)
    return [row for shard in sink.numbers() for row in sink.read(shard)]


def same(rows: list[Row], expected: list[Row]) -> bool:
    """All but the words of errors, which name a request."""
    return [row | {"error": row["error"] is None} for row in rows] == [
        row | {"error": row["error"] is None} for row in expected
    ]


def run_here(plan: BatchPlan, sink: Sink) -> int:
    """What one worker does of a run, in this process, and how many rows have errors."""
    errors = 0
    with closing(segmenter_of(plan, "service", torch_threads=None)) as segmenter:
        for number, shard in plan.shards():
            about = there(sink, number)
            if about is None or not plan.is_done(about, shard):
                task = ShardTask(number, shard, example=False, attempt=Attempt())
                errors += finished(plan, sink, segmenter, task, lambda _: None).errors
    return errors


def plan_of(source: object, out: object, url: str, **more: Any) -> BatchPlan:
    return BatchPlan(
        source=str(source),
        out=str(out),
        request={"classes": ["house", "boat", "sky"]},
        checkpoint=None,
        url=url,
        shard_size=SHARD,
        **more,
    )


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return document
