"""Who sends the request at hand, by the API key that it shows."""

from contextvars import ContextVar
from dataclasses import dataclass


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
