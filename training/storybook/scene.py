"""Storybook's scenes: a small grammar of what stands where, and captions that say so."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.errors import DatasetError
from training.storybook.canvas import Canvas
from training.storybook.classes import ALIKE, EVERY_THING, STORYBOOK, Book

MENTIONED = 0.03  # share of the picture from which a caption mentions a class
# What stands where, in every book: a scene picks from those that its own book has.
IN_THE_AIR = ("sun", "balloon", "kite", "butterfly")
TREES_AND_TENTS = (*ALIKE["tree"], *ALIKE["tent"])
ON_LAND = (
    *("house", "tree", "umbrella", "car", "mushroom", "pumpkin", "cactus", "tent", "butterfly"),
    *TREES_AND_TENTS,
)
IN_WATER = ("boat", "fish", *ALIKE["boat"])
INDOORS = ("lamp", "clock", "pumpkin", "umbrella", "mushroom", "cactus", "kite", "boat", "balloon")
OUTSIDE = ("car", "tree", "lamp", "clock", "pumpkin", "umbrella", "cactus", *TREES_AND_TENTS)
SKIES = ("sky", "clouds", "starry sky", "clear sky", "cloudy sky")
LANDS = (
    "grass",
    "sand",
    "snow",
    "gravel",
    "hay",
    "corn field",
    "flower meadow",
    "leaves",
    *ALIKE["field"][1:],
)
ROADS = ("road", "cobblestones", *ALIKE["road"])
STREET_WALLS = ("brick wall", "stone wall", "planks", "block wall", "log wall")
HOUSE_WALLS = ("brick wall", "stone wall", "planks", "marble", "wallpaper", "block wall", "log wall")
PAVEMENTS = ("cobblestones", "road", "gravel", "floor tiles", "star tiles", "chess tiles", *ALIKE["road"])
ROOM_FLOORS = ("carpet", "floor tiles", "planks", "marble", "star tiles", "chess tiles")
HUNG_CLOTHS = (
    *("striped cloth", "checked cloth", "dotted cloth"),
    *("zigzag cloth", "ringed cloth", "diamond cloth"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One picture with its truth.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W], index into the book's classes.
        mentioned: classes that the caption names, by index.
        caption: a line of text.
    """

    picture: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mentioned: tuple[int, ...]
    caption: str


class _Stage(Canvas):
    """A canvas that draws from allowed classes only."""

    def __init__(self, rng: Generator, height: int, width: int, book: Book, allowed: Collection[str]):
        super().__init__(rng, height, width, book)
        self.allowed = allowed

    def pick(self, names: Sequence[str], without: Collection[str] = ()) -> str | None:
        """An allowed one of the names, None if there is none."""
        left = [name for name in names if name in self.allowed and name not in without]
        return left[self.rng.integers(len(left))] if left else None

    def stuff(self, *choices: Sequence[str], without: Collection[str] = ()) -> str:
        """An allowed one of the first choices that has any, in the end of any stuff.

        Raises:
            DatasetError: no stuff is allowed.
        """
        for names in (*choices, self.book.stuff):
            found = self.pick(names, without)
            if found is not None:
                return found
        raise DatasetError("Storybook needs at least four classes of stuff to draw with")

    def things(self, names: Sequence[str], count: int, draw: Callable[[str, float], None]) -> None:
        """Draws up to `count` different things, spread over the width."""
        chosen: list[str] = []
        for _ in range(count):
            found = self.pick(names, chosen)
            if found is not None:
                chosen.append(found)
        slots = (self.rng.permutation(count) + self.rng.uniform(0.25, 0.75, count)) / max(count, 1)
        for name, x in zip(chosen, slots, strict=False):
            draw(name, float(x))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


def landscape(stage: _Stage) -> None:
    """A sky, perhaps a wood far off, one or two grounds, and what lives there."""
    rng = stage.rng
    horizon = rng.uniform(0.3, 0.5)
    stage.cover_all(stage.stuff(SKIES))
    if stage.chance(0.4):
        far = stage.stuff(("forest",), LANDS)
        stage.cover(far, stage.below(horizon - rng.uniform(0.1, 0.2), rng.uniform(0, 0.05)))
    first = stage.stuff((*LANDS, "water", "water"))
    stage.cover(first, stage.below(horizon, rng.uniform(0, 0.03)))
    wet = horizon if first == "water" else None
    second = None
    if stage.chance(0.65):
        second = stage.stuff((*LANDS, *ROADS, "water"), without=(first,))
        level = rng.uniform(0.62, 0.78)
        stage.cover(second, stage.below(level, rng.uniform(0, 0.05), rng.uniform(-0.3, 0.3)))
        wet = wet if wet is not None else (level if second == "water" else None)
    if wet is not None:
        stage.things(
            IN_WATER, int(rng.integers(1, 3)), lambda name, x: _stand(stage, name, x, wet + 0.12, 0.95)
        )
    stage.things(IN_THE_AIR, int(rng.integers(0, 3)), lambda name, x: _hang(stage, name, x, horizon))
    if first != "water" or second is not None:
        lowest = 0.8 if first == "water" else horizon + 0.15
        stage.things(ON_LAND, int(rng.integers(0, 4)), lambda name, x: _stand(stage, name, x, lowest, 0.98))


def street(stage: _Stage) -> None:
    """A wall under a roof, paved ground before it."""
    rng = stage.rng
    stage.cover_all(stage.stuff(SKIES))
    eaves, ground = rng.uniform(0.22, 0.36), rng.uniform(0.62, 0.74)
    left, right = rng.uniform(-0.3, 0.15), rng.uniform(0.7, 1.3)
    wall = stage.stuff(STREET_WALLS)
    stage.cover(wall, stage.polygon((left, eaves), (right, eaves), (right, 1), (left, 1)))
    roof, inset = stage.stuff(("roof tiles",), HOUSE_WALLS, without=(wall,)), rng.uniform(0, 0.15)
    ridge = eaves - rng.uniform(0.18, 0.3)
    stage.cover(
        roof,
        stage.polygon(
            (left + inset, ridge), (right - inset, ridge), (right + 0.06, eaves), (left - 0.06, eaves)
        ),
    )
    if stage.chance(0.4):
        x = rng.uniform(0.2, 0.6)
        mask = stage.polygon((x, eaves + 0.06), (x + 0.3, eaves + 0.06), (x + 0.3, ground), (x, ground))
        stage.cover(stage.stuff(("lattice", "planks", "net"), HUNG_CLOTHS, without=(wall,)), mask)
    stage.cover(stage.stuff(PAVEMENTS, without=(wall,)), stage.below(ground, 0, rng.uniform(-0.06, 0.06)))
    stage.things(
        OUTSIDE, int(rng.integers(1, 4)), lambda name, x: _stand(stage, name, x, ground + 0.04, 0.98)
    )
    if stage.chance(0.3):
        stage.things(IN_THE_AIR, 1, lambda name, x: _hang(stage, name, x, 0.35))


def room(stage: _Stage) -> None:
    """A wall and a floor, with curtains, rugs or a covered table."""
    rng = stage.rng
    wall = stage.stuff(("wallpaper", "wallpaper", *HOUSE_WALLS, "striped cloth"))
    stage.cover_all(wall)
    edge = rng.uniform(0.55, 0.72)
    if stage.chance(0.5):
        x, width, top = rng.uniform(0.05, 0.55), rng.uniform(0.28, 0.4), rng.uniform(0.03, 0.12)
        view = stage.stuff((*SKIES, "forest", "lattice", "net"), without=(wall,))
        bottom = edge - rng.uniform(0.05, 0.12)
        stage.cover(view, stage.polygon((x, top), (x + width, top), (x + width, bottom), (x, bottom)))
    floor = stage.stuff(ROOM_FLOORS, without=(wall,))
    stage.cover(floor, stage.below(edge))
    if stage.chance(0.5):
        side, width = stage.chance(0.5), rng.uniform(0.2, 0.34)
        near, far = (-0.05, width) if side else (1.05, 1 - width)
        cloth = stage.stuff(HUNG_CLOTHS, ("net",), without=(wall,))
        stage.cover(
            cloth, stage.polygon((near, -0.05), (far, -0.05), (far + rng.uniform(-0.1, 0.1), 1), (near, 1))
        )
    if stage.chance(0.5):
        x, width, top = rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.55), rng.uniform(0.58, 0.72)
        cover = stage.stuff((*HUNG_CLOTHS, "planks", "marble", "carpet"), without=(wall, floor))
        points = (x, top), (x + width, top), (x + width + 0.06, 1.05), (x - 0.06, 1.05)
        stage.cover(cover, stage.polygon(*points))
        stage.things(
            INDOORS, 1, lambda name, _: stage.put(name, x + width / 2, top + 0.08, rng.uniform(0.3, 0.45))
        )
    stage.things(INDOORS, int(rng.integers(0, 3)), lambda name, x: _stand(stage, name, x, edge + 0.1, 0.98))
    if stage.chance(0.35) and stage.pick(("clock",)):
        stage.put(
            "clock", rng.uniform(0.2, 0.8), rng.uniform(0.35, 0.45), rng.uniform(0.26, 0.34), shadow=False
        )


def garden(stage: _Stage) -> None:
    """A fence or a hedge, a trunk, a net, and plants."""
    rng = stage.rng
    back = stage.stuff(
        ("lattice", "forest", "leaves", "stone wall", "net", "planks", "clouds", "block wall", "log wall")
    )
    stage.cover_all(back)
    level = rng.uniform(0.45, 0.65)
    ground = stage.stuff((*LANDS, "cobblestones", *ALIKE["road"]), without=(back,))
    stage.cover(ground, stage.below(level, rng.uniform(0, 0.06), rng.uniform(-0.1, 0.1)))
    if stage.chance(0.6):
        x, half = rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.2)
        foot = rng.uniform(0.75, 1.0)
        trunk = stage.stuff(("bark",), ("planks",), without=(back, ground))
        points = (x - half, -0.1), (x + half, -0.1), (x + half * 1.2, foot), (x - half * 1.2, foot)
        stage.cover(trunk, stage.polygon(*points))
    if stage.chance(0.4):
        x, width = rng.uniform(0, 0.5), rng.uniform(0.35, 0.5)
        low, high = rng.uniform(0.7, 0.9), rng.uniform(0.15, 0.35)
        hung = stage.stuff(("net", *HUNG_CLOTHS), without=(back, ground))
        points = (x, high), (x + width, high + rng.uniform(-0.05, 0.05)), (x + width, low), (x, low)
        stage.cover(hung, stage.polygon(*points))
    stage.things(ON_LAND, int(rng.integers(1, 4)), lambda name, x: _stand(stage, name, x, level + 0.12, 0.98))


def quilt(stage: _Stage) -> None:
    """Two to five patches of anything, sewn together along straight lines, with things on them."""
    rng = stage.rng
    stage.cover_all(stage.stuff(stage.book.stuff))
    for _ in range(int(rng.integers(1, 5))):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.3)
        across = np.array([np.cos(turn), np.sin(turn)])
        along = np.array([-across[1], across[0]])
        corners = [0.5 + a * across + b * along for a, b in ((reach, -2), (reach, 2), (2, 2), (2, -2))]
        stage.cover(stage.stuff(stage.book.stuff), stage.polygon(*((float(x), float(y)) for x, y in corners)))
    size = rng.uniform(0.3, 0.6)
    stage.things(
        stage.book.things,
        int(rng.integers(0, 4)),
        lambda name, x: stage.put(name, x, rng.uniform(size, 1.05), size, shadow=False),
    )


def close_up(stage: _Stage) -> None:
    """One thing that nearly fills the picture, or one stuff that does."""
    rng = stage.rng
    stage.cover_all(stage.stuff(stage.book.stuff))
    thing = stage.pick(stage.book.things) if stage.chance(0.55) else None
    if thing is not None:
        size = rng.uniform(0.7, 1.05)
        stage.put(thing, rng.uniform(0.4, 0.6), 0.5 + size / 2 + rng.uniform(-0.06, 0.06), size, shadow=False)


KINDS: dict[str, Callable[[_Stage], None]] = {
    "landscape": landscape,
    "street": street,
    "room": room,
    "garden": garden,
    "quilt": quilt,
    "close_up": close_up,
}
SCENES = ("landscape", "landscape", "street", "room", "garden")  # what a picture book is made of


def draw(
    rng: Generator,
    kind: str,
    *,
    height: int = 192,
    width: int = 256,
    book: Book = STORYBOOK,
    allowed: Collection[str] | None = None,
) -> Scene:
    """Draws one scene.

    Args:
        rng: decides everything; the same state gives the same scene.
        kind: one of `KINDS`.
        height, width: pixels.
        book: whose classes there are.
        allowed: those of them that may occur; None for all.

    Raises:
        DatasetError: there is no such kind, or too few classes of stuff are allowed.
    """
    if kind not in KINDS:
        raise DatasetError(f"there is no kind of scene {kind!r}; known are {', '.join(KINDS)}")
    classes = book.classes
    stage = _Stage(rng, height, width, book, frozenset(classes if allowed is None else allowed))
    KINDS[kind](stage)
    stage.finish()
    shares = stage.shares()
    seen = np.flatnonzero(shares >= MENTIONED)
    order = [int(index) for index in seen[np.argsort(-shares[seen])]]
    return Scene(
        picture=stage.picture,
        labels=stage.labels,
        mentioned=tuple(order),
        caption=caption(rng, [classes[index] for index in order]),
    )


def phrase(name: str) -> str:
    """A class's name as part of a sentence."""
    if name not in EVERY_THING:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption(rng: Generator, names: Sequence[str]) -> str:
    """A sentence that mentions these classes, things first, otherwise in their order."""
    things = [phrase(name) for name in names if name in EVERY_THING]
    stuff = [name for name in names if name not in EVERY_THING]
    opening = ("", "a picture of ", "a page with ", "a scene with ")[rng.integers(4)]
    if things and stuff:
        link = (" and ", " with ", " near ", " by ")[rng.integers(4)]
        return opening + _joined(things) + link + _joined(stuff)
    return opening + _joined(things or stuff)


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _stand(stage: _Stage, name: str, x: float, top: float, bottom: float) -> None:
    """A thing on the ground, larger the nearer it stands."""
    foot = stage.rng.uniform(min(top, bottom - 0.05), bottom)
    low = 0.27 if name in ("mushroom", "pumpkin", "butterfly") else 0.34
    stage.put(name, x, foot, low + 0.28 * stage.rng.uniform(0.3, 1) * foot, shadow=name not in IN_WATER)


def _hang(stage: _Stage, name: str, x: float, lowest: float) -> None:
    """A thing in the air."""
    size = stage.rng.uniform(0.3, 0.46)
    stage.put(name, x, stage.rng.uniform(0.9 * size, max(size, lowest) + 0.05), size, shadow=False)
