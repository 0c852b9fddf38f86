"""Rounds of a benchmark: what it says of its own length, and what is left of one that is stopped."""

import pytest

from model.bench.engine import WARM_UP_ROUNDS, in_turn


def test_a_benchmark_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work() -> None:
        nonlocal now
        now += 2.0

    monkeypatch.setattr("time.perf_counter", lambda: now)
    steps: list[str] = []
    assert in_turn([work, work], 2, steps.append) == [[2.0, 2.0], [2.0, 2.0]]
    assert steps == [
        "warm-up 1 of 3",
        "warm-up 2 of 3, about 16 s to go",
        "warm-up 3 of 3, about 12 s to go",
        "run 1 of 2, about 8 s to go",
        "run 2 of 2, about 4 s to go",
    ]


@pytest.mark.parametrize("whole", [0, 2])
def test_a_benchmark_that_is_stopped_has_its_whole_rounds(whole: int) -> None:
    calls, steps = 0, list[str]()

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls > WARM_UP_ROUNDS + whole:
            raise KeyboardInterrupt

    if not whole:
        with pytest.raises(KeyboardInterrupt):
            in_turn([lambda: None, work], 5, steps.append)
        return
    first, second = in_turn([lambda: None, work], 5, steps.append)
    assert len(first) == len(second) == whole
    assert steps[-1] == "stopped: the figures are of 2 of 5 runs"
