"""Which addresses a picture may be fetched from.

There is one reader of URLs here, stricter than any that would dial: what it does not take for certain is
refused, and what dials gets its parts, never the text.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from service.errors import InvalidRequestError, invalid
from service.setting_values.hosts import WEB_PORTS, HostPattern, canonical_host
from service.settings import Settings

LONGEST_URL = 4096  # characters; signed ones have a thousand
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_WEB = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][^\s\\#\x00-\x1f\x7f]*)?(?:#[^\s\\\x00-\x1f\x7f]*)?",
    re.IGNORECASE,
)
_BUCKET_URL = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[a-z0-9][a-z0-9._-]*)/(?P<key>[^\x00-\x1f\x7f]+)")
# beside what `is_global` knows: protocols' own (Oracle's metadata among them), relays to IPv6 of old, and
# Azure's host, public by its number
_INSIDE = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# that hold an IPv4 address, or are no place at all: Teredo and its like, 6to4, documentation
_UNUSABLE = tuple(map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A picture on the web, that may be asked for.

    Attributes:
        scheme: http or https.
        host: as `canonical_host` gives it.
        port: of the server.
        target: path and query, in ASCII.
        private: whether the host may stand at addresses that are not public.
    """

    scheme: str
    host: str
    port: int
    target: str
    private: bool

    @property
    def authority(self) -> str:
        """What the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == WEB_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The same as a text, which redirects are relative to."""
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A picture in a bucket, that may be asked for."""

    scheme: str
    bucket: str
    key: str


class Allowed:
    """What the settings allow.

    Args:
        hosts: entries of `HostPattern`.
        private_hosts: further ones, that may stand at any address.
        buckets: s3://BUCKET or gs://BUCKET.
    """

    def __init__(self, hosts: Sequence[str], private_hosts: Sequence[str], buckets: Sequence[str]):
        self._public = [HostPattern.of(entry) for entry in hosts]
        self._private = [HostPattern.of(entry) for entry in private_hosts]
        self._buckets = frozenset(buckets)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What a service's settings allow."""
        return cls(settings.url_hosts, settings.url_private_hosts, settings.url_buckets)

    def __bool__(self) -> bool:
        return bool(self._public or self._private or self._buckets)

    def address(self, url: str) -> WebAddress | BucketAddress:
        """Where a URL points to, if that is allowed.

        Raises:
            InvalidRequestError: it is not, or cannot be told for certain; nothing was asked then.
        """
        if not self:
            raise invalid(
                "url",
                "this service fetches no images: its settings url_hosts and url_buckets list none; "
                "send the image itself as image",
            )
        if len(url) > LONGEST_URL:
            raise invalid("url", f"has {len(url)} characters; at most {LONGEST_URL} are taken")
        bucket = _BUCKET_URL.fullmatch(url)
        if bucket is not None:
            if f"{bucket['scheme']}://{bucket['bucket']}" not in self._buckets:
                raise invalid("url", "this service fetches nothing from this bucket; see url_buckets")
            return BucketAddress(bucket["scheme"], bucket["bucket"], bucket["key"])
        return self._on_the_web(url)

    def _on_the_web(self, url: str) -> WebAddress:
        match = _WEB.fullmatch(url)
        host = None if match is None else canonical_host(match["host"].lower())
        if match is None or host is None:
            raise _unreadable()
        scheme = match["scheme"].lower()
        port = WEB_PORTS[scheme] if match["port"] is None else int(match["port"])
        private = _among(self._private, scheme, host, port)
        if not private and not _among(self._public, scheme, host, port):
            raise invalid("url", "this service fetches nothing from this host and port; see url_hosts")
        target = quote(match["target"] or "/", safe=_PRINTABLE)
        return WebAddress(scheme, host, port, target if target[0] == "/" else f"/{target}", private)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, whatever form it hides in."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            return ip.scope_id is None and ip in _GLOBAL_UNICAST and not _within(ip, _UNUSABLE)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not _within(ip, _INSIDE)


def _within(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> bool:
    return any(ip in network for network in networks)


def _among(patterns: Sequence[HostPattern], scheme: str, host: str, port: int) -> bool:
    return any(pattern.fits(scheme, host, port) for pattern in patterns)


def _unreadable() -> InvalidRequestError:
    return invalid(
        "url",
        "must be http://HOST/PATH, https://HOST/PATH, s3://BUCKET/KEY or gs://BUCKET/KEY; no user, no dot "
        "after the host, names beyond ASCII as xn--..., addresses in their usual form, spaces as %20",
    )
