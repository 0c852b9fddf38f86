"""What lies in a run's folder; needs no torch, so that saying that there is no run is quick."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from model.storage.files import replace_text
from model.storage.manifest import CONFIG, MANIFEST, METRICS
from training.config import TrainConfig
from training.errors import TrainingError

CHECKPOINT = "checkpoint"
LAST = "last"  # the newest checkpoint, where CHECKPOINT is the best
NEW, OLD = "-new", "-old"  # ends of hidden folders while a checkpoint takes another's place
EVALUATIONS = "evaluations.jsonl"
RUN_CONFIG = CONFIG  # of the run, not of its model
RUN_METRICS = METRICS
STATE = "state.safetensors"
LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
SEEN_DATA = "data.json"  # digest of the files that were looked at
LOGGER_RUNS = "loggers.json"  # what loggers call the run, and how far they were told
WANDB, MLFLOW = "wandb", "mlflow"  # what they keep here
LOCK = ".lock"  # held by the process that writes
PARTIAL = ".*.partial*"  # files that `replacing` had begun when the process was killed

Resume = Literal["auto", "never"]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a run's folder for a while; the system ends it with the process.

    Args:
        folder: of the run; one that is none yet is made by `take_folder` meanwhile.

    Raises:
        TrainingError: another process trains there.
    """
    if _is_foreign(folder):
        yield  # not ours to write into: `take_folder` refuses it
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ended = not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError:
            file.seek(0)
            raise TrainingError(
                f"another process trains in {folder} ({file.read().strip()}): wait for its end, or take "
                "another folder"
            ) from None
        if ended:  # between the two lines above
            raise TrainingError(f"another process was just about to leave {folder}; try again")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {os.uname().nodename}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if not any(folder.iterdir()):  # no run began here
                folder.rmdir()


def take_folder(folder: Path, config: TrainConfig, resume: Resume) -> None:
    """Makes the folder this run's, or finds that it is; what a killed process left half written is removed.

    Args:
        folder: of the run.
        config: of the run.
        resume: "never" removes all that an earlier run left there.

    Raises:
        TrainingError: it belongs to a run of another configuration, or holds something else. Nothing was
            removed then.
    """
    path = folder / RUN_CONFIG
    if path.exists():
        former = read_config(path)
        if resume == "never":
            _refuse_others(folder)
            _empty(folder)
        elif _has_begun(folder) and (names := former.differences(config)):
            reports = ", ".join(f"{x} was {getattr(former, x)!r}, now {getattr(config, x)!r}" for x in names)
            raise TrainingError(
                f"{folder} holds a run of another configuration: {reports}; take another folder"
            )
    elif _is_foreign(folder):
        raise TrainingError(f"{folder} is no run's folder, and not empty; take another")
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(PARTIAL):
        partial.unlink(missing_ok=True)
    replace_text(path, json.dumps(config.to_dict(), indent=1) + "\n")


def _is_foreign(folder: Path) -> bool:
    """Whether a folder holds something, and that is no run."""
    if not folder.exists() or (folder / RUN_CONFIG).exists():
        return False
    return not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())


def _has_begun(folder: Path) -> bool:
    """Whether there is anything to go on from; a first start that failed leaves nothing but its words."""
    return any((folder / name).exists() for name in (STATE, CHECKPOINT, LAST))


def _refuse_others(folder: Path) -> None:
    """Raises TrainingError if a run's folder holds what no run writes."""
    own = {
        RUN_CONFIG,
        RUN_METRICS,
        STATE,
        LOG,
        EVALUATIONS,
        TENSORBOARD,
        SEEN_DATA,
        LOCK,
        LOGGER_RUNS,
        WANDB,
        MLFLOW,
    }
    own |= {name for place in (CHECKPOINT, LAST) for name in (place, f".{place}{NEW}", f".{place}{OLD}")}
    others = sorted(x.name for x in folder.iterdir() if x.name not in own and not x.match(PARTIAL))
    if others:
        raise TrainingError(
            f"{folder} holds {others[0]} beside its run, and nothing was removed: move it, or take another "
            "folder"
        )


def _empty(folder: Path) -> None:
    """Removes what is in a run's folder, its configuration last: until then it is seen to be a run's."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN_CONFIG):
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def seen_data(folder: Path) -> str | None:
    """Digest of the data that the run has looked at whole; None if it has not."""
    try:
        found = json.loads((folder / SEEN_DATA).read_text(encoding="utf-8"))["seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def note_seen_data(folder: Path, digest: str) -> None:
    """Remembers it."""
    replace_text(folder / SEEN_DATA, json.dumps({"seen": digest}) + "\n")


def read_config(path: Path) -> TrainConfig:
    """A configuration's file.

    Raises:
        TrainingError: it is none.
    """
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None


def checkpoint_in(run: Path) -> Path:
    """The checkpoint of a run folder, or the folder itself if it is one.

    Raises:
        TrainingError: there is none.
    """
    checkpoint = run if (run / MANIFEST).is_file() else run / CHECKPOINT
    if not (checkpoint / MANIFEST).is_file():
        raise TrainingError(
            f"{run} holds no checkpoint: it has neither {CHECKPOINT}/{MANIFEST} nor {MANIFEST}. Name a "
            "folder that ebseg train has written to, once it has evaluated or ended"
        )
    return checkpoint


def in_run(folder: Path) -> Path:
    """The checkpoint of a run folder; any other folder stays what it is."""
    inner = folder / CHECKPOINT
    return inner if (inner / MANIFEST).is_file() and not (folder / MANIFEST).is_file() else folder


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint lies in.

    Raises:
        TrainingError: it lies in none.
    """
    folder = checkpoint.resolve()
    if folder.name != CHECKPOINT or not (folder.parent / RUN_CONFIG).is_file():
        raise TrainingError(
            f"{checkpoint} is not the checkpoint of a run, so that there is nowhere to save scores: name a "
            "folder that ebseg train has written to"
        )
    return folder.parent
