"""Where versions come from: what the settings ask for, the registry, the folder of fetched ones."""

import fcntl
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from model.errors import CheckpointError, UnfinishedError
from model.storage.files import Progress
from model.storage.manifest import Manifest, check_name
from model.storage.serving_state import SERVING, PolicyKind, ServingFile, ServingState
from model.storage.verify import verify
from model.storage.versions import StoreError, Versions, version_numbers
from model.urls import shown
from service.settings import Settings, SettingsError

_POLICY = re.compile(r"latest|canary:(?P<percent>[0-9]{1,3})|(?P<version>[0-9]{1,9})")
_VERSION_FOLDER = r"(?:[0-9]+|\.[0-9]+\.[0-9a-f]+\.partial)"  # whole, or half fetched: see `renamed_into`


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Which version of a model serves.

    Attributes:
        kind: "latest" follows the newest, "pinned" stays, "canary" tries a new one on a part of the requests.
        version: of "pinned".
        percent: of "canary", 1..100.
        canary: the one that is tried, beside `version`, until somebody decides; None tries each new version,
            and decides by its answers.
    """

    kind: PolicyKind
    version: int | None = None
    percent: int | None = None
    canary: int | None = None

    def __str__(self) -> str:
        return f"canary:{self.percent}" if self.kind == "canary" else self.kind


def chosen_models(text: str) -> dict[str, Policy]:
    """The setting `model`: "a, b@3, c@canary:10, d@latest" -> policies by name, in their order.

    Raises:
        SettingsError: an entry that cannot be used, by its text.
    """
    chosen: dict[str, Policy] = {}
    for entry in (part.strip() for part in text.split(",")):
        name, at, wanted = entry.partition("@")
        try:
            check_name(name, 1)
        except CheckpointError as error:
            raise SettingsError(f"model: {entry!r}: {error}") from None
        match = _POLICY.fullmatch(wanted if at else "latest")
        version, percent = (match["version"], match["percent"]) if match else (None, None)
        if match is None or (version and int(version) < 1) or (percent and not 1 <= int(percent) <= 100):
            raise SettingsError(
                f"model: {entry!r}: after the @ there must be a version from 1 up, latest, or canary:PERCENT "
                "with 1 to 100"
            )
        if name in chosen:
            raise SettingsError(f"model: {entry!r}: {name} is named twice")
        if version:
            chosen[name] = Policy(kind="pinned", version=int(version))
        elif percent:
            chosen[name] = Policy(kind="canary", percent=int(percent))
        else:
            chosen[name] = Policy(kind="latest")
    return chosen


@dataclass(frozen=True, slots=True)
class RegistryVersion:
    """A version in the registry, whole or not.

    Attributes:
        number: of the version.
        fingerprint: changes with any size, time or tag of its files.
        lacks: what of it is not here yet; None if it is whole as far as sizes tell.
    """

    number: int
    fingerprint: str
    lacks: str | None = None


@dataclass(frozen=True, slots=True)
class RegistryLook:
    """A model's place in the registry at one moment.

    Attributes:
        numbers: of versions that have a folder, whole or not, ascending.
        state: what its serving.json asks for; None where there is none.
    """

    numbers: list[int]
    state: ServingState | None


class RegistryModel:
    """One model's place in a registry; everything here may take long, and belongs on the loader's thread.

    Args:
        registry: a folder or a URL.
        name: of the model.
        cache: where versions are fetched to, unless the registry is a local folder, which is used in place.

    Raises:
        SettingsError: a URL that cannot be used.
    """

    def __init__(self, registry: str, name: str, cache: "Cache"):
        try:
            self._versions = Versions(f"{registry.rstrip('/')}/{name}")
        except CheckpointError as error:
            raise SettingsError(f"registry: {error}") from None
        self._serving = ServingFile(self._versions)
        self._stamp: tuple[str, ...] | None = None  # of the serving.json that was read last
        self._state: ServingState | None = None
        self._cache = cache
        self.name = name
        self.local = self._versions.folder is not None

    def __str__(self) -> str:
        return str(self._versions)

    def refuse_missing(self) -> None:
        """Raises SettingsError if the registry would be a local folder, and is none."""
        folder = self._versions.folder
        if folder is not None and not folder.parent.is_dir():
            raise SettingsError(f"registry: {folder.parent} is no folder; make it, or name another one")

    def look(self) -> RegistryLook:
        """Looks at the place: one listing, and serving.json where that has changed.

        Raises:
            ServingStateError: that is damaged.
            StoreError: the store does not answer.
        """
        stamps = self._versions.stamps()
        if stamps.get(SERVING) != self._stamp:
            self._state = self._serving.read() if SERVING in stamps else None
            self._stamp = stamps.get(SERVING)
        return RegistryLook(version_numbers(stamps), self._state)

    def write(self, state: ServingState) -> None:
        """Asks for something else; see `ServingFile.write`."""
        self._serving.write(state)

    def newer(
        self, above: int, refused: Mapping[int, str], numbers: Sequence[int] | None = None
    ) -> list[RegistryVersion]:
        """Versions above a number, descending, down to the first whole one.

        Args:
            above: the number.
            refused: fingerprints of versions that are left out as long as they are the same.
            numbers: as of `look`, if that is just over.

        Raises:
            StoreError: the store does not answer.
        """
        versions: list[RegistryVersion] = []
        for number in reversed(self._versions.candidates() if numbers is None else numbers):
            if number <= above:
                break
            fingerprint = self._versions.fingerprint(number)
            if fingerprint is None or refused.get(number) == fingerprint:
                continue
            versions.append(self._found(number, fingerprint))
            if versions[-1].lacks is None:
                break
        return versions

    def find(self, number: int) -> RegistryVersion | None:
        """A version, if anything of it is there.

        Raises:
            StoreError: the store does not answer.
        """
        fingerprint = self._versions.fingerprint(number)  # first: what changes from here on is seen
        return None if fingerprint is None else self._found(number, fingerprint)

    def _found(self, number: int, fingerprint: str) -> RegistryVersion:
        lacks = None
        try:
            self._versions.check(number)
        except UnfinishedError as error:
            lacks = self.without_place(str(error))
        except StoreError:
            raise
        except CheckpointError:
            pass  # reported when it is fetched
        return RegistryVersion(number, fingerprint, lacks)

    def fetch(self, number: int, progress: Progress) -> tuple[Path, Manifest, bool]:
        """A version's local folder, its manifest, and whether the digests of its files were compared.

        Raises:
            CheckpointError: it is damaged.
            UnfinishedError: its files are not all there, or not whole.
            StoreError: the store does not answer.
            OSError: the disk does not take it.
        """
        manifest = self._versions.check(number)
        if self._versions.folder is not None:
            return self._versions.folder / str(number), manifest, False
        target = self._cache.folder / self.name / str(number)
        if target.exists():
            try:
                if verify(target, progress=progress) == manifest:
                    return target, manifest, True
            except CheckpointError:
                pass  # of an earlier run, and of no use
            shutil.rmtree(target)
        return target, self._versions.fetch(number, target, progress), True

    def without_place(self, text: str) -> str:
        """A message about a version for users of the API, who learn which file, but not in which folder.

        What lies at REGISTRY/NAME/3, or was fetched from there, becomes the name of the file alone.
        """
        places = [str(self._versions), shown(self._versions.root)]
        if self._cache.is_open:
            places.append(str(self._cache.folder / self.name))
        either = "|".join(map(re.escape, places))
        return re.sub(rf"(?:{either})(?:/{_VERSION_FOLDER})?(?:: |/| )", "", text)

    def keep(self, numbers: Collection[int]) -> None:
        """Deletes all fetched versions but these; those in the registry stay as they are."""
        if self.local or not self._cache.is_open:
            return
        kept = {str(number) for number in numbers}
        for path in (self._cache.folder / self.name).glob("*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


class Cache:
    """The folder of fetched versions, of this process alone.

    Args:
        path: kept from run to run; None makes a temporary one.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._folder: Path | None = None
        self._lock: IO[str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    @property
    def folder(self) -> Path:
        """The folder; only while it is open."""
        if self._folder is None:
            raise RuntimeError("the folder of fetched versions is not open")
        return self._folder

    def open(self) -> None:
        """Makes the folder.

        Raises:
            SettingsError: it cannot be made or locked.
        """
        if self._path is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ebseg-versions-"))
            return
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock = (self._path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SettingsError(
                f"cache_dir: {self._path} is in use by another process; give each a folder of its own"
            ) from None
        except OSError as error:
            self.close()
            raise SettingsError(f"cache_dir: {self._path} cannot be used: {error}") from None
        self._folder = self._path

    def close(self) -> None:
        """Removes a temporary folder, and unlocks any other."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        elif self._path is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def sources(settings: Settings) -> tuple[dict[str, tuple[Policy, RegistryModel]], Cache | None]:
    """What the settings ask for: by name the policy and the place, and the cache if any place needs one.

    Raises:
        SettingsError: they cannot be used; no registry gives nothing.
    """
    if settings.registry is None:
        return {}, None
    if settings.model is None:
        raise SettingsError("registry: model has to say what to serve of it: NAME, NAME@3, NAME@canary:10")
    cache = Cache(settings.cache_dir)
    asked = {
        name: (policy, RegistryModel(settings.registry, name, cache))
        for name, policy in chosen_models(settings.model).items()
    }
    for _, source in asked.values():
        source.refuse_missing()
    remote = any(not source.local for _, source in asked.values())
    return asked, cache if remote else None
