"""Where users' class lists are kept: in this process, or in Redis for all processes.

Both hold at most MOST lists of MOST_BYTES together, and of what a list is made of they know its end. A change
names what it takes the place of, so that no list is changed that came in between. One key may have a share of
the places and of the bytes, so that none fills them all.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from service.errors import ConflictError
from service.vocabularies.stored_vocabulary import END_BYTES, Ending

MOST = 1000
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Share:
    """What one key may store.

    Attributes:
        owner: the key, as the end of its lists has it.
        number: lists.
        bytes: of all its lists as they are stored.
    """

    owner: str
    number: int
    bytes: int

    def refuse(self) -> ConflictError:
        """What its owner gets who stores more."""
        return ConflictError(
            f"your key has its share: {self.number} vocabularies or {self.bytes / (1 << 20):.3g} MiB; "
            "DELETE one first"
        )


class Commands(Protocol):
    """What is needed of Redis."""

    async def command(self, *args: Any) -> Any:
        """Runs one command.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """


class ChangedError(Exception):
    """The store does not hold any more what a change was to take the place of."""


class LocalStore:
    """Lists of this process."""

    shared = False

    def __init__(self) -> None:
        self._lists: dict[str, bytes] = {}

    async def read(self, name: str, *, insist: bool = False) -> bytes | None:
        """The list of a name."""
        return self._lists.get(name)

    async def write(self, name: str, raw: bytes, former: bytes | None, share: Share | None = None) -> None:
        """Adds a list, or puts it in the place of a former one.

        Args:
            name: of the list.
            raw: the list as it is stored.
            former: what it takes the place of.
            share: what its owner may store; None where it has no owner.

        Raises:
            ChangedError: something else is there, or nothing.
            ConflictError: there is no room for it, or not for this owner.
        """
        self._refuse_changed(name, former)
        lists = [held for other, held in self._lists.items() if other != name]
        if _is_above(raw, former, lists, MOST, MOST_BYTES):
            raise store_full()
        if share is not None:
            own = [held for held in lists if owner_field(share.owner) in held[-END_BYTES:]]
            if _is_above(raw, former, own, share.number, share.bytes):
                raise share.refuse()
        self._lists[name] = raw

    async def remove(self, name: str, former: bytes) -> None:
        """Removes a list; ChangedError if it is another one, or gone."""
        self._refuse_changed(name, former)
        del self._lists[name]

    async def endings(self) -> dict[str, Ending]:
        """Size and owner of each list."""
        return endings_of([part for name, raw in self._lists.items() for part in (name.encode(), raw)])

    def _refuse_changed(self, name: str, former: bytes | None) -> None:
        if self._lists.get(name) != former:
            raise ChangedError


def _is_above(raw: bytes, former: bytes | None, others: list[bytes], number: int, most_bytes: int) -> bool:
    """Whether a list beside others is one too many, which one that replaces never is, or all are too long."""
    too_many = former is None and len(others) + 1 > number
    return too_many or sum(map(len, others)) + len(raw) > most_bytes


def endings_of(ends: list[bytes]) -> dict[str, Ending]:
    """From names, each followed by the end of its list."""
    found = {}
    for name, end in zip(ends[::2], ends[1::2], strict=True):
        ending = Ending.of(end)
        if ending is not None and name.isascii():
            found[name.decode()] = ending
    return found


def owner_field(owner: str) -> bytes:
    """What the end of a list has where it is this owner's; in a class's name its quotes would be escaped."""
    return f'"owner":"{owner}",'.encode()


def store_full() -> ConflictError:
    """What everybody gets while there is no room at all."""
    return ConflictError(
        f"the store is full: it holds {MOST} vocabularies or {MOST_BYTES >> 20} MiB; DELETE one first"
    )
