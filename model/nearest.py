"""What somebody meant who wrote a name that there is not."""

import difflib
from collections.abc import Iterable

LONGEST = 100  # letters that are compared; the names of others may be of any length


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is nearly the given one, upper and lower case alike; None if none is."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given[:LONGEST].casefold(), names, 1)
    return names[near[0]] if near else None


def question(given: str, known: Iterable[str]) -> str:
    """The end of a message that asks for it: "; did you mean base?", or nothing."""
    near = nearest(given, known)
    return "" if near is None else f"; did you mean {near}?"
