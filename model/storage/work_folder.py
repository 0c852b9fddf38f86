"""A hidden folder to prepare a version in, known to be in use for as long as its process lives.

A process that is killed leaves its folder behind, and the next one removes it: at once where the lock tells
that the process is gone, after an hour where a lock cannot tell (a network disk, another machine).
"""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_SECONDS = 3600.0
_PREFIX = ".ebseg-publishing-"
_LOCK = "lock"


def temporary() -> Path:
    """This machine's folder for temporary files."""
    return Path(tempfile.gettempdir())


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder in `parent`, gone at the end of the `with` block.

    Raises:
        OSError: the disk did not take it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with open(folder / "unlocked", "x", encoding="utf-8") as lock:
            with suppress(OSError):  # no locks on this disk: its age will tell
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.write(socket.gethostname())
            lock.flush()
            # under its name only once it is locked: nobody may find it free
            os.rename(folder / "unlocked", folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(parent: Path) -> None:
    """Removes the work folders in `parent` whose processes are gone."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if _left_over(folder):
            shutil.rmtree(folder, ignore_errors=True)


def age(folder: Path) -> float:
    """Seconds since anything in a folder was changed; since 1970 if it is gone.

    Its owner may take it away meanwhile, at any moment.
    """
    latest = 0.0
    for place, folders, files in os.walk(folder):  # which passes over what it cannot list
        for path in (place, *(os.path.join(place, name) for name in (*folders, *files))):
            with suppress(FileNotFoundError):
                latest = max(latest, os.stat(path).st_mtime)
    return time.time() - latest


def _left_over(folder: Path) -> bool:
    try:
        lock = open(folder / _LOCK, "r+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return age(folder) > STALE_SECONDS
    except OSError:  # another user's
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return age(folder) > STALE_SECONDS
        # a lock of another machine may not be seen here
        return lock.read() == socket.gethostname() or age(folder) > STALE_SECONDS
