"""Programs that show a run's curves and pictures, behind one small protocol.

A run that was cut off takes some steps again. TensorBoard forgets what it was told of them; the others
cannot, and hear of no step twice: RUN/loggers.json notes how far they were told.
"""

import json
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.storage.files import replace_text
from training.config import TrainConfig
from training.errors import TrainingError
from training.run.folder import LOGGER_RUNS, MLFLOW, TENSORBOARD

TOLD = "told"  # in RUN/loggers.json, beside the loggers' names
_Value = TypeVar("_Value")


class Logger(Protocol):
    """One of the programs."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve; names are "group/curve"."""

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """Adds pictures, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Writes everything out."""


def open_loggers(config: TrainConfig, run: Path, step: int) -> list[Logger]:
    """Those that a run is to have.

    Args:
        config: of the run.
        run: its folder.
        step: steps done.

    Raises:
        ModuleNotFoundError: the package of one is not installed.
        TrainingError: one cannot be reached.
    """
    found: list[Logger] = []
    try:
        with apart():
            for name in config.loggers:
                match name:
                    case "tensorboard":
                        found.append(TensorBoardLogger(run, step))
                    case "wandb":
                        found.append(WandbLogger(config, run))
                    case "mlflow":
                        found.append(MlflowLogger(config, run))
    except BaseException:
        for logger in found:
            logger.close()
        raise
    return found


@contextmanager
def apart() -> Iterator[None]:
    """Leaves Python's random state, which the run saves, as it was: MLflow draws its runs' names from it."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


class TensorBoardLogger:
    """TensorBoard's files, in RUN/tensorboard.

    Args:
        run: the run's folder.
        step: steps done; what was told of later ones is forgotten.
    """

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """See `Logger`."""
        for number, picture in enumerate(shown):
            self._writer.add_image(f"pictures/{number}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()


class WandbLogger:
    """Weights & Biases. Its own variables say where it goes: WANDB_MODE=offline keeps all in RUN/wandb."""

    def __init__(self, config: TrainConfig, run: Path):
        import wandb

        try:
            self._run = wandb.init(
                project=config.name,
                name=run.name,
                id=_run_id(run, "wandb", secrets.token_hex(4)),
                resume="allow",
                dir=run,
                config=config.to_dict(),
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
            )
        except wandb.Error as error:
            raise TrainingError(f"Weights & Biases cannot be used: {error}") from error
        self._told = _Told(run, "wandb")
        self._run.define_metric("*", step_metric="step")
        self._picture = wandb.Image

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        if fresh := self._told.fresh(step, values):
            self._run.log({"step": step, **fresh})
            self._told.note(step, fresh)

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """See `Logger`."""
        named = {f"pictures/{number}": self._picture(picture) for number, picture in enumerate(shown)}
        if fresh := self._told.fresh(step, named):
            self._run.log({"step": step, **fresh})
            self._told.note(step, fresh)

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


class MlflowLogger:
    """MLflow: the server of MLFLOW_TRACKING_URI, or else files in RUN/mlflow."""

    def __init__(self, config: TrainConfig, run: Path):
        from mlflow import MlflowClient, is_tracking_uri_set
        from mlflow.entities import Metric
        from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE
        from mlflow.exceptions import MlflowException

        place = None
        if not is_tracking_uri_set():
            MLFLOW_ALLOW_FILE_STORE.set(True)  # else it wants a data base
            place = (run / MLFLOW).resolve().as_uri()
        self._metric = Metric
        try:
            self._client = MlflowClient(place)
            known = self._client.get_experiment_by_name(config.name)
            experiment = self._client.create_experiment(config.name) if known is None else known.experiment_id
            self._id = _run_id(run, "mlflow", None)
            if self._id is None:
                self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
                _run_id(run, "mlflow", self._id)
                for name, value in config.to_dict().items():
                    self._client.log_param(self._id, name, value)
            self._client.update_run(self._id, status="RUNNING")
        except MlflowException as error:
            raise TrainingError(f"MLflow cannot be used: {error.message}") from error
        self._told = _Told(run, "mlflow")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        now = round(1000 * time.time())
        if fresh := self._told.fresh(step, values):
            points = [self._metric(name, float(value), now, step) for name, value in fresh.items()]
            self._client.log_batch(self._id, metrics=points)
            self._told.note(step, fresh)

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """See `Logger`."""
        named = {f"pictures/{number}": picture for number, picture in enumerate(shown)}
        if fresh := self._told.fresh(step, named):
            for number, picture in enumerate(fresh.values()):
                self._client.log_image(self._id, picture, key=f"picture_{number}", step=step)
            self._told.note(step, fresh)

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._id)


class _Told:
    """The last step that a logger was told of, for each group of curves; noted after each telling.

    Args:
        run: the run's folder.
        logger: its name.
    """

    def __init__(self, run: Path, logger: str):
        self._run = run
        self._logger = logger
        self._last: dict[str, int] = _noted(run).get(TOLD, {}).get(logger, {})

    def fresh(self, step: int, values: Mapping[str, _Value]) -> dict[str, _Value]:
        """Those values, by "group/curve", whose group was not yet told of this step."""
        return {name: value for name, value in values.items() if step > self._last.get(_group(name), -1)}

    def note(self, step: int, values: Mapping[str, object]) -> None:
        """Says that these were told."""
        self._last |= {_group(name): step for name in values}
        known = _noted(self._run)
        _note(self._run, known | {TOLD: known.get(TOLD, {}) | {self._logger: self._last}})


def _group(name: str) -> str:
    return name.partition("/")[0]


def _run_id(run: Path, logger: str, fresh: str | None) -> str | None:
    """What a logger calls the run: noted with the run, so that one which goes on is the same to it."""
    known = _noted(run)
    found = known.get(logger)
    if found is None and fresh is not None:
        _note(run, known | {logger: fresh})
        return fresh
    return found if found is None else str(found)


def _noted(run: Path) -> dict[str, Any]:
    """What stands in RUN/loggers.json: the run's name with each logger, and how far they were told.

    Raises:
        TrainingError: it is damaged.
    """
    path = run / LOGGER_RUNS
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        last = {name: dict(steps) for name, steps in dict(known.get(TOLD, {})).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} is damaged ({error}); remove it to begin new curves") from error
    return known | {TOLD: last} if last else dict(known)


def _note(run: Path, known: Mapping[str, object]) -> None:
    replace_text(run / LOGGER_RUNS, json.dumps(known) + "\n")
