"""Where Redis is: the URL of the setting `redis_url`, in all forms that it has."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

FORMS = (
    "redis_url must begin with redis://, rediss:// (TLS) or unix://, or be redis+cluster://HOST:PORT,HOST:PORT"
    " or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB, with rediss+ in front for TLS"
)
_PORTS = {"cluster": 6379, "sentinel": 26379}
_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>cluster|sentinel)://(?P<user>[^@/?#]*@)?(?P<hosts>[^@/?#]+)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:\[\],]+)(?::(?P<port>[0-9]{1,5}))?")
_ONE = re.compile(r"(redis|rediss|unix)://.")


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where Redis is.

    Attributes:
        kind: one server, a cluster, or servers that sentinels watch.
        url: as redis-py takes it, with user, password, database and options; of one server, or else of the
            first host.
        hosts: nodes of the cluster, or sentinels, with their ports; any that answers will do.
        service: what sentinels call the servers.
    """

    kind: Literal["server", "cluster", "sentinel"]
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""


def redis_place(url: str) -> RedisPlace:
    """What a URL says.

    Raises:
        ValueError: it has none of the forms; says what is wrong, without a part of the URL.
    """
    if _ONE.match(url):
        return RedisPlace("server", url)
    match = _SEVERAL.fullmatch(url)
    if match is None:
        raise ValueError(FORMS)
    cluster = match["kind"] == "cluster"
    hosts = tuple(_host(text, _PORTS[match["kind"]]) for text in match["hosts"].split(","))
    service, _, database = (match["path"] or "").removeprefix("/").partition("/")
    if cluster and (service or database):
        raise ValueError("redis_url: a cluster has no databases; leave out what stands behind its hosts")
    if not (cluster or service):
        raise ValueError("redis_url: say what the sentinels call the servers, as in .../mymaster/0")
    if database and not database.isdecimal():
        raise ValueError("redis_url: behind the sentinels' name stands the number of a database")
    name, port = hosts[0]
    authority = f"{match['user'] or ''}{f'[{name}]' if ':' in name else name}:{port}"
    one = f"{match['scheme']}://{authority}/{database}{match['query'] or ''}"
    return RedisPlace("cluster" if cluster else "sentinel", one, hosts, service)


def nodes(place: RedisPlace) -> list[RedisPlace]:
    """Places of one server each, any of which will do where all tell each other: a cluster's, or itself."""
    if place.kind != "cluster":
        return [place]
    parts = urlsplit(place.url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    hosts = (f"{f'[{name}]' if ':' in name else name}:{port}" for name, port in place.hosts)
    return [RedisPlace("server", parts._replace(netloc=f"{user}{host}").geturl()) for host in hosts]


def _host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or port) > 0xFFFF:
        raise ValueError("redis_url: hosts are HOST or HOST:PORT, with commas between")
    return match["name"].strip("[]"), int(match["port"] or port)
