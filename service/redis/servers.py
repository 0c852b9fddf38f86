"""Connections to Redis as people run it, by redis-py's own clients: a server, a cluster, or with sentinels.

None of them retries: who asks has a time limit, and a breaker that decides when to ask again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from service.setting_values.redis_url import RedisPlace

CONNECT_S = 1.0  # a connection and its first answer
LONGEST_S = 10.0  # no command is ever waited for longer than this
CONNECTIONS = 32  # to a server
PROBE_KEY = b"ebseg:probe"  # never written; asked for as lookups ask
_OF_SENTINELS = "sentinel_"  # begins those options of a URL that are theirs


@dataclass(frozen=True, slots=True)
class RedisServers:
    """A client of redis-py's, and the sentinels that tell it where its server is."""

    client: Redis | RedisCluster
    sentinels: Sequence[Redis] = ()

    @property
    def clustered(self) -> bool:
        """Whether keys lie on several servers."""
        return isinstance(self.client, RedisCluster)

    async def values(self, keys: Sequence[bytes]) -> Any:
        """Answers to MGET: of a cluster to one a slot, sent together."""
        if isinstance(self.client, RedisCluster):
            return await self.client.mget_nonatomic(list(keys))
        return await self.client.execute_command("MGET", *keys)

    async def greet(self, readers: int) -> None:
        """Makes so many connections to each server, whose answers are read."""
        if not isinstance(self.client, RedisCluster):
            await self.values([PROBE_KEY])  # alone, since a server that is away has to be asked once only
            await asyncio.gather(*(self.values([PROBE_KEY]) for _ in range(readers)))
            return
        primaries = RedisCluster.PRIMARIES
        for connections in (1, readers):
            asked = (self.client.execute_command("PING", target_nodes=primaries) for _ in range(connections))
            await asyncio.gather(*asked)

    async def aclose(self) -> None:
        """Closes all connections, those too of a cluster that its client has not come to know yet."""
        if isinstance(self.client, RedisCluster):
            nodes = self.client.nodes_manager
            for node in {*nodes.startup_nodes.values(), *nodes.nodes_cache.values()}:
                await node.disconnect()
        for client in (self.client, *self.sentinels):
            await client.aclose()


def redis_servers(
    place: RedisPlace, *, connect_s: float = CONNECT_S, answer_s: float = LONGEST_S
) -> RedisServers:
    """Clients that retry nothing and say nothing about themselves when they connect; none connects yet.

    Args:
        place: where they are.
        connect_s, answer_s: what a connection, and an answer, may take, seconds.

    Raises:
        ValueError: the URL cannot be used.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "driver_info": None,
        "socket_connect_timeout": connect_s,
        "socket_timeout": answer_s,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": CONNECTIONS,
    }
    try:
        if place.kind == "server":
            return RedisServers(_checked(Redis.from_pool(ConnectionPool.from_url(place.url, **options))))
        given: dict[str, Any] = {**options, **parse_url(place.url), "decode_responses": False}
        given["ssl"] = given.pop("connection_class", None) is SSLConnection
        if place.kind == "sentinel":
            return _behind_sentinels(place, given)
        del given["host"], given["port"]
        nodes = [ClusterNode(name, port) for name, port in place.hosts]
        # a slot without a server is no reason to leave the others alone
        cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **given)
        return RedisServers(cluster)
    except (TypeError, RedisClusterException) as error:
        raise ValueError(f"the Redis URL has an option that does not exist: {error}") from None


def _behind_sentinels(place: RedisPlace, given: dict[str, Any]) -> RedisServers:
    own = ("protocol", "driver_info", "retry", "ssl")
    theirs = {
        name: value for name, value in given.items() if name in own or name.startswith(("socket_", "ssl_"))
    }
    for name in [name for name in given if name.startswith(_OF_SENTINELS)]:
        theirs[name.removeprefix(_OF_SENTINELS)] = given.pop(name)
    del given["host"], given["port"]
    sentinel = Sentinel(place.hosts, sentinel_kwargs=theirs, **given)
    return RedisServers(_checked(sentinel.master_for(place.service)), sentinel.sentinels)


def _checked(client: Redis) -> Redis:
    pool = client.connection_pool
    pool.connection_kwargs["decode_responses"] = False  # values are bytes, whatever the URL says
    make: Callable[[], object] = pool.make_connection
    make()  # knows which options there are
    return client
