"""Word of news in a registry, from process to process by Redis; looking there every so often stays the truth.

Whoever changes what serves, or finds something new, says so; all others look at once. A message that is lost
costs the time to the next look, and a Redis that is away nothing else.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from service.observability.metrics import Metrics
from service.redis.servers import RedisServers, redis_servers
from service.setting_values.redis_url import nodes, redis_place

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

    Raises:
        ValueError: the URL cannot be used.
    """

    def __init__(self, url: str, metrics: Metrics, on_news: Callable[[str | None], None]):
        self._nodes = _nodes(url)
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
        await _closed(self._nodes)

    def say(self, model: str) -> None:
        """Tells all others that there is news of a model; does not wait for it."""
        self._spawn(self._send(model))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, model: str) -> None:
        try:
            await _published(self._nodes, model)
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
        for node in itertools.cycle(self._nodes):
            try:
                async with _client(node).pubsub() as channel:
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


async def announce(url: str, model: str) -> None:
    """Says once that there is news of a model, for whoever is no service: a publisher, a command.

    Args:
        url: of Redis, as of `RedisStore`.
        model: its name.

    Raises:
        ValueError: the URL cannot be used.
        Exception: Redis is away; nobody has heard, and the next looks find it.
    """
    found = _nodes(url)
    try:
        await _published(found, model)
    finally:
        await _closed(found)


def _nodes(url: str) -> list[RedisServers]:
    """Of a cluster all that the URL names: what one is told, all tell their listeners."""
    return [redis_servers(node, connect_s=CONNECT_S, answer_s=2 * PING_S) for node in nodes(redis_place(url))]


def _client(node: RedisServers) -> Redis:
    assert isinstance(node.client, Redis), "a node is no cluster"
    return node.client


async def _published(found: Sequence[RedisServers], model: str) -> None:
    for node in found:
        try:
            async with asyncio.timeout(CONNECT_S):
                await _client(node).publish(CHANNEL, model)
            return
        except Exception:
            if node is found[-1]:
                raise


async def _closed(found: Sequence[RedisServers]) -> None:
    for node in found:
        await node.aclose()
