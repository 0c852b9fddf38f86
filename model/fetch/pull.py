"""A named, remote or local file of released weights becomes a version of a registry.

It is fetched, its digest compared, imported, loaded again, its golden picture compared, and renamed into its
place: the version is there whole or not at all. Whatever process is killed at whatever moment, the next one
goes on with the bytes that have come and removes what else was left.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model.errors import DISK_FULL, CheckpointError, FetchError
from model.fetch.fetching import Fetched, Fetcher, SourceFile, throw_away
from model.fetch.local import LocalFetcher
from model.fetch.sources import HubFile, LocalFile, Source
from model.fetch.transfer import Notify, Patience
from model.released.known import ReleasedModel
from model.storage.files import Progress, sync
from model.storage.manifest import MANIFEST, Manifest
from model.storage.work_folder import remove_left_over, work_folder

REGISTRY = Path("registry")
ROOM = 64 << 20  # bytes beside the weights: golden picture, file systems' own


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be pulled, and where to.

    Attributes:
        source: the file.
        model: the released model that it is; None for other weights.
        registry, name, version: the folder to make, REGISTRY/NAME/VERSION.
        variant: configuration of the weights; what their shapes tell when None.
        sha256: digest that the file must have; any when None.
    """

    source: Source
    model: ReleasedModel | None
    registry: Path
    name: str
    version: int
    variant: str | None = None
    sha256: str | None = None

    @property
    def directory(self) -> Path:
        """The version folder."""
        return self.registry / self.name / str(self.version)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """A version that is there.

    Attributes:
        directory: its folder.
        manifest: what it says.
        received: bytes that came over the network for it; None if the version was there already.
    """

    directory: Path
    manifest: Manifest
    received: int | None


def pull(
    order: Order,
    *,
    notify: Notify,
    progress: Progress,
    allow: Callable[[SourceFile], bool] = lambda found: True,
    patience: Patience | None = None,
) -> Pulled:
    """Makes the version, unless it is there.

    Args:
        order: what, and where to.
        notify: called with waits and what else users should know, a line each.
        progress: notified of bytes.
        allow: asked before anything is fetched.
        patience: with the network.

    Raises:
        FetchError: a refusal, a wrong digest, no network, no room.
        CheckpointError: the place is taken or damaged, or the file holds no weights of EBSeg.
        OSError: the disk did not take it.
    """
    there = present(order, progress)
    if there is not None:
        return Pulled(directory=order.directory, manifest=there, received=None)
    fetcher = fetcher_of(order, notify=notify, progress=progress, patience=patience)
    with _disk(order):
        found = fetcher.find()
        _check_announced_digest(order, found)
        if not allow(found):
            raise FetchError(f"nothing was fetched: `ebseg pull {order.source}` does it")
        order.directory.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(order.directory.parent)
        with work_folder(order.directory.parent) as work:
            _check_room(order, found)
            with fetcher.fetched(found) as file:
                _check_digest(order, file)
                manifest = None
                if not _taken(order.directory):
                    manifest = _placed(order, file, work / str(order.version), progress)
        if manifest is not None:
            return Pulled(directory=order.directory, manifest=manifest, received=file.received)
    # another process was quicker; if what it left is no version, the sentence about that is due
    return pull(order, notify=notify, progress=progress, allow=allow, patience=patience)


def present(order: Order, progress: Progress) -> Manifest | None:
    """The manifest of the version, if it is there and whole.

    Raises:
        CheckpointError: what is there is damaged, or other weights than those that were asked for.
    """
    folder = order.directory
    if not _taken(folder):
        return None
    from model.storage.verify import verify

    other = f"choose another place with --version {order.version + 1} or --name"
    if not (folder / MANIFEST).exists():
        raise CheckpointError(f"{folder} is taken, and holds no checkpoint: move it away, or {other}")
    try:
        manifest = verify(folder, progress=progress)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; move {folder} away and pull again, or {other}") from None
    if manifest.untrained:
        raise CheckpointError(f"{folder} holds untrained weights: move it away, or {other}")
    digest = manifest.training.get("sha256")
    if order.sha256 is not None and digest != order.sha256:
        raise CheckpointError(f"{folder} was made of a file with sha256 {digest}: {other}")
    if order.model is None and not isinstance(order.source, LocalFile):
        source = str(manifest.training.get("source", "elsewhere"))
        if not _same(order.source, source):
            raise CheckpointError(f"{folder} was made of {source}: {other}")
    if isinstance(order.source, LocalFile) and order.sha256 is None:
        from model.storage.files import sha256

        if digest != sha256(order.source.path, progress):
            raise CheckpointError(f"{folder} was made of another file than {order.source}: {other}")
    return manifest


def fetcher_of(
    order: Order, *, notify: Notify, progress: Progress, patience: Patience | None = None
) -> Fetcher:
    """What fetches an order's source."""
    if isinstance(order.source, LocalFile):
        return LocalFetcher(order.source, progress=progress)
    patience = patience or Patience()
    if isinstance(order.source, HubFile):
        from model.fetch.hub import HubFetcher

        return HubFetcher(order.source, notify=notify, progress=progress, patience=patience)
    from model.fetch.web import WebFetcher

    return WebFetcher(order.source, order.sha256, notify=notify, progress=progress, patience=patience)


def _taken(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _same(source: Source, noted: str) -> bool:
    """Whether a manifest's source is this one, whatever commit it was at."""
    if noted == str(source):
        return True
    if not isinstance(source, HubFile) or source.revision != "main":
        return False
    place, _, rest = noted.partition("@")
    return place == f"hf://{source.repository}" and rest.partition("/")[2] == source.path


def _check_announced_digest(order: Order, found: SourceFile) -> None:
    if None not in (order.sha256, found.sha256) and order.sha256 != found.sha256:
        raise FetchError(
            f"{found.where} has the sha256 {found.sha256}, not the {order.sha256} that was asked for; "
            "nothing was fetched"
        )


def _check_digest(order: Order, file: Fetched) -> None:
    if order.sha256 is None or file.sha256 == order.sha256:
        return
    what = f"{order.source} has the sha256 {file.sha256}, not the {order.sha256} that was asked for"
    if isinstance(order.source, LocalFile):
        raise FetchError(f"{what}; it is not taken")
    throw_away(file.path)
    raise FetchError(f"{what}; it was thrown away")


def _check_room(order: Order, found: SourceFile) -> None:
    """Looks before, so that nobody waits an hour to hear it. The version is about as large as the file.

    Raises:
        FetchError: a disk is too full.
    """
    if found.size is None:
        return
    wanted: dict[int, tuple[Path, int]] = {}
    for place, size in ((found.place, found.size - found.here), (order.registry, found.size + ROOM)):
        if place is not None and size > 0:
            folder = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
            device = folder.stat().st_dev
            wanted[device] = folder, wanted.get(device, (folder, 0))[1] + size
    for folder, size in wanted.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            raise FetchError(
                f"{folder} has {size_text(free)} free, and {found.where} needs {size_text(size)} there: "
                "make room, or choose other disks with HF_HOME and --registry"
            )


def _placed(order: Order, file: Fetched, folder: Path, progress: Progress) -> Manifest | None:
    """Imports the file into a hidden folder, and renames that; None if its place was taken meanwhile."""
    from model.released.importing import import_released

    try:
        imported = import_released(
            file.path,
            folder,
            name=order.name,
            version=order.version,
            source=file.source,
            variant=order.variant,
            digest=file.sha256,
            progress=progress,
        )
    except CheckpointError as error:  # the cache's names say nothing to a user
        raise CheckpointError(str(error).replace(str(file.path), str(order.source))) from None
    try:
        os.rename(folder, order.directory)  # takes an empty folder's place, and no other
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return None
        raise
    sync(order.directory.parent)
    return imported.manifest


@contextmanager
def _disk(order: Order) -> Iterator[None]:
    """Puts what disks say into a sentence."""
    try:
        yield
    except OSError as error:
        where = error.filename or "a disk"
        if error.errno in DISK_FULL:
            raise FetchError(
                f"{where}: {error.strerror}: make room, or choose other disks with HF_HOME (for what is "
                "fetched) and --registry, and start again; what was fetched is kept"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise FetchError(
                f"{where} cannot be written ({error.strerror}): choose another folder with --registry, or "
                "with HF_HOME for what is fetched"
            ) from None
        raise


def size_text(size: int) -> str:
    """Bytes for people, in powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
