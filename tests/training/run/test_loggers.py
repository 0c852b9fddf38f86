"""Weights & Biases and MLflow, the real ones: one keeps its files, the other has a store of files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.run.runs import log_of, micro_run
from training.config import TrainConfig
from training.errors import TrainingError
from training.run import loggers
from training.run.loggers import open_loggers
from training.run.trainer import train


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
