"""Hosts and buckets that pictures may be fetched from, as the settings name them."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from model.urls import shown

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_ENTRY = re.compile(
    rf"(?P<wild>\*\.)?(?P<host>{HOST_NAME.pattern}|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
BUCKET_SCHEMES = ("s3", "gs")
_BUCKET = re.compile(rf"(?:{'|'.join(BUCKET_SCHEMES)})://[a-z0-9][a-z0-9._-]{{1,221}}")
WEB_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One host, or all below a name.

    Attributes:
        host: its name, in lower case, or its address as `ipaddress` writes it, without brackets.
        wild: whether it is any name of one or more labels before `host` instead.
        port: that goes with it; None for the scheme's own.
    """

    host: str
    wild: bool
    port: int | None

    @classmethod
    def of(cls, entry: str) -> Self:
        """An entry of a setting.

        Raises:
            ValueError: it is none.
        """
        match = _ENTRY.fullmatch(entry)
        port = None if match is None or match["port"] is None else int(match["port"])
        host = None if match is None else canonical_host(match["host"])
        if match is None or host is None or (port is not None and not 0 < port < 1 << 16):
            raise ValueError(f"{entry!r} is no host; one is HOST, *.HOST or HOST:PORT, in small letters")
        if match["wild"] and ("." not in host or _is_address(host)):
            raise ValueError(f"{entry!r}: *. goes before a name of two labels or more, as in *.example.com")
        return cls(host, match["wild"] is not None, port)

    def fits(self, scheme: str, host: str, port: int) -> bool:
        """Whether it stands for this host, in the form of `canonical_host`."""
        if port != (WEB_PORTS[scheme] if self.port is None else self.port):
            return False
        if self.wild:
            return host.endswith(f".{self.host}") and not _is_address(host)
        return host == self.host


def canonical_host(host: str) -> str | None:
    """A host of a URL in the one form that is compared: a name, or an address as `ipaddress` writes it.

    Returns:
        None for whatever is neither: a name with a dot at its end, or beyond ASCII, and the many other ways
        to write an address, as one number, octal, hexadecimal or short.
    """
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1])) if host.endswith("]") else None
        last = host.rpartition(".")[2]
        if _NUMBER.fullmatch(last):  # what resolvers take for an address
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        return None
    return host if len(host) <= 253 and HOST_NAME.fullmatch(host) else None


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdecimal()


def _entries(value: Any, what: str) -> list[str]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise ValueError(f"must be {what} with commas between")
    return [one.strip() for one in given]


def _hosts(value: Any) -> Any:
    """Hosts as text with commas between, or a list; each is an entry of `HostPattern`."""
    entries = _entries(value, "hosts")
    for entry in entries:
        HostPattern.of(entry)
    return tuple(entries)


def _buckets(value: Any) -> Any:
    """Buckets as text with commas between, or a list."""
    entries = tuple(one.removesuffix("/") for one in _entries(value, "buckets"))
    for entry in entries:
        if not _BUCKET.fullmatch(entry):
            raise ValueError(f"{shown(entry)!r} is no bucket; one is s3://BUCKET or gs://BUCKET")
    return entries


Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)]
Buckets = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_buckets)]
