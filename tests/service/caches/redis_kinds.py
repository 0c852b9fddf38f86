"""Redis as people run it, with real servers: a cluster of three, and a pair that a sentinel watches."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from service.bench.process import free_port
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.certificates import Certificates
from tests.waiting import WAIT, wait_until

SLOTS = 16384
NODES = 3
SERVICE = "mymaster"


def tls_options(tls: Certificates, port: int | None = None) -> tuple[str, ...]:
    """Of a server that takes TLS as well, at a free port if none is given, and from clients of any kind."""
    files = ("--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key))
    own = ("--tls-port", str(port or free_port()), "--tls-auth-clients", "no")
    return (*own, *files, "--tls-ca-cert-file", str(tls.authority))


def tls_port(server: RedisServer) -> int:
    """Where a server takes TLS."""
    return int(str(server.client().config_get("tls-port")["tls-port"]))


@contextlib.contextmanager
def redis_cluster(tls: Certificates | None = None) -> Iterator[list[RedisServer]]:
    """Three nodes without replicas, each with a third of the slots; by TLS they talk with each other, too."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(NODES):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            own = ("--cluster-config-file", "nodes.conf", "--cluster-port", str(free_port()))
            secure = () if tls is None else (*tls_options(tls), "--tls-cluster", "yes")
            nodes.append(stack.enter_context(redis_server(*options, *own, *secure)))
        clients = [node.client() for node in nodes]
        for number, client in enumerate(clients):
            first, end = (SLOTS * at // NODES for at in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            bus = clients[0].config_get("cluster-port")["cluster-port"]
            port = nodes[0].port if tls is None else tls_port(nodes[0])
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)

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
def redis_sentinel(
    folder: Path, server: RedisServer, *, replicas: int = 0, tls: Certificates | None = None
) -> Iterator[int]:
    """The port of a sentinel that watches a server, and so many replicas of it; by TLS if it has that."""
    port = free_port()
    file = folder / "sentinel.conf"
    words = ("--port", str(port)) if tls is None else (*tls_options(tls, port), "--port", "0")
    secure = "\n".join(
        f"{name.removeprefix('--')} {value}" for name, value in zip(words[::2], words[1::2], strict=True)
    )
    watched = server.port if tls is None else tls_port(server)
    password = urlsplit(server.url).password
    secret = f"sentinel auth-pass {SERVICE} {password}\n" if password else ""
    file.write_text(
        f"{secure}\nbind 127.0.0.1\ndir {folder}\nlogfile sentinel.log\n"
        f"{'' if tls is None else 'tls-replication yes'}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {watched} 1\n{secret}"
        f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
    )
    process = subprocess.Popen(["redis-server", str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    given: dict[str, Any] = {} if tls is None else {"ssl": True, "ssl_ca_certs": str(tls.authority)}
    client = redis.Redis(port=port, host="127.0.0.1", socket_timeout=WAIT, **given)

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
