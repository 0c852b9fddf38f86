"""The pool of scenes: drawn once, then mapped; drawn again where it was cut off."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from training.storybook.classes import CLASSES, FAMILIES, NEW, TRAINED
from training.storybook.pretrain import pictures as module
from training.storybook.pretrain.pictures import Pool, kind, pool
from training.storybook.scene import SCENES, draw

SEED, COUNT, SIDE = 4, 7, 48


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws in this process, three scenes at a time."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(module, "CHUNK", 3)


def drawn(folder: Path, **changes: Any) -> Pool:
    values: dict[str, Any] = {"seed": SEED, "count": COUNT, "side": SIDE, "shares": (1, 1, 1), "processes": 2}
    return pool(folder, **values | changes)


def same(first: Pool, second: Pool) -> bool:
    return (
        first.pictures.tobytes() == second.pictures.tobytes()
        and first.labels.tobytes() == second.labels.tobytes()
        and first.mentioned.tobytes() == second.mentioned.tobytes()
        and first.captions == second.captions
    )


def test_it_holds_shrunk_scenes_with_what_their_captions_say(tmp_path: Path) -> None:
    found = drawn(tmp_path / "pool")
    assert len(found) == len(found.captions) == COUNT
    assert found.pictures.shape == (COUNT, SIDE, SIDE, 3)
    assert found.labels.shape == (COUNT, SIDE, SIDE)
    assert found.mentioned.shape == (COUNT, len(CLASSES))
    for index in (0, COUNT - 1):
        rng = np.random.default_rng([SEED, index])
        scene = draw(rng, kind(rng, (1, 1, 1)), height=module.SIDE, width=module.SIDE)
        assert (found.pictures[index] == cv2.resize(scene.picture, (SIDE, SIDE))).all()
        assert (found.labels[index] == scene.labels[2::4, 2::4]).mean() > 0.9  # up to rounding at edges
        assert np.flatnonzero(found.mentioned[index]).tolist() == sorted(scene.mentioned)
        assert found.captions[index] == scene.caption


def test_a_second_call_maps_and_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(tmp_path / "pool")
    monkeypatch.delattr(multiprocessing, "get_context")
    second = drawn(tmp_path / "pool")
    assert same(first, second)
    assert isinstance(second.pictures, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.pictures[0] = 0


@pytest.mark.parametrize("changes", [{"book": FAMILIES}, {"seed": SEED + 1}, {"allowed": CLASSES[:9]}])
def test_what_other_arguments_drew_is_drawn_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    drawn(tmp_path / "pool")
    assert same(drawn(tmp_path / "pool", **changes), drawn(tmp_path / "fresh", **changes))
    assert same(drawn(tmp_path / "pool"), drawn(tmp_path / "first"))


def test_an_interrupted_drawing_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(tmp_path / "whole")

    class Killed(ThreadPool):
        def imap(self, func: Any, iterable: Iterable[Any], chunksize: int | None = 1) -> Iterator[Any]:  # type: ignore[override]
            yield next(iter(super().imap(func, iterable)))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=Killed))
        with pytest.raises(KeyboardInterrupt):
            drawn(tmp_path / "pool")
    assert (tmp_path / "pool" / "pictures.npy").exists()
    assert not (tmp_path / "pool" / "captions.txt").exists()
    assert same(drawn(tmp_path / "pool"), whole)


def test_the_seed_decides_and_scenes_do_not_depend_on_the_count(tmp_path: Path) -> None:
    first = drawn(tmp_path / "first")
    fewer = drawn(tmp_path / "fewer", count=2)
    other = drawn(tmp_path / "other", seed=SEED + 1, count=2)
    assert (fewer.pictures == first.pictures[:2]).all()
    assert fewer.captions == first.captions[:2]
    assert other.pictures.tobytes() != fewer.pictures.tobytes()


def test_only_allowed_classes_are_drawn(tmp_path: Path) -> None:
    found = drawn(tmp_path / "pool", allowed=TRAINED)
    new = [CLASSES.index(name) for name in NEW]
    assert not np.isin(found.labels, new).any()
    assert not found.mentioned[:, new].any()


def test_shares_decide_the_kinds() -> None:
    rng = np.random.default_rng(0)
    kinds = Counter(kind(rng, (2, 1, 1)) for _ in range(2000))
    assert kinds["quilt"] / 2000 == pytest.approx(0.25, abs=0.04)
    assert kinds["close_up"] / 2000 == pytest.approx(0.25, abs=0.04)
    assert set(kinds) == {"quilt", "close_up", *SCENES}
    assert {kind(rng, (0, 0, 3)) for _ in range(20)} == {"close_up"}
    assert {kind(rng, (1, 0, 0)) for _ in range(200)} == set(SCENES)
