"""Rollback goes to the version that served before the one that serves, whatever was asked for in between."""

import itertools
import shutil
from pathlib import Path

import pytest

from model.errors import CheckpointError
from model.storage.serving_changes import ServingChanges
from model.storage.serving_state import PolicyKind, ServingState
from model.storage.steps_back import before_pin, before_unpin, steps_back
from model.storage.versions import Versions
from tests.service.hot_loading.model_fakes import publish

ASKED = ("publish", "pin 1", "pin 2", "unpin", "rollback")


class History:
    """What served, one version after the other, as somebody would write it down who watches."""

    def __init__(self) -> None:
        self.newest = 2
        self.pinned: int | None = None
        self.served = [1, 2]

    @property
    def now(self) -> int:
        return self.served[-1]

    def ask(self, what: str) -> None:
        if what == "publish":
            self.newest += 1
        elif what == "unpin":
            self.pinned = None
        elif what.startswith("pin"):
            self.pinned = int(what[-1])
        else:
            earlier = [number for number in self.served if number != self.now]
            if not earlier and self.now == 1:
                raise CheckpointError("there is none")
            self.pinned = earlier[-1] if earlier else self.now - 1
            self.served = earlier or [self.pinned]
        serves = self.newest if self.pinned is None else self.pinned
        if serves != self.now:
            self.served.append(serves)


def state_of(before: tuple[int, ...], version: int | None = None) -> ServingState:
    policy: PolicyKind = "latest" if version is None else "pinned"
    when = "2026-01-01T00:00:00+00:00"
    return ServingState(
        revision=1, policy=policy, version=version, before=before, changed_by="me", changed_at=when
    )


class Asked:
    """The same by what serving.json remembers."""

    def __init__(self) -> None:
        self.numbers = [1, 2]
        self.state: ServingState | None = None

    @property
    def now(self) -> int:
        pinned = None if self.state is None else self.state.version
        return self.numbers[-1] if pinned is None else pinned

    def ask(self, what: str) -> None:
        if what == "publish":
            self.numbers.append(self.numbers[-1] + 1)
        elif what == "unpin":
            self.state = state_of(before_unpin(self.state, self.numbers[-1]))
        elif what.startswith("pin"):
            number = int(what[-1])
            self.state = state_of(before_pin(self.state, self.now, number, self.numbers), number)
        else:
            steps = steps_back(self.state, self.now, self.numbers)
            if not steps:
                raise CheckpointError("there is none")
            number, before = steps[0]
            self.state = state_of(before, number)


def test_every_sequence_of_five() -> None:
    rolled_back = 0
    for sequence in itertools.product(ASKED, repeat=5):
        history, asked = History(), Asked()
        for what in (*sequence, "rollback", "rollback"):
            try:
                history.ask(what)
            except CheckpointError:
                with pytest.raises(CheckpointError):
                    asked.ask(what)
            else:
                asked.ask(what)
                rolled_back += what == "rollback"
            assert asked.now == history.now, (sequence, history.served)
    assert rolled_back > 5000


@pytest.mark.parametrize(
    ("sequence", "served"),
    [
        (("pin 1", "unpin", "rollback"), (1, 3, 1)),  # seen at night: the bad version was pinned
        (("pin 2", "pin 1", "unpin", "rollback", "rollback"), (2, 1, 3, 1, 2)),
        (("rollback", "rollback", "unpin", "rollback"), (2, 1, 3, 1)),
    ],
)
def test_a_registry(tmp_path: Path, sequence: tuple[str, ...], served: tuple[int, ...]) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)
    versions, seen = Versions(tmp_path / "a"), []
    for what in sequence:
        changes = ServingChanges(versions)
        state = changes.pin(int(what[-1])) if what.startswith("pin") else getattr(changes, what)()
        seen.append(3 if state.version is None else state.version)
    assert tuple(seen) == served


def test_a_version_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)
    ServingChanges(Versions(tmp_path / "a")).pin(2)
    ServingChanges(Versions(tmp_path / "a")).unpin()
    shutil.rmtree(tmp_path / "a" / "2")
    assert ServingChanges(Versions(tmp_path / "a")).rollback().version == 1
    shutil.rmtree(tmp_path / "a" / "1")
    ServingChanges(Versions(tmp_path / "a")).unpin()
    with pytest.raises(CheckpointError, match="there is no such version"):
        ServingChanges(Versions(tmp_path / "a")).rollback()


def test_what_a_process_saw_comes_before_what_is_only_there() -> None:
    assert [number for number, _ in steps_back(None, 5, [1, 2, 3, 4, 5], served=[1, 3])] == [3, 1, 4, 2]
    assert [number for number, _ in steps_back(state_of((4, 2)), 5, range(1, 6), served=[3])] == [3, 4, 2, 1]
