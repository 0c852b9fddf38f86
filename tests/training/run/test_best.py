"""The best checkpoint and the newest, and runs that end when they stop becoming better."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import ebseg
from model.storage.checkpoint import load
from tests.training.run.runs import micro_run, write_dataset
from training.config import TrainConfig
from training.errors import TrainingError
from training.evaluation.evaluate import Evaluation
from training.run import artifacts
from training.run.evaluations import Evaluations
from training.run.folder import EVALUATIONS, LAST
from training.run.state import read_state
from training.run.trainer import train


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return micro_run(tmp_path, val_split="val", keep_best="miou_all", evaluate_every=1, steps=6)


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float | None]) -> list[float | None]:
    """Has evaluations score these, one after the other; gives those that are left."""
    left = list(scores)
    real: Callable[[Evaluation], dict[str, Any]] = Evaluation.to_json

    def to_json(self: Evaluation) -> dict[str, Any]:
        return real(self) | {"miou_all": left.pop(0)}

    monkeypatch.setattr(Evaluation, "to_json", to_json)
    return left


def step_in(folder: Path) -> int:
    step: int = load(folder).manifest.training["step"]
    return step


def lines(run: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (run / EVALUATIONS).read_text().splitlines())
    return [(row["step"], row["miou_all"]) for row in rows]


def test_the_best_stays_and_the_newest_is_beside_it(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, [10, 30, 20, 30, 31, 5])
    run = train(config, tmp_path / "run", max_steps=4)
    assert (step_in(run / "checkpoint"), step_in(run / LAST)) == (2, 4)  # the first of equal ones
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["step"], metrics["miou_all"]) == (2, 30)
    assert load(run / "checkpoint").metrics["miou_all"] == 30
    assert load(run / LAST).metrics["miou_all"] == 30
    train(config, run)
    assert (step_in(run / "checkpoint"), step_in(run / LAST)) == (5, 6)
    assert lines(run) == [(1, 10), (2, 30), (3, 20), (4, 30), (5, 31), (6, 5)]
    assert json.loads((run / "metrics.json").read_text())["step"] == 5


def test_a_run_ends_when_it_stops_becoming_better(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = dataclasses.replace(config, patience=2)
    left = scored(monkeypatch, [10, 30, 20, 30, 40])
    run = tmp_path / "run"
    (tmp_path / "run.json").write_text(json.dumps(patient.to_dict()))
    line = ["train", str(run), "--config", str(tmp_path / "run.json")]
    for _ in range(2):  # the same command again changes nothing
        assert ebseg.main(line) == 0
        assert left == [40]
        printed = capsys.readouterr().out
        assert printed.startswith(f"trained 4 steps in {run}: miou_all 30.0")
        assert "ended before step 6: 2 evaluations brought no better one" in printed
        assert f"the best by miou_all, of step 2, is in {run / 'checkpoint'}" in printed
        assert printed.endswith(f"next: ebseg publish {run} registry/ebseg\n")
    with pytest.raises(IndexError):  # more patience, and it goes on: the sixth evaluation has no score here
        train(dataclasses.replace(config, patience=3), run)
    assert lines(run) == [(1, 10), (2, 30), (3, 20), (4, 30), (5, 40)]


@pytest.mark.parametrize("where", ["before the scores", "before the newest"])
def test_an_evaluation_that_was_cut_off_is_made_again(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = train(config, tmp_path / "whole", max_steps=4)

    def cut(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    run = train(config, tmp_path / "run", max_steps=2)
    cut_off = "evaluate" if where == "before the scores" else "_replace_checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, cut_off, cut)
        with pytest.raises(KeyboardInterrupt):
            train(config, run, max_steps=1)
    state = read_state(run)
    assert state is not None
    assert (state.step, step_in(run / LAST)) == (3, 2)
    train(config, run, max_steps=1)
    assert lines(run) == lines(whole)
    assert step_in(run / "checkpoint") == step_in(whole / "checkpoint")
    assert step_in(run / LAST) == 4


def test_a_score_without_a_value_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    write_dataset(tmp_path / "all", trained=[True] * 4)
    other = dataclasses.replace(config, data=str(tmp_path / "all"), keep_best="miou_new")
    with pytest.raises(
        TrainingError, match="keep_best compares miou_new, which has no value: the split 'val'"
    ):
        train(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_best": "miou_all"}, "keep_best needs val_split and evaluate_every"),
        ({"keep_best": "miou_all", "val_split": "val", "evaluate_every": 0}, "keep_best needs val_split and"),
        ({"patience": 2}, "patience needs keep_best"),
        ({"patience": -1}, "patience must not be negative"),
        ({"keep_best": "beauty", "val_split": "val"}, "keep_best must be one of miou_all, "),
    ],
)
def test_what_makes_no_sense(fields: Mapping[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_dict({"data": "d", "variant": "tiny"} | dict(fields))


def test_later_evaluations_do_not_count(tmp_path: Path) -> None:
    evaluations = Evaluations(tmp_path, 9)
    for step, score in ((1, 5.0), (2, 7.0), (3, 6.0)):
        evaluations.add(step, {"miou_all": score})
    assert Evaluations(tmp_path, 1).best("miou_all") == (1, 5.0)
    assert Evaluations(tmp_path, 3).best("miou_all", before=2) == (1, 5.0)
    assert Evaluations(tmp_path, 3).best("miou_new") is None
    (tmp_path / EVALUATIONS).write_text("{}\n")
    with pytest.raises(TrainingError, match="is damaged"):
        Evaluations(tmp_path, 3)


def test_a_first_start_that_fails_does_not_refuse_the_second(tmp_path: Path, config: TrainConfig) -> None:
    run = tmp_path / "run"
    init = Path(config.init or "")
    shutil.move(init, tmp_path / "away")
    with pytest.raises(Exception, match="is not a folder"):
        train(config, run)
    shutil.move(tmp_path / "away", init)
    train(dataclasses.replace(config, steps=1, seed=3), run)
    with pytest.raises(TrainingError, match="seed was 3, now 4; take another folder"):
        train(dataclasses.replace(config, steps=1, seed=4), run)
