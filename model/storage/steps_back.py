"""Which version served before the one that serves: what `rollback` goes back to.

serving.json keeps the versions that pins and their ends replaced; those that were followed in turn, while
the newest served, are known by their numbers.
"""

from collections.abc import Collection, Iterable, Iterator

from model.storage.serving_state import ServingState

Step = tuple[int, tuple[int, ...]]


def steps_back(
    state: ServingState | None, now: int, numbers: Collection[int], served: Iterable[int] = ()
) -> list[Step]:
    """Versions to go back to, none of them `now`.

    Args:
        state: what is asked for; None for the newest version.
        now: the version that serves.
        numbers: of all versions that are there.
        served: numbers that are known to have been followed, the last one at the end.

    Returns:
        The best one first, each with the versions that served before it.
    """
    before = () if state is None else state.before
    followed = _followed(state, now, numbers)

    def steps() -> Iterator[Step]:
        if followed or not before:
            known = [number for number in served if number < now and (not before or number in followed)]
            for number in (*reversed(known), *reversed(followed)):
                yield number, (*before, *(one for one in followed if one < number))
        for place in reversed(range(len(before))):
            yield before[place], before[:place]
        yield from ((number, ()) for number in sorted(numbers, reverse=True) if number < now)

    found: dict[int, tuple[int, ...]] = {}
    for number, earlier in steps():
        if number != now:
            found.setdefault(number, tuple(one for one in earlier if one not in (now, number)))
    return list(found.items())


def before_pin(
    state: ServingState | None, now: int | None, number: int, numbers: Collection[int]
) -> tuple[int, ...]:
    """The versions that served before a pin.

    Args:
        state: what was asked for until then.
        now: the version that served until then; None for none.
        number: that is pinned.
        numbers: of all versions that are there.
    """
    before = () if state is None else state.before
    if now is None:
        return before
    before = (*before, *_followed(state, now, numbers))
    return before if now == number else (*before, now)


def before_unpin(state: ServingState | None, newest: int | None) -> tuple[int, ...]:
    """The versions that served before the newest is followed again.

    Args:
        state: what was asked for until then.
        newest: the version that serves from then on.
    """
    if state is None or state.version is None:
        return () if state is None else state.before
    return (*state.before, state.version) if newest is None else (*state.before, state.version, newest)


def _followed(state: ServingState | None, now: int, numbers: Collection[int]) -> list[int]:
    """Numbers of the versions that have served, as far as they were good, since the newest is followed."""
    if state is not None and state.version is not None:
        return []
    newest_then = state.before[-1] if state is not None and state.before else 0
    return sorted(number for number in numbers if newest_then < number < now)
