"""How a run begins: what it reads is looked at, its folder is taken, its step is made to fit."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from model.errors import ModelError
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.mixture import Mixture
from training.data.whole import files_digest, refuse_broken_files
from training.run.distributed import Processes
from training.run.folder import RUN_CONFIG, STATE, Resume, note_seen_data, read_config, seen_data, take_folder
from training.run.forecast import planned


class Splits(NamedTuple):
    """What a run learns from and what it is scored on."""

    train: Mixture
    validation: SegmentationFolder | None

    def folders(self) -> list[SegmentationFolder]:
        """Splits of data sets, all that the run reads of."""
        return [*self.train.folders, *([] if self.validation is None else [self.validation])]

    @classmethod
    def of(cls, config: TrainConfig) -> "Splits":
        """Opened, which lists their files.

        Raises:
            DatasetError: one is not there, or they cannot be put together.
        """
        validation = config.val_split
        return cls(
            Mixture.of(config),
            None if validation is None else SegmentationFolder(config.data, validation),
        )


def fitting(config: TrainConfig, folder: Path, group: Processes, resume: Resume, gib: float) -> TrainConfig:
    """The configuration with what makes it fit; what was chosen when the run began, where it goes on.

    Args:
        config: of the run.
        folder: of the run.
        group: the processes, each with a GPU of its own.
        resume: as of `train`.
        gib: memory of a GPU, GiB.

    Raises:
        TrainingError: not even one picture fits.
    """
    if resume == "auto" and (folder / STATE).exists():
        former = read_config(folder / RUN_CONFIG)
        return dataclasses.replace(
            config,
            accumulate=former.accumulate,
            activation_checkpointing=former.activation_checkpointing,
        )
    return planned(config, group, gib)[0]


def begin(config: TrainConfig, folder: Path, group: Processes, splits: Splits, resume: Resume) -> None:
    """Takes the folder for the run, once all of its data has been looked at.

    Data that is wrong takes no folder: it may be put right. What was looked at once is not again, unless a
    file has changed since.

    Raises:
        TrainingError, DatasetError: see `train`; in all processes, whichever found it.
    """
    problem: ModelError | None = None
    if group.first:
        try:
            digest = files_digest(splits.folders())
            if seen_data(folder) != digest:
                refuse_broken_files(splits.folders())
            take_folder(folder, config, resume)
            note_seen_data(folder, digest)
        except ModelError as error:
            problem = error
    problem = group.gathered(problem)[0]
    if problem is not None:
        raise problem
