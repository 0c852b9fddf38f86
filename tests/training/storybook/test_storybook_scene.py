"""Storybook's scenes: labels, captions and allowed classes agree with what is drawn."""

import re
from collections import Counter

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.errors import DatasetError
from training.storybook.canvas import Canvas
from training.storybook.classes import CLASSES, NEW, STUFF, THINGS, TRAINED
from training.storybook.generate import HELD_OUT, QUILTS, TRAIN, scene_of
from training.storybook.scene import KINDS, MENTIONED, SCENES, Scene, caption, draw, phrase

HEIGHT, WIDTH = 48, 64
ANY_NAME = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(CLASSES, key=len, reverse=True)))


def drawn(kind: str, seed: int, allowed: tuple[str, ...] = CLASSES) -> Scene:
    return draw(np.random.default_rng([9, seed]), kind, height=HEIGHT, width=WIDTH, allowed=allowed)


def shares(scene: Scene) -> NDArray[np.float64]:
    counts = np.bincount(scene.labels.ravel(), minlength=len(CLASSES))
    return np.asarray(counts / scene.labels.size)


def test_there_are_as_many_classes_as_promised() -> None:
    assert len(CLASSES) == len(set(CLASSES)) >= 40
    assert len(STUFF) >= 25
    assert len(TRAINED) >= 30
    assert len(NEW) == len(set(NEW)) >= 10
    assert set(NEW) | set(TRAINED) == set(CLASSES)
    assert not set(NEW) & set(TRAINED)
    assert len(set(NEW) & set(STUFF)) >= 3
    assert len(set(NEW) & set(THINGS)) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_scene_and_another_seed_another(kind: str) -> None:
    first, again, other = drawn(kind, 1), drawn(kind, 1), drawn(kind, 2)
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert (first.mentioned, first.caption) == (again.mentioned, again.caption)
    assert first.picture.tobytes() != other.picture.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (33, 33)])
def test_shapes_types_and_labels(kind: str, height: int, width: int) -> None:
    scene = draw(np.random.default_rng(0), kind, height=height, width=width)
    assert scene.picture.shape == (height, width, 3)
    assert scene.labels.shape == (height, width)
    assert scene.picture.dtype == scene.labels.dtype == np.uint8
    assert scene.labels.max() < len(CLASSES)
    assert scene.picture.std() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_is_labelled_by_what_was_drawn_there_last(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[tuple[str, NDArray[np.bool_]]] = []
    lay = Canvas._lay

    def recorded(
        canvas: Canvas, name: str, rgb: NDArray[np.uint8], x: int, y: int, mask: NDArray[np.uint8]
    ) -> None:
        inside = np.zeros((canvas.height, canvas.width), bool)
        inside[y : y + mask.shape[0], x : x + mask.shape[1]] = mask >= 128
        layers.append((name, inside))
        lay(canvas, name, rgb, x, y, mask)

    monkeypatch.setattr(Canvas, "_lay", recorded)
    for seed in range(8):
        layers.clear()
        scene = drawn(kind, seed)
        wanted = np.full((HEIGHT, WIDTH), -1)
        for name, inside in layers:
            wanted[inside] = CLASSES.index(name)
        assert (scene.labels == wanted).all()


def test_a_canvas_paints_where_it_labels_and_nowhere_else() -> None:
    canvas = Canvas(np.random.default_rng(0), HEIGHT, WIDTH)
    canvas.cover_all("sky")
    before = canvas.picture.copy()
    canvas.cover("brick wall", canvas.polygon((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)))
    inside = canvas.labels == CLASSES.index("brick wall")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    assert inside[(abs(x - 32) < 14) & (abs(y - 24) < 10)].all()
    assert not inside[(abs(x - 32) > 18) | (abs(y - 24) > 14)].any()
    changed = (canvas.picture != before).any(axis=2)
    assert changed[inside].mean() > 0.95
    edge = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not changed[~edge].any()
    assert canvas.shares()[CLASSES.index("sky")] == pytest.approx(0.75, abs=0.05)


def test_a_thing_stands_where_it_is_put_and_may_pass_the_edges() -> None:
    canvas = Canvas(np.random.default_rng(0), HEIGHT, WIDTH)
    canvas.cover_all("sky")
    canvas.put("house", 0.5, 0.75, 0.5)
    rows, columns = np.nonzero(canvas.labels == CLASSES.index("house"))
    assert rows.min() == pytest.approx(12, abs=1)
    assert rows.max() == pytest.approx(35, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(31.5, abs=1.5)
    labels = canvas.labels.copy()
    canvas.put("house", -2.0, 0.5, 0.5)
    canvas.put("house", 0.5, 5.0, 0.5)
    assert (canvas.labels == labels).all()
    canvas.put("boat", 0.0, 1.2, 0.8)
    assert (canvas.labels == CLASSES.index("boat")).any()


def test_training_scenes_hold_no_new_class() -> None:
    new = [CLASSES.index(name) for name in NEW]
    for seed in range(120):
        scene = drawn(list(KINDS)[seed % len(KINDS)], seed, TRAINED)
        assert not np.isin(scene.labels, new).any()
        assert not set(scene.mentioned) & set(new)
        assert not set(NEW) & set(ANY_NAME.findall(scene.caption))


@pytest.mark.parametrize("kind", KINDS)
def test_captions_name_what_covers_enough_and_nothing_else(kind: str) -> None:
    for seed in range(25):
        scene = drawn(kind, seed)
        covered = shares(scene)
        mentioned = ANY_NAME.findall(scene.caption)
        enough = {CLASSES[index] for index in np.flatnonzero(covered >= MENTIONED)}
        assert len(mentioned) == len(set(mentioned))
        assert set(mentioned) == enough == {CLASSES[index] for index in scene.mentioned}
        assert (np.diff(covered[list(scene.mentioned)]) <= 0).all()  # the largest first
        things = [CLASSES[index] for index in scene.mentioned if CLASSES[index] in THINGS]
        assert mentioned[: len(things)] == things


def test_every_class_occurs_often_in_held_out_scenes() -> None:
    mentioned: Counter[str] = Counter()
    for index in range(200):
        rng, kind, allowed = scene_of(0, HELD_OUT, index)
        scene = draw(rng, kind, height=HEIGHT, width=WIDTH, allowed=allowed)
        mentioned.update(CLASSES[index] for index in scene.mentioned)
    assert {name: mentioned[name] for name in CLASSES if mentioned[name] < 5} == {}


def test_a_split_decides_kinds_and_classes() -> None:
    training = [scene_of(3, TRAIN, index) for index in range(600)]
    held_out = [scene_of(3, HELD_OUT, index) for index in range(200)]
    assert {allowed for _, _, allowed in training} == {TRAINED}
    assert {allowed for _, _, allowed in held_out} == {CLASSES}
    assert {kind for _, kind, _ in held_out} == set(SCENES)
    assert np.mean([kind == "quilt" for _, kind, _ in training]) == pytest.approx(QUILTS, abs=0.05)
    states = [str(rng.bit_generator.state) for rng, _, _ in (*training, *held_out)]
    assert len(set(states)) == len(states)


@pytest.mark.parametrize("kind", KINDS)
def test_four_stuffs_are_enough_and_none_is_too_few(kind: str) -> None:
    few = ("grass", "sky", "planks", "net")
    for seed in range(10):
        assert set(np.unique(drawn(kind, seed, few).labels)) <= {CLASSES.index(name) for name in few}
        with pytest.raises(DatasetError, match="at least four classes of stuff"):
            drawn(kind, seed, THINGS)


@pytest.mark.parametrize("kind", ["street", "room", "garden"])
def test_one_stuff_is_too_few_for_two_grounds(kind: str) -> None:
    with pytest.raises(DatasetError, match="at least four classes of stuff"):
        drawn(kind, 0, ("grass",))


def test_phrases_take_an_article_for_things_only() -> None:
    assert [phrase(name) for name in ("umbrella", "house", "grass")] == ["an umbrella", "a house", "grass"]


def test_captions_put_things_first_and_vary() -> None:
    rng = np.random.default_rng(0)
    both = {caption(rng, ["grass", "house", "sky", "umbrella"]) for _ in range(60)}
    assert len(both) > 8
    for line in both:
        assert re.search(r"\ba house and an umbrella (and|with|near|by) grass and sky$", line)
    three = {caption(rng, ["grass", "sky", "net"]) for _ in range(40)}
    assert "grass, sky and net" in three
    assert all(line.endswith("grass, sky and net") for line in three)
    assert {caption(rng, ["kite"]) for _ in range(40)} >= {"a kite", "a picture of a kite"}
