"""Redis as people run it, with real servers: a cluster of three, and a pair that a sentinel watches."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from service.bench.process import free_port
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.waiting import WAIT, wait_until

SLOTS = 16384
NODES = 3
SERVICE = "mymaster"


@contextlib.contextmanager
def redis_cluster() -> Iterator[list[RedisServer]]:
    """Three nodes without replicas, each with a third of the slots."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(NODES):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            own = ("--cluster-config-file", "nodes.conf", "--cluster-port", str(free_port()))
            nodes.append(stack.enter_context(redis_server(*options, *own)))
        clients = [node.client() for node in nodes]
        for number, client in enumerate(clients):
            first, end = (SLOTS * at // NODES for at in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            bus = clients[0].config_get("cluster-port")["cluster-port"]
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)

        def joined(client: redis.Redis) -> bool:
            found = client.execute_command("CLUSTER", "INFO")
            return b"cluster_state:ok" in found and b"cluster_known_nodes:%d" % NODES in found

        wait_until(lambda: all(map(joined, clients)))
        yield nodes


@contextlib.contextmanager
def redis_pair(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, int]]:
    """A server, its replica, and the port of a sentinel that puts this in the place of the other."""
    with (
        redis_server() as first,
        redis_server("--replicaof", "127.0.0.1", str(first.port)) as second,
        redis_sentinel(folder, first, replicas=1) as port,
    ):
        yield first, second, port


@contextlib.contextmanager
def redis_sentinel(folder: Path, server: RedisServer, *, replicas: int = 0) -> Iterator[int]:
    """The port of a sentinel that watches a server, and so many replicas of it."""
    port = free_port()
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile sentinel.log\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {server.port} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
    )
    process = subprocess.Popen(["redis-server", str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, socket_timeout=WAIT)

    def sees_all() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return len(client.sentinel_slaves(SERVICE)) == replicas
        return False

    try:
        wait_until(sees_all)
        yield port
    finally:
        client.close()
        process.terminate()
        process.wait(WAIT)
