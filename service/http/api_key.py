"""One API key: its name, its role, and how much it may be used."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Self, get_args

from service.caller import Caller
from service.errors import KeyLimitedError
from service.setting_values.keys import KEY_FORM

KeyRole = Literal["read", "use", "admin"]
_OWNER_DIGITS = 16  # of the digest of a key that has no name


class ApiKey:
    """A key and its use so far. For the event loop's thread.

    Args:
        digest: sha256 of the key.
        name: for metrics and the log.
        role: "read" is for GET only, "use" for all but administration, "admin" for everything.
        rate: requests a second, a second's worth of them at once; None for any number.
        concurrency: requests at a time; None for any number.
        named: whether its name was given: another key of that name is the same owner then.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        digest: bytes,
        *,
        name: str,
        role: KeyRole,
        rate: float | None = None,
        concurrency: int | None = None,
        named: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.digest = digest
        self.name = name
        self.role = role
        owner = name if named else f"sha256:{digest.hex()[:_OWNER_DIGITS]}"
        self.caller = Caller(name, owner, everything=role == "admin")
        self._rate = rate
        self._concurrency = concurrency
        self._clock = clock
        self._running = 0
        self._burst = max(1.0, rate or 1.0)
        self._left, self._counted_at = self._burst, clock()

    @classmethod
    def of(cls, entry: str, name: str, role: KeyRole) -> Self:
        """The key of an entry of the settings.

        Args:
            entry: of `KEY_FORM`, or a digest in hexadecimal.
            name: of the key, see `key_names`.
            role: where the entry has none.
        """
        match = KEY_FORM.fullmatch(entry)
        if match is None:
            return cls(bytes.fromhex(entry), name=name, role=role, named=False)
        words = match["options"].split(":")
        options = dict(word.split("=") for word in words if "=" in word)
        return cls(
            bytes.fromhex(match["digest"]),
            name=name,
            role=next((known for known in get_args(KeyRole) if known in words), role),
            rate=float(options["rate"]) if "rate" in options else None,
            concurrency=int(options["concurrency"]) if "concurrency" in options else None,
            named=match["name"] is not None,
        )

    @property
    def limited(self) -> bool:
        """Whether there is a bound on its use."""
        return self._rate is not None or self._concurrency is not None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Counts one request, from here to the end of its answer.

        Raises:
            KeyLimitedError: there may be no more of them at present.
        """
        if self._concurrency is not None and self._running >= self._concurrency:
            raise KeyLimitedError(f"this key may have {self._concurrency} requests at a time", 1)
        if self._rate is not None:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._counted_at) * self._rate)
            self._counted_at = now
            if self._left < 1:
                wait = math.ceil((1 - self._left) / self._rate)
                raise KeyLimitedError(f"this key may ask {self._rate:g} times a second", max(1, wait))
            self._left -= 1
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
