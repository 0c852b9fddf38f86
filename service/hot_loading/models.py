"""The models that are served: one checkpoint that never changes, or several models of a registry.

with models.lease("ebseg-base", None) as lease:  # fixes the version
    engine = lease.engines[device]
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Self

from model.errors import CheckpointError, question
from service.errors import ConflictError, DeadlineExceededError, NotFoundError, NotReadyError
from service.hot_loading.canary import Trial
from service.hot_loading.changes import Changes
from service.hot_loading.follower import Follower
from service.hot_loading.loaded import Lease, LoadedVersion
from service.hot_loading.loader import LoadEngine, LoaderThread, Loading, LoadingDevice, close, in_words
from service.hot_loading.registry import Cache, sources
from service.hot_loading.served import Served
from service.hot_loading.status import ModelStatus
from service.observability.metrics import Metrics
from service.scheduling.engine import Engine, Measurement, ModelInfo
from service.scheduling.torch_engine import device_names, load_engine
from service.settings import Settings

__all__ = ["Lease", "Models"]
ADMIN_SECONDS = 300.0  # that an administrator's request waits; what it began goes on all the same
STOP_SECONDS = 10.0  # that the end waits for a load under way


class Models:
    """All models. But for leases' release, everything is called on the event loop's thread.

    Args:
        settings: checkpoint or registry, model, device, dtype and what goes with them.
        metrics: of the service.
        devices: in the order of the setting `device`; not stopped before `stop` has been called.
        load: makes an engine of a folder on a device; `load_engine` if left out.

    Attributes:
        on_warmed: as of `Loading`.
        on_freed: notified of the digest of weights that nobody uses any more, on any thread.
        announce: tells other processes that there is something new of a model.

    Raises:
        SettingsError: the settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        devices: Sequence[LoadingDevice],
        load: LoadEngine | None = None,
    ):
        asked, cache = sources(settings)
        thread = LoaderThread()
        self._set_up(metrics, thread, cache)
        self._settings: Settings | None = settings
        names = device_names(settings.device)
        load = load or partial(
            load_engine,
            map_weights=settings.map_weights,
            padding=settings.padding,
            early=len(names) == 1,
        )
        self._loading = Loading(thread, devices, names=names, dtype=settings.dtype, load=load)
        self._loading.on_warmed = lambda info, measured: self.on_warmed(info, measured)
        for name, (policy, source) in asked.items():
            metrics.expect_model(name)
            self._served[name] = Served(name, metrics, partial(self._free, name))
            self._followers[name] = Follower(
                self._served[name],
                policy,
                source,
                self._loading,
                metrics=metrics,
                trial=partial(
                    Trial,
                    needed=settings.canary_requests,
                    slowdown=settings.canary_slowdown,
                    seconds=settings.canary_s,
                ),
            )

    @classmethod
    def of(cls, *engines: Engine, metrics: Metrics | None = None) -> Self:
        """One version that is loaded already and never changes; `start` has nothing left to do.

        Args:
            engines: one a device, of one version.
            metrics: of the service.
        """
        models = cls.__new__(cls)
        models._set_up(metrics or Metrics(), LoaderThread(), None)
        models._settings = None
        models._serve_fixed(LoadedVersion(engines))
        return models

    def _set_up(self, metrics: Metrics, thread: LoaderThread, cache: Cache | None) -> None:
        self._metrics = metrics
        self._thread = thread
        self._cache = cache
        self._served: dict[str, Served] = {}
        self._followers: dict[str, Follower] = {}
        self.on_freed: Callable[[str], None] = lambda digest: None
        self.on_warmed: Callable[[ModelInfo, Sequence[Measurement]], None] = lambda info, measured: None
        self.announce: Callable[[str], None] = lambda name: None
        self._stopping = False
        self._watches: list[asyncio.Task[None]] = []
        self._changes: set[asyncio.Task[str]] = set()

    async def start(self) -> None:
        """Loads the first version of each model, and goes on to watch. Call `stop` even if it fails.

        It ends once a model serves and every other one had its chance; a registry that does not answer is
        asked again until it does.

        Raises:
            CheckpointError: no model has a version that can be served, with the reasons.
            SettingsError: the folder for fetched versions cannot be used.
            Exception: the registry lets nobody in, or disk, memory or device failed.
        """
        settings = self._settings
        if settings is None:
            return
        if self._cache is not None:
            await self._thread.run(self._cache.open)
        if not self._followers:
            folder = settings.checkpoint_folder()
            version = await self._loading.bring_up(folder)
            self._metrics.model_loads.labels(version.info.name, "loaded").inc()
            self._metrics.model_load_seconds.observe(version.seconds)
            self._serve_fixed(version)
            return
        followers, looked = list(self._followers.values()), asyncio.Event()
        for follower in followers:
            follower.on_look = looked.set
            follower.announce = partial(self._announced, follower.served.name)
        self._watches = [asyncio.create_task(one.follow(settings.registry_poll_s)) for one in followers]
        # every model has had its chance, and one serves, before requests come
        while not (all(one.looked for one in followers) and any(one.served.current for one in followers)):
            if all(one.hopeless for one in followers):
                raise _failure_of(followers)
            await looked.wait()
            looked.clear()

    async def stop(self) -> None:
        """Ends watching and loading, and frees what is not in use; the rest is freed as leases come back."""
        self._stopping = True
        tasks = [*self._watches, *self._changes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for served in self._served.values():
            served.retire_all()
        threads = [self._thread.stop, *(one.stop for one in self._followers.values())]
        await asyncio.gather(*(stop(STOP_SECONDS) for stop in threads))
        if self._cache is not None:
            self._cache.close()

    def lease(self, model: str | None = None, version: int | None = None, *, stable: bool = False) -> Lease:
        """Takes the version that a request is answered by, for as long as it takes.

        Args:
            model: the first one if left out.
            version: one that is live; left out, the current one, or the canary in its turn.
            stable: never the canary.

        Raises:
            NotReadyError: nothing is loaded yet.
            NotFoundError: model or version is not here.
        """
        if not self._served:
            raise NotReadyError("the model is loading; try again in a moment")
        return self._named(next(iter(self._served)) if model is None else model).lease(version, stable=stable)

    def statuses(self) -> list[ModelStatus]:
        """Models that have a version loaded, the default one first."""
        return [self._status(name) for name, served in self._served.items() if served.current is not None]

    def missing(self) -> dict[str, str]:
        """Models without a version that serves, with the reason that anybody may know."""
        reasons = {name: follower.missing for name, follower in self._followers.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def status(self, name: str) -> ModelStatus:
        """One of `statuses`.

        Raises:
            NotFoundError: it is not here, or not loaded yet.
        """
        if self._named(name).current is None:
            raise _not_serving(name, self.missing().get(name))
        return self._status(name)

    async def pin(self, name: str, number: int, by: str = "") -> str:
        """Serves a version until `unpin`, in every process, and says what was done; see `Changes.pin`."""
        return await self._change(name, lambda follower: Changes(follower).pin(number, by))

    async def unpin(self, name: str, by: str = "") -> str:
        """Follows the registry again, and says what was done; see `Changes.unpin`."""
        return await self._change(name, lambda follower: Changes(follower).unpin(by))

    async def rollback(self, name: str, by: str = "") -> str:
        """Serves the version before until `unpin`, and says what was done; see `Changes.rollback`."""
        return await self._change(name, lambda follower: Changes(follower).rollback(by))

    async def canary(self, name: str, number: int, percent: int, by: str = "") -> str:
        """Tries a version until somebody decides, and says what was done; see `Changes.canary`."""
        return await self._change(name, lambda follower: Changes(follower).canary(number, percent, by))

    def look_soon(self, name: str | None) -> None:
        """Looks at the registry soon, for a model or for all; nothing happens where it is not followed."""
        for follower in (
            self._followers.values() if name is None else filter(None, [self._followers.get(name)])
        ):
            follower.look_soon()

    def _announced(self, name: str) -> None:
        self.announce(name)

    async def reload(self, name: str) -> str:
        """Looks at the registry now, quarantine forgotten, and says what was done; see `Follower.reload`.

        Other processes look as well.
        """
        return await self._change(name, Follower.reload)

    async def _change(self, name: str, change: Callable[[Follower], Awaitable[str]]) -> str:
        """Runs a change that goes on even if whoever wants it does not wait.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: it has no registry.
            DeadlineExceededError: it takes too long to wait for.
        """
        self._named(name)
        follower = self._followers.get(name)
        if follower is None:
            raise ConflictError(
                f"{name} is one checkpoint that never changes; serve from a registry to change versions, "
                "with --registry and --model"
            )

        async def run() -> str:
            return await change(follower)

        task = asyncio.create_task(run())
        self._changes.add(task)
        task.add_done_callback(self._changed)
        done, _ = await asyncio.wait([task], timeout=ADMIN_SECONDS)
        if not done:
            raise DeadlineExceededError(
                f"still at work after {ADMIN_SECONDS:g} s; GET /v1/models/{name} shows how it ends"
            )
        return task.result()

    def _changed(self, task: asyncio.Task[str]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, should nobody wait any more; it is logged where it was raised

    def _serve_fixed(self, version: LoadedVersion) -> None:
        name = version.info.name
        self._metrics.expect_model(name)
        self._served[name] = Served(name, self._metrics, partial(self._free, name))
        self._served[name].serve(version)

    def _free(self, name: str, engines: tuple[Engine, ...]) -> None:
        digest = engines[0].info.digest
        kept = (version for served in self._served.values() for version in (*served.live, *served.draining))
        if all(version.info.digest != digest for version in kept):  # the same may be published twice
            self.on_freed(digest)
        self._thread.post(partial(close, engines))
        if name in self._followers and not self._stopping:
            self._followers[name].tidy_soon()

    def _status(self, name: str) -> ModelStatus:
        default = name == next(iter(self._served))
        if name in self._followers:
            return self._followers[name].status(default=default)
        return ModelStatus(
            name=name,
            default=default,
            policy="fixed",
            pinned=None,
            asked=None,
            versions=self._served[name].versions(),
            quarantined=[],
            unfinished=[],
            last_error=None,
            public_error=None,
            last_checked_at=None,
        )

    def _named(self, name: str) -> Served:
        served = self._served.get(name)
        if served is None:
            raise _unknown(name, self._served)
        return served


def _failure_of(followers: Sequence[Follower]) -> Exception:
    """What keeps all models from serving, as one error."""
    failures = [one.failure for one in followers if one.failure is not None]
    if len(failures) == 1:
        return failures[0]
    return CheckpointError("no model can be served: " + "; ".join(in_words(error) for error in failures))


def _not_serving(name: str, reason: str | None) -> NotFoundError:
    return NotFoundError(f"no version of {name} is loaded: {reason or 'the service ends'}")


def _unknown(name: str, served: Collection[str]) -> NotFoundError:
    there = f"loaded: {', '.join(served)} (see GET /v1/models)"
    return NotFoundError(f"this model is not loaded; {there}{question(name, served)}")
