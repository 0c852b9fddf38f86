"""Who sends the request at hand: by the API key that it shows, or else by its address."""

import ipaddress
from contextvars import ContextVar
from dataclasses import dataclass

_ONE_SITE = 64  # bits of an IPv6 address that belong to one site, which has all addresses behind them


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's name and rights; without one, somebody of a service that needs none.

    Attributes:
        name: for metrics and the log; empty where no key is needed.
        owner: whose vocabularies and cached results it finds: the key's given name, else a part of its
            digest, which stays the same whatever other keys there are. Empty where no key is needed.
        everything: an administrator, or no key is needed: others' vocabularies are there for it, too.
    """

    name: str = ""
    owner: str = ""
    everything: bool = True


NO_KEY = Caller()
caller_var: ContextVar[Caller] = ContextVar("caller", default=NO_KEY)
address_var: ContextVar[str | None] = ContextVar("address", default=None)  # that the request came from


def client() -> str:
    """Whose share of what all have the request at hand takes: its key's name, or its address."""
    return caller_var.get().name or site_of(address_var.get())


def site_of(host: str | None) -> str:
    """What is counted as one address: one of IPv4, or all of a site of IPv6."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _ONE_SITE), strict=False))
