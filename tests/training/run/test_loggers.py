"""Weights & Biases and MLflow, the real ones: one keeps its files, the other has a store of files."""

import dataclasses
import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.run.runs import log_of, micro_run
from training.config import TrainConfig
from training.errors import TrainingError
from training.run import loggers
from training.run.loggers import open_loggers
from training.run.trainer import train

BLOCK = 1 << 15  # bytes


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing outside of the test's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # so that it is unset afterwards


def histories(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of the points of MLflow's curves."""
    from mlflow import MlflowClient

    client = MlflowClient((run / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("ebseg")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.data.params["learning_rate"] == "0.001"
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }


def test_a_run_in_two_pieces_is_one_to_its_loggers(tmp_path: Path, offline: None) -> None:
    config = micro_run(
        tmp_path,
        steps=3,
        val_split="val",
        pictures_every=2,
        loggers=("tensorboard", "wandb", "mlflow"),
    )
    run = tmp_path / "run"
    train(config, run, max_steps=2)
    train(config, run)
    log = log_of(run)
    found = histories(run)
    assert found["train/loss"] == [(line["step"], line["loss"]) for line in log]
    assert {"loss/mask", "train/data_wait", "train/memory_gib", "train/rate"} <= found.keys()
    assert [step for step, _ in found["evaluation/miou_all"]] == [3]
    ids = json.loads((run / "loggers.json").read_text())
    pieces = list((run / "wandb").glob(f"offline-run-*-{ids['wandb']}/run-{ids['wandb']}.wandb"))
    assert 1 <= len(pieces) <= 2  # folders are named by the second
    assert all(b"train/loss" in piece.read_bytes() for piece in pieces)
    assert any(b"evaluation/miou_all" in piece.read_bytes() for piece in pieces)
    assert len(list((run / "wandb").rglob("*.png"))) >= 4
    train(dataclasses.replace(config, steps=1, loggers=()), run, resume="never")
    assert not (run / "wandb").exists()
    assert not (run / "mlflow").exists()


def wandb_rows(piece: Path) -> list[dict[str, Any]]:
    """What one piece of an offline run's history holds, a row a telling.

    Its file is LevelDB's log: after 7 bytes blocks of 32 KiB, of parts with a checksum, a length and a type
    (1 whole, 2 first, 3 middle, 4 last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, rows = piece.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            read = Record.FromString(record)
            items = read.history.item if read.WhichOneof("record_type") == "history" else ()
            rows += [{"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in items}]
            record = b""
    return rows


def test_steps_that_are_taken_again_are_told_once(tmp_path: Path, offline: None) -> None:
    """The run is cut off at step 3, its newest state is of step 1, and it goes on to step 4."""
    config = micro_run(tmp_path, loggers=("wandb", "mlflow"))
    run = tmp_path / "run"
    run.mkdir()
    for first, last in ((1, 3), (2, 4)):
        time.sleep(1.0)  # W&B names folders by the second
        opened = open_loggers(config, run, first - 1)
        for step in range(first, last + 1):
            for logger in opened:
                logger.numbers(step, {"train/loss": 10.0 * first + step, "loss/mask": 1.0})
                if step % 2 == 0:
                    logger.pictures(step, [np.full((4, 6, 3), step, np.uint8)])
        for logger in opened:
            if last == 4:  # the first one had no time for it
                logger.numbers(3, {"evaluation/miou_all": 50.0})
            logger.close()
    found = histories(run)
    assert found["train/loss"] == [(1, 11), (2, 12), (3, 13), (4, 24)]
    assert found["evaluation/miou_all"] == [(3, 50)]
    assert len(list((run / "mlflow").rglob("picture_0*.png"))) == 2
    rows = [
        row
        for piece in sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
        for row in wandb_rows(piece)
    ]
    assert (
        sorted((row["step"], row["train/loss"]) for row in rows if "train/loss" in row) == found["train/loss"]
    )
    assert sorted(row["step"] for row in rows if "pictures/0/path" in row) == [2, 4]


def test_only_those_that_are_asked_for(tmp_path: Path) -> None:
    config = micro_run(tmp_path, loggers=())
    assert open_loggers(config, tmp_path, 0) == []
    assert not (tmp_path / "tensorboard").exists()


def test_a_logger_that_fails_closes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []

    class Board:
        def __init__(self, run: Path, step: int):
            self.run = run

        def close(self) -> None:
            closed.append(self.run)

    monkeypatch.setattr(loggers, "TensorBoardLogger", Board)
    (tmp_path / "loggers.json").write_text("[]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    with pytest.raises(TrainingError, match=r"loggers\.json is damaged"):
        open_loggers(micro_run(tmp_path, loggers=("tensorboard", "mlflow")), tmp_path, 0)
    assert closed == [tmp_path]


def test_an_unreachable_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrainingError, match=r"MLflow cannot be used: .*127\.0\.0\.1"):
        open_loggers(TrainConfig(data="d", variant="tiny", loggers=("mlflow",)), tmp_path, 0)


def test_pictures_are_arrays_of_bytes(tmp_path: Path, offline: None) -> None:
    (tmp_path / "run").mkdir()
    (logger,) = open_loggers(micro_run(tmp_path, loggers=("mlflow",)), tmp_path / "run", 0)
    logger.pictures(2, [np.full((4, 6, 3), 7, np.uint8)])
    logger.close()
    assert list((tmp_path / "run" / "mlflow").rglob("picture_0*step*2*.png"))
