"""A run that is cut off goes on exactly: the same bits as one that was not."""

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.run.runs import command, log_of, micro_run, start, write_dataset
from tests.waiting import wait_until
from training.config import TrainConfig
from training.errors import DatasetError, TrainingError
from training.run.folder import STATE
from training.run.state import RunState, read_state
from training.run.trainer import train

STEPS = 24


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Here and, through the environment, in the processes started."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setenv("OMP_NUM_THREADS", "1")
    yield
    patch.undo()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def config(folder: Path) -> TrainConfig:
    return micro_run(folder, steps=STEPS, save_every=3, ema=0.9, accumulate=2, workers=2)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, config: TrainConfig) -> RunState:
    return state_of(train(config, folder / "whole"))


def state_of(run: Path) -> RunState:
    state = read_state(run)
    assert state is not None
    return state


def assert_equal(found: RunState, wanted: RunState) -> None:
    assert found.step == wanted.step
    assert found.tensors.keys() == wanted.tensors.keys()
    different = [name for name, x in wanted.tensors.items() if not torch.equal(found.tensors[name], x)]
    assert different == []
    assert found.randomness == wanted.randomness


def losses(run: Path) -> list[dict[str, object]]:
    """The log without what another run may be quicker or slower at."""
    measured = {"rate", "data_wait", "memory_gib"}
    return [{name: x for name, x in line.items() if name not in measured} for line in log_of(run)]


def wait_for_steps(process: "subprocess.Popen[str]", run: Path, steps: int) -> None:
    wait_until(lambda: len(log_of(run)) >= steps or process.poll() is not None)
    assert process.poll() is None, process.stderr and process.stderr.read()


def test_a_killed_run_goes_on_with_the_same_bits(
    folder: Path, config: TrainConfig, uninterrupted: RunState
) -> None:
    run = folder / "killed"
    with start(command(config, run)) as process:
        wait_for_steps(process, run, 7)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 6 <= state_of(run).step < STEPS
    assert not (run / "checkpoint").exists()
    train(config, run)
    assert_equal(state_of(run), uninterrupted)
    assert [line["step"] for line in log_of(run)] == list(range(1, STEPS + 1))
    assert losses(run) == losses(folder / "whole")


def test_so_does_one_with_all_the_options(folder: Path, tmp_path: Path) -> None:
    """LoRA, rates, weighted sources, rare classes, batches of one shape, two loggers, kept activations."""
    write_dataset(tmp_path / "more", pictures=3)
    config = micro_run(
        tmp_path,
        steps=12,
        save_every=3,
        workers=2,
        accumulate=2,
        extra_data=(f"{tmp_path / 'more'}=2",),
        repeat_rare=0.9,
        lora_rank=2,
        rates=("pixel_decoder=0", "transformer_decoder=0.5"),
        activation_checkpointing=True,
        group_by_shape=True,
        class_loss="process",
        loggers=("tensorboard", "mlflow"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        whole, run = train(config, tmp_path / "whole"), tmp_path / "killed"
        with start(command(config, run)) as process:
            wait_for_steps(process, run, 4)
            process.send_signal(signal.SIGKILL)
        assert 3 <= state_of(run).step < 12
        train(config, run)
    assert_equal(state_of(run), state_of(whole))
    assert losses(run) == losses(whole)


@pytest.fixture
def second_signal() -> Iterator[list[int]]:
    """SIGTERM where nobody catches it, in place of the end of the tests."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_sigterm_saves_the_step_at_hand(
    folder: Path, config: TrainConfig, uninterrupted: RunState, second_signal: list[int]
) -> None:
    run = folder / "stopped"

    def terminate() -> None:
        wait_until(lambda: len(log_of(run)) >= 2)
        os.kill(os.getpid(), signal.SIGTERM)

    operator = threading.Thread(target=terminate)
    operator.start()
    with pytest.raises(SystemExit) as stopped:
        train(dataclasses.replace(config, save_every=1000), run)
    operator.join()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert second_signal == []
    assert state_of(run).step == log_of(run)[-1]["step"] < STEPS
    train(config, run)
    assert_equal(state_of(run), uninterrupted)


def test_a_run_in_pieces(folder: Path, config: TrainConfig, uninterrupted: RunState) -> None:
    run = folder / "pieces"
    for done in (10, 20):
        train(config, run, max_steps=10)
        assert state_of(run).step == done
    assert not (run / "checkpoint").exists()
    train(config, run, max_steps=10)
    assert (run / "checkpoint" / "manifest.json").exists()
    assert_equal(state_of(run), uninterrupted)


def test_a_finished_run_stays_as_it_is(folder: Path, config: TrainConfig, uninterrupted: RunState) -> None:
    run = folder / "whole"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.parent.name != "tensorboard"}
    train(config, run)
    assert_equal(state_of(run), uninterrupted)
    checkpoint = run / "checkpoint" / "manifest.json"
    assert checkpoint.stat().st_mtime_ns == before[checkpoint]
    with pytest.raises(TrainingError, match="has done 24 steps, more than the 20 asked for"):
        train(dataclasses.replace(config, steps=20), run)


def test_another_configuration_is_refused(folder: Path, config: TrainConfig, uninterrupted: RunState) -> None:
    other = dataclasses.replace(config, learning_rate=0.5, seed=3, log_every=7)
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.001, now 0\.5, seed was 0, now 3; take"):
        train(other, folder / "whole")


def test_wrong_data_takes_no_folder(tmp_path: Path, config: TrainConfig) -> None:
    run = tmp_path / "run"
    for wrong in (
        dataclasses.replace(config, data=str(tmp_path / "nowhere")),
        dataclasses.replace(config, val_split="test"),
    ):
        with pytest.raises(DatasetError):
            train(wrong, run)
        assert not run.exists()


def test_a_foreign_folder_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(TrainingError, match="no run's folder, and not empty"):
        train(config, tmp_path)
    with pytest.raises(TrainingError, match="no run's folder, and not empty"):
        train(config, tmp_path, resume="never")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(TrainingError, match=r"config\.json: training configuration: field 'mine' is unknown"):
        train(config, tmp_path, resume="never")
    assert {path.name for path in tmp_path.iterdir()} == {"letter.txt", "config.json", "checkpoint"}


def test_other_classes_are_refused(tmp_path: Path) -> None:
    config = micro_run(tmp_path)
    train(config, tmp_path / "run", max_steps=1)
    path = tmp_path / "data" / "classes.json"
    path.write_text(path.read_text().replace("blue", "azure"))
    with pytest.raises(TrainingError, match="has other classes than when the run"):
        train(config, tmp_path / "run")


def test_afresh(folder: Path, config: TrainConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(config, steps=2)
    first = state_of(train(short, tmp_path / "run"))
    other = dataclasses.replace(short, seed=1)
    second = state_of(train(other, tmp_path / "run", resume="never"))
    assert second.step == first.step == 2
    name = next(key for key in first.tensors if key.startswith("ema/"))
    assert not torch.equal(first.tensors[name], second.tensors[name])
    assert len(log_of(tmp_path / "run")) == 2


def test_a_damaged_state_is_told(folder: Path, config: TrainConfig, tmp_path: Path) -> None:
    run = train(dataclasses.replace(config, steps=1), tmp_path / "run")
    whole = (run / STATE).read_bytes()
    (run / STATE).write_bytes(whole[:1000])
    with pytest.raises(TrainingError, match=r"state\.safetensors is no saved state, or is damaged"):
        train(dataclasses.replace(config, steps=1), run)


def test_the_last_state_stays_until_the_next_is_whole(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(config, tmp_path / "run", max_steps=2)
    whole = (run / STATE).read_bytes()

    def fail(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        train(config, run, max_steps=2)
    assert (run / STATE).read_bytes() == whole
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert state_of(train(config, run, max_steps=1)).step == 3
