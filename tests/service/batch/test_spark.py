"""`BatchSegmenter` in a real Spark's `mapInPandas`, in processes of Spark's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.batch.segmenter import BatchSegmenter
from tests.service.batch.pictures import write_pictures
from tests.service.batch.runs import ROOT
from tests.service.batch.spark import spark_folder
from tests.waiting import LONG_WAIT

PROGRAM = """
import json, sys
from pyspark.sql import SparkSession
from service.batch.rows import SPARK_SCHEMA
from service.batch.segmenter import BatchSegmenter

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
segmenter = BatchSegmenter(request={"classes": ["house", "boat", "sky"]}, device="cpu")
pictures = spark.createDataFrame([(path,) for path in sys.argv[1:]], ["path"]).coalesce(1)
rows = pictures.mapInPandas(segmenter.map_in_pandas, SPARK_SCHEMA).collect()
for row in rows:
    label_map = None if row.label_map is None else bytes(row.label_map).hex()
    print("ROW", json.dumps(row.asDict() | {"label_map": label_map}))
spark.stop()
"""


@pytest.mark.slow
def test_rows_of_spark(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in write_pictures(tmp_path, 5, broken=4)] + [
        str(tmp_path / "no.png")
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{spark_folder()}{os.pathsep}{ROOT}",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.replace("\r", "\n").splitlines()
    made = [json.loads(line.removeprefix("ROW ")) for line in lines if line.startswith("ROW ")]
    expected = BatchSegmenter(request={"classes": ["house", "boat", "sky"]}, device="cpu")(
        [{"path": name} for name in names]
    )
    for row, other in zip(made, expected, strict=True):
        label_map = None if other["label_map"] is None else other["label_map"].hex()
        confidence = None if other["confidence"] is None else pytest.approx(other["confidence"], abs=1e-5)
        assert row == other | {"label_map": label_map, "confidence": confidence}
    assert [row["error"] is None for row in made].count(True) == 4
