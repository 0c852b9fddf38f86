"""A checkpoint folder against its manifest, without torch: commands look before they load it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import CheckpointError, ModelError, UnfinishedError
from model.storage.files import Progress, sha256, silent
from model.storage.manifest import MANIFEST, Manifest


def verify(directory: str | Path, *, digests: bool = True, progress: Progress | None = None) -> Manifest:
    """Checks a folder against its manifest without loading the model.

    Args:
        directory: a version folder.
        digests: hash every file; without, only presence and sizes are compared.
        progress: notified of hashing.

    Raises:
        CheckpointError: the first thing that is wrong, with the file's name.
        UnfinishedError: that is a file which is missing or short.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    if not (folder / MANIFEST).exists():
        raise UnfinishedError(f"{folder} has no {MANIFEST}: it is no checkpoint, or was never finished")
    with errors_in(folder):
        manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
        manifest.refuse_other_files(
            {path.name: path.stat().st_size if path.is_file() else 0 for path in folder.iterdir()}
        )
        for name, entry in manifest.files.items():
            if digests and sha256(folder / name, progress or silent) != entry.sha256:
                raise CheckpointError(f"{name} does not match its sha256, it was changed or damaged")
    return manifest


@contextmanager
def errors_in(folder: Path) -> Iterator[None]:
    """Puts the folder before the message of whatever is wrong inside it."""
    try:
        yield
    except UnfinishedError as error:
        raise UnfinishedError(f"{folder}: {error}") from error
    except ModelError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except FileNotFoundError as error:
        raise UnfinishedError(f"{folder}: cannot be read: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
