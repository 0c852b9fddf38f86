"""Word of news in a registry, from process to process by Redis; looking there every so often stays the truth.

Whoever changes what serves, or finds something new, says so; all others look at once. A message that is lost
costs the time to the next look, and a Redis that is away nothing else.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.observability.metrics import Metrics

LOG = logging.getLogger(__name__)
CHANNEL = "ebseg:news"  # a message is a model's name
PING_S = 15.0  # of silence, after which Redis is asked whether it still listens; and that its answer may take
CONNECT_S = 2.0  # that connecting, or sending a word, may take
FIRST_S, LONGEST_S = 1.0, 30.0  # between two attempts to connect


class Announcements:
    """One channel of one Redis. `start` before use and `stop` at the end; Redis need not be there for either.

    Args:
        url: of Redis, as of `RedisStore`.
        metrics: of the service.
        on_news: called with a model's name; with None after a time in which news may have been missed.
    """

    def __init__(self, url: str, metrics: Metrics, on_news: Callable[[str | None], None]):
        self._redis = Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # a connection that comes back by itself would hide what was missed
            socket_connect_timeout=CONNECT_S,
            socket_timeout=2 * PING_S,
        )
        self._redis.connection_pool.connection_kwargs["decode_responses"] = False  # whatever the URL says
        self._metrics = metrics
        self._on_news = on_news
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.announcements_heard.set(0)

    def start(self) -> None:
        """Listens from now on."""
        self._spawn(self._listen())

    async def stop(self) -> None:
        """Ends listening and closes the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    def say(self, model: str) -> None:
        """Tells all others that there is news of a model; does not wait for it."""
        self._spawn(self._send(model))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, model: str) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._redis.publish(CHANNEL, model)
        except Exception as error:
            self._count("lost")
            LOG.warning(
                "news are not announced; others see them at their next look",
                extra={"model": model, "reason": str(error) or type(error).__name__},
            )
        else:
            self._count("sent")

    async def _listen(self) -> None:
        wait, missed = FIRST_S, False
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    async with asyncio.timeout(CONNECT_S):
                        await channel.subscribe(CHANNEL)
                    self._metrics.announcements_heard.set(1)
                    if missed:
                        LOG.info("news of the registry are heard again")
                        self._on_news(None)
                    wait, missed = FIRST_S, False
                    await self._hear(channel)
            except Exception as error:
                self._metrics.announcements_heard.set(0)
                if not missed:
                    LOG.warning(
                        "news of the registry are not heard; the next look finds them",
                        extra={"reason": str(error) or type(error).__name__},
                    )
                missed = True
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_S)

    async def _hear(self, channel: PubSub) -> None:
        """Passes messages on until Redis is away.

        Raises:
            Exception: it is.
        """
        asked = False
        while True:
            message = await channel.get_message(timeout=PING_S)
            if message is None:
                if asked:
                    raise TimeoutError(f"Redis has not answered for {PING_S:g} s")
                await channel.ping()
            elif message["type"] == "message":
                self._count("heard")
                self._on_news(bytes(message["data"]).decode(errors="replace"))
            asked = message is None

    def _count(self, result: str) -> None:
        self._metrics.announcements.labels(result).inc()
