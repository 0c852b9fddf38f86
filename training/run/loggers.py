"""Programs that show a run's curves and pictures, behind one small protocol.

A run that was cut off takes some steps again. TensorBoard forgets what it was told of them; the others show
them twice, and on a CPU alike.
"""

import json
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.storage.files import replace_text
from training.config import TrainConfig
from training.errors import TrainingError
from training.run.folder import LOGGER_RUNS, MLFLOW, TENSORBOARD


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
        self._run.define_metric("*", step_metric="step")
        self._picture = wandb.Image

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """See `Logger`."""
        named = {f"pictures/{number}": self._picture(picture) for number, picture in enumerate(shown)}
        self._run.log({"step": step, **named})

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

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        now = round(1000 * time.time())
        points = [self._metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=points)

    def pictures(self, step: int, shown: Sequence[NDArray[np.uint8]]) -> None:
        """See `Logger`."""
        for number, picture in enumerate(shown):
            self._client.log_image(self._id, picture, key=f"picture_{number}", step=step)

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._id)


def _run_id(run: Path, logger: str, fresh: str | None) -> str | None:
    """What a logger calls the run: noted with the run, so that one which goes on is the same to it."""
    path = run / LOGGER_RUNS
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = known.get(logger)
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(f"{path} is damaged ({error}); remove it to begin new curves") from error
    if found is None and fresh is not None:
        replace_text(path, json.dumps(known | {logger: fresh}) + "\n")
        return fresh
    return found if found is None else str(found)
