"""The things of Storybook by name: who draws each, how wide it is, in which colours."""

import numpy as np

from training.errors import DatasetError
from training.storybook import things_indoor as indoor
from training.storybook import things_outdoor as outdoor
from training.storybook.classes import THINGS
from training.storybook.sprites import (
    BLUE,
    BROWN,
    CREAM,
    GREEN,
    INKS,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    SKY,
    TEAL,
    WOOD,
    YELLOW,
    Pen,
    Sprite,
    Thing,
    apart,
    jitter,
)
from training.storybook.things_families import FAMILY_DRAWINGS

SMALLEST = 8  # pixels; below it nothing of a drawing is left
STRETCH = 0.15  # how far a thing's own width may be off its mean


# Classes share their colours; no hue is one class's own.
DRAWINGS: dict[str, Thing] = {
    "house": Thing(
        outdoor.house,
        1.0,
        (
            (CREAM, RED, BLUE),
            (YELLOW, BLUE, GREEN),
            (PINK, PURPLE, TEAL),
            (SKY, ORANGE, RED),
            (GREEN, BROWN, YELLOW),
        ),
    ),
    "tree": Thing(
        indoor.tree,
        0.9,
        (
            (GREEN, RED, BROWN),
            (ORANGE, YELLOW, BROWN),
            (PINK, CREAM, BROWN),
            (RED, ORANGE, WOOD),
            (TEAL, YELLOW, WOOD),
            (BLUE, PINK, BROWN),
        ),
    ),
    "sun": Thing(
        outdoor.sun,
        1.0,
        (
            (YELLOW, ORANGE, RED),
            (ORANGE, RED, YELLOW),
            (CREAM, PINK, PURPLE),
            (YELLOW, GREEN, TEAL),
            (SKY, BLUE, CREAM),
        ),
    ),
    "boat": Thing(
        outdoor.boat,
        1.0,
        (
            (RED, CREAM, BLUE),
            (BLUE, YELLOW, RED),
            (GREEN, PINK, PURPLE),
            (WOOD, ORANGE, CREAM),
            (PURPLE, SKY, YELLOW),
        ),
    ),
    "balloon": Thing(
        outdoor.balloon,
        0.74,
        (
            (RED, CREAM, BLUE),
            (BLUE, YELLOW, RED),
            (GREEN, SKY, ORANGE),
            (PINK, PURPLE, CREAM),
            (ORANGE, BROWN, TEAL),
        ),
    ),
    "umbrella": Thing(
        outdoor.umbrella,
        1.1,
        (
            (RED, PINK, CREAM),
            (BLUE, SKY, CREAM),
            (YELLOW, ORANGE, BROWN),
            (GREEN, CREAM, RED),
            (PURPLE, TEAL, YELLOW),
        ),
    ),
    "car": Thing(
        outdoor.car,
        1.63,
        (
            (RED, CREAM, YELLOW),
            (BLUE, SKY, CREAM),
            (YELLOW, ORANGE, RED),
            (GREEN, CREAM, PINK),
            (PURPLE, PINK, TEAL),
            (CREAM, RED, BLUE),
        ),
    ),
    "mushroom": Thing(
        indoor.mushroom,
        1.0,
        (
            (RED, CREAM, CREAM),
            (BLUE, CREAM, SKY),
            (ORANGE, YELLOW, CREAM),
            (PURPLE, PINK, CREAM),
            (GREEN, CREAM, YELLOW),
            (BROWN, CREAM, WOOD),
        ),
    ),
    "fish": Thing(
        indoor.fish,
        1.36,
        (
            (ORANGE, CREAM, RED),
            (BLUE, SKY, YELLOW),
            (GREEN, YELLOW, TEAL),
            (PINK, PURPLE, PURPLE),
            (RED, YELLOW, BLUE),
        ),
    ),
    "butterfly": Thing(
        indoor.butterfly,
        1.24,
        (
            (ORANGE, YELLOW, BROWN),
            (BLUE, PINK, BLUE),
            (YELLOW, RED, PURPLE),
            (GREEN, ORANGE, TEAL),
            (PINK, SKY, RED),
        ),
    ),
    "pumpkin": Thing(
        indoor.pumpkin,
        1.12,
        (
            (ORANGE, RED, GREEN),
            (GREEN, YELLOW, TEAL),
            (CREAM, ORANGE, GREEN),
            (BLUE, PURPLE, GREEN),
            (RED, BROWN, TEAL),
            (YELLOW, BROWN, GREEN),
        ),
    ),
    "lamp": Thing(
        indoor.lamp,
        0.8,
        (
            (CREAM, RED, BLUE),
            (YELLOW, ORANGE, TEAL),
            (PINK, PURPLE, CREAM),
            (GREEN, YELLOW, WOOD),
            (BLUE, CREAM, RED),
            (RED, YELLOW, GREEN),
        ),
    ),
    "cactus": Thing(
        indoor.cactus,
        0.78,
        (
            (GREEN, PINK, RED),
            (TEAL, YELLOW, ORANGE),
            (BLUE, ORANGE, CREAM),
            (PURPLE, PINK, TEAL),
            (ORANGE, RED, BLUE),
        ),
    ),
    "clock": Thing(
        indoor.clock,
        0.86,
        (
            (RED, CREAM, BLUE),
            (BLUE, SKY, ORANGE),
            (YELLOW, CREAM, RED),
            (GREEN, YELLOW, BROWN),
            (PURPLE, PINK, TEAL),
        ),
    ),
    "tent": Thing(
        outdoor.tent,
        1.2,
        (
            (RED, CREAM, BROWN),
            (BLUE, YELLOW, CREAM),
            (GREEN, CREAM, ORANGE),
            (ORANGE, PURPLE, SKY),
            (CREAM, TEAL, RED),
        ),
    ),
    "kite": Thing(
        outdoor.kite,
        0.6,
        (
            (RED, YELLOW, BLUE),
            (BLUE, CREAM, RED),
            (GREEN, PINK, PURPLE),
            (ORANGE, TEAL, CREAM),
            (SKY, PURPLE, YELLOW),
        ),
    ),
}

_EVERY = DRAWINGS | FAMILY_DRAWINGS


def sprite(name: str, rng: np.random.Generator, height: int) -> Sprite:
    """Draws a thing `height` pixels high, cut to its own box, mask >= 128 being the thing.

    Palette, proportions, details and which way it faces come from `rng`. An unknown name or a height below
    8 pixels raises DatasetError.
    """
    thing = _thing(name)
    if height < SMALLEST:
        raise DatasetError(
            f"a {name} {height} pixels high cannot be drawn; ask for {SMALLEST} pixels or more"
        )
    # Exact palettes would give the class away to whoever learns them by heart: half of them are borrowed.
    lender = thing if rng.random() < 0.5 else DRAWINGS[THINGS[int(rng.integers(len(THINGS)))]]
    palette = lender.palettes[int(rng.integers(len(lender.palettes)))]
    ink = INKS[int(rng.integers(len(INKS)))]
    pen = Pen(height, thing.width, rng.uniform(1 - STRETCH, 1 + STRETCH), jitter(ink, rng))
    mirror = bool(rng.random() < 0.5)
    first, second, third = (jitter(colour, rng) for colour in palette)
    thing.draw(pen, rng, first, apart(second, first), third)
    return pen.sprite(mirror)


def _thing(name: str) -> Thing:
    if name not in _EVERY:
        raise DatasetError(f"there is no drawing of {name!r}; the things are {', '.join(_EVERY)}")
    return _EVERY[name]
