"""The running service: models, devices, caches, threads, metrics, and what state it is in."""

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, ParamSpec, Protocol, TypeVar

from model.errors import ModelError
from model.urls import without_secrets
from service.caches.prediction_cache import PredictionCache
from service.caches.redis_store import RedisStore
from service.caches.text_cache import TextCache
from service.errors import NotReadyError, ServiceError
from service.hot_loading.announcements import Announcements
from service.hot_loading.loader import LoadEngine, in_words
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.observability.tracing import tracing_of
from service.observability.watch import Watch
from service.remote_pictures.fetcher import PictureFetcher
from service.scheduling.admission import Admission
from service.scheduling.engine import Engine
from service.scheduling.host_memory import Count, HostBytes
from service.scheduling.picture_threads import LANES, PictureThreads
from service.scheduling.price import Prices
from service.scheduling.scheduler import Scheduler
from service.scheduling.torch_engine import device_names
from service.settings import Settings, SettingsError
from service.vocabularies.catalog import Vocabularies

LOG = logging.getLogger(__name__)
State = Literal["loading", "ready", "draining", "failed"]
# what says in words what is wrong, with a model or with the machine
EXPECTED = (ModelError, ServiceError, SettingsError, OSError)
_DEVICES_END_S = 15.0  # that devices have for what they are at when all requests have ended
P = ParamSpec("P")
T = TypeVar("T")

_REASONS: dict[State, str] = {
    "ready": "",
    "loading": "the model is loading; try again in a moment",
    "draining": "the service is shutting down",
    "failed": "the model could not be loaded",
}


class HttpSide(Protocol):
    """What reading requests, decoding and encoding need of the process that they happen in.

    It is `Service` itself, or one of several workers beside it.
    """

    @property
    def settings(self) -> Settings: ...  # noqa: D102

    @property
    def metrics(self) -> Metrics: ...  # noqa: D102

    @property
    def memory(self) -> HostBytes: ...  # noqa: D102

    @property
    def pictures(self) -> PictureThreads: ...  # noqa: D102

    @property
    def remote_pictures(self) -> PictureFetcher: ...  # noqa: D102

    async def in_pool(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on a picture thread. Cancelling this coroutine takes it off the queue."""


class Service:
    """What routes work with.

    Args:
        settings: of the service.
        engines: one loaded version, an engine a device, instead of what the settings name.
        load: makes an engine of a version's folder; `load_engine` if left out.
        count: where the host's memory is counted for several processes; None for this one alone.

    Raises:
        SettingsError: a device that is not here, or models that cannot be read from the settings.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[Engine] = (),
        load: LoadEngine | None = None,
        count: Count | None = None,
    ):
        self.settings = settings
        self.metrics = Metrics()
        names = [engine.info.device for engine in engines] or device_names(settings.device)
        self.prices = Prices()
        self.pictures = PictureThreads(settings.decode_threads)
        self.admission = Admission(
            max_requests=settings.max_pending,
            max_pixels=settings.max_pending_pixels,
            devices=len(names),
            trusted=lambda: self.prices.trusted,
            ahead=self.pictures.ahead,
        )
        self.memory = HostBytes(
            settings.max_host_bytes,
            self.admission.come_back,
            count,
            body_s=settings.body_timeout_s,
            answer_s=settings.answer_timeout_s,
        )
        self.predictions = PredictionCache(settings.prediction_cache_bytes, self.metrics)
        self.scheduler = Scheduler(
            names,
            max_batch_size=settings.max_batch_size,
            max_batch_delay_s=settings.max_batch_delay_ms / 1000,
            ageing_s=settings.ageing_s,
            metrics=self.metrics,
            prices=self.prices,
            kept=self.predictions.peek,
            keep=self.predictions.keep if self.predictions.enabled else None,
        )
        self.devices = self.scheduler.devices
        self.models = (
            Models.of(*engines, metrics=self.metrics)
            if engines
            else Models(settings, self.metrics, self.devices, load)
        )
        self.models.on_freed = self._forget
        self.models.on_warmed = self.prices.warmed
        self.redis = self._redis()
        self._announcements = self._announced()
        self.texts = TextCache(
            max_bytes=settings.text_cache_bytes,
            ttl_s=settings.text_cache_ttl_s,
            metrics=self.metrics,
            store=self.redis,
        )
        self.remote_pictures = PictureFetcher(settings)
        self.vocabularies = Vocabularies(
            self.redis,
            self.metrics,
            max_classes=settings.max_classes,
            max_per_key=settings.max_vocabularies_per_key,
        )
        self.tracing = tracing_of(settings)
        self.state: State = "loading"
        self.started = False  # whether a model was ever loaded
        self.failure: Exception | None = None
        self.hung: list[str] = []  # devices that did not end when all else had
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self._watch = Watch(self)
        self._loading: asyncio.Task[None] | None = None
        self.metrics.host_bytes.labels("reserved").set_function(lambda: self.memory.reserved)
        self.metrics.host_bytes.labels("arriving").set_function(lambda: self.memory.arriving)
        self.metrics.host_bytes.labels("limit").set_function(lambda: self.memory.most)
        self.metrics.watch(
            inflight=lambda: self.admission.pending,
            expected_work=lambda: self.admission.expected_seconds,
            depths={
                "device": lambda: self.scheduler.depth,
                **{lane: partial(self.pictures.depth, lane) for lane in LANES},
            },
            oldest_ages={
                "device": self.scheduler.oldest_age,
                **{lane: partial(self.pictures.oldest_age, lane) for lane in LANES},
            },
        )

    async def start(self) -> None:
        """Begins to load; returns at once."""
        self._watch.start()
        if self.tracing is not None:
            self.tracing.start()
        if self.redis is not None:
            await self.redis.start()
        if self._announcements is not None:
            self._announcements.start()
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Ends loading, lets the devices finish, frees all threads."""
        self.begin_drain()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.texts.stop()
        if self.redis is not None:
            await self.redis.stop()
        if self._announcements is not None:
            await self._announcements.stop()
        await self.models.stop()
        self.hung = await self.scheduler.stop(_DEVICES_END_S)
        await self._watch.stop()
        if self.tracing is not None:
            await self.tracing.stop()
        self.pictures.stop()
        self.remote_pictures.close()

    def begin_drain(self) -> None:
        """From now on the service is not ready; requests under way go on."""
        if self.state != "failed":
            self.state = "draining"

    @property
    def reason(self) -> str:
        """Why the service is not ready; empty if it is."""
        waits = [f"{name}: {reason}" for name, reason in self.models.missing().items()]
        if self.state == "loading" and waits:
            return f"no model is loaded yet; {'; '.join(waits)}"
        return _REASONS[self.state]

    def refuse_unless_ready(self) -> None:
        """Raises NotReadyError with the reason, unless requests can be served."""
        if self.state != "ready":
            raise NotReadyError(self.reason)

    async def in_pool(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on a picture thread. Cancelling this coroutine takes it off the queue."""
        return await self.pictures.run(work, *args, **kwargs)

    def _forget(self, digest: str) -> None:
        """Lets go of what is kept for weights that are freed."""
        self.scheduler.forget(digest)  # first, so that nothing is kept behind the cache's back
        self.predictions.forget(digest)
        self.prices.forget(digest)

    def _announced(self) -> Announcements | None:
        """News of the registry by Redis, if there are both."""
        if self.settings.redis_url is None or self.settings.registry is None:
            return None
        url = self.settings.redis_url.get_secret_value()
        made = Announcements(url, self.metrics, self.models.look_soon)
        self.models.announce = made.say
        return made

    def _redis(self) -> RedisStore | None:
        if self.settings.redis_url is None:
            return None
        try:
            return RedisStore(
                self.settings.redis_url.get_secret_value(),
                timeout_s=self.settings.redis_timeout_ms / 1000,
                metrics=self.metrics,
            )
        except ValueError as error:
            raise SettingsError(f"redis_url: {without_secrets(str(error))}") from None

    async def _load(self) -> None:
        try:
            await self.models.start()
        except Exception as error:
            # a sentence of ours says all that there is to say, a traceback would bury it
            unknown = None if isinstance(error, EXPECTED) else error
            LOG.error("the model could not be loaded", exc_info=unknown, extra={"reason": in_words(error)})
            self.state, self.failure = "failed", error
            self.on_failure()
            return
        # all that is here now stays: collections need not look at it again, and stop no thread for it
        gc.collect()
        gc.freeze()
        self.memory.settle(self.settings.prediction_cache_bytes + self.settings.text_cache_bytes)
        self.started = True
        if self.state == "loading":
            self.state = "ready"
            self.on_ready()
