"""Drawings of the families: rowing boat, steam boat, fir tree, palm tree, round tent, and colours of all kin.

Each function draws in the unit box of its own width, as in `things_outdoor.py`. Kin have the same colours.
"""

from itertools import pairwise

import numpy as np

from training.storybook import things_indoor as indoor
from training.storybook import things_outdoor as outdoor
from training.storybook.sprites import (
    BLUE,
    BROWN,
    CREAM,
    GREEN,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    SKY,
    TEAL,
    WOOD,
    YELLOW,
    Colour,
    Palette,
    Pen,
    Points,
    Thing,
    box,
    disc,
    moved,
    points,
    shade,
    smooth,
)

Generator = np.random.Generator


def _hull(pen: Pen, colour: Colour, top: float) -> None:
    """A planked hull from `top` down to the bottom, as the sailing boat has one, 1.3 wide."""
    rim = smooth(points((0.0, top), (0.65, top + 0.09), (1.3, top - 0.02)), closed=False)
    keel = smooth(
        points((1.3, top - 0.02), (1.1, 0.95), (0.9, 1.0), (0.4, 1.0), (0.18, 0.94), (0.0, top)), False
    )
    body = np.concatenate([rim, keel])
    pen.fill(body, colour, 0)
    with pen.inside(body):
        for plank in range(5):
            pen.stroke(
                moved(rim, 0, 0.03 + 0.09 * plank),
                shade(colour, 0.55 if plank == 0 else -0.45),
                0.05 if plank == 0 else 0.022,
            )


def rowing_boat(pen: Pen, rng: Generator, hull: Colour, oars: Colour, seats: Colour) -> None:
    """A deep hull, three thwarts above its rim, two crossed oars with broad blades."""
    lean = rng.uniform(0.2, 0.32)
    for middle, side in ((0.45, -1), (0.85, 1)):
        tip = (middle + side * lean, 0.06)
        pen.stroke(points((middle - side * lean * 0.8, 0.78), tip), shade(oars, -0.25), 0.055)
        pen.fill(disc(tip[0], tip[1] + 0.08, 0.075, 0.13, corners=20), oars)
    for x in (0.22, 0.57, 0.92):
        pen.fill(box(x, 0.36, x + 0.2, 0.56), seats)
    _hull(pen, hull, 0.48)


def steam_boat(pen: Pen, rng: Generator, hull: Colour, cabin: Colour, funnel: Colour) -> None:
    """A hull, a cabin with round windows, a funnel with a band and smoke."""
    left = rng.uniform(0.52, 0.7)
    for number, (x, y) in enumerate(((0.02, 0.1), (0.14, 0.05), (0.27, 0.08))):
        pen.fill(disc(left + 0.1 + x, y + 0.06, 0.1 - 0.015 * number, corners=20), CREAM, 0.016)
    pen.fill(box(left, 0.16, left + 0.19, 0.5), funnel)
    pen.fill(box(left, 0.22, left + 0.19, 0.3), shade(funnel, 0.6), 0.016)
    pen.fill(box(0.22, 0.4, 1.08, 0.74), cabin)
    for x in (0.34, 0.55, 0.76, 0.97):
        pen.fill(disc(x, 0.53, 0.06, corners=16), SKY)
    _hull(pen, hull, 0.64)


def fir_tree(pen: Pen, rng: Generator, needles: Colour, tips: Colour, bark: Colour) -> None:
    """Four jagged tiers, each with strokes downwards, on a short trunk."""
    pen.fill(box(0.38, 0.8, 0.52, 1.0), bark)
    width = rng.uniform(0.4, 0.45)
    for tier in reversed(range(4)):
        top, bottom, half = 0.18 * tier, 0.36 + 0.185 * tier, width * (0.46 + 0.18 * tier)
        x = np.linspace(-half, half, 11)
        hem = bottom - 0.05 * (np.arange(11) % 2) + 0.03 * (np.abs(x) / half - 0.5)
        shape: Points = np.concatenate([points((0.45, top)), np.stack([0.45 + x[::-1], hem[::-1]], axis=1)])
        pen.fill(shape, shade(needles, 0.1 * (tier % 2)), 0)
        with pen.inside(shape):
            for at in x[::2]:
                start = points((0.45 + 0.35 * at, top + 0.08))
                pen.stroke(np.concatenate([start, points((0.45 + at, bottom))]), shade(needles, -0.42), 0.026)
            for at, down in zip(x[1::2], hem[1::2], strict=True):
                pen.fill(disc(0.45 + 0.85 * at, down - 0.03, 0.022, corners=8), tips, 0)


def palm_tree(pen: Pen, rng: Generator, leaves: Colour, nuts: Colour, bark: Colour) -> None:
    """A bent ringed trunk, seven drooping leaves with ribs, nuts."""
    bend = rng.uniform(-0.12, 0.12)
    y = np.linspace(0.3, 1, 12)
    x = 0.45 + bend * np.sin((y - 0.3) / 0.7 * np.pi)
    half = 0.075 + 0.05 * (y - 0.3)
    trunk = np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]])
    pen.fill(trunk, bark, 0)
    with pen.inside(trunk):
        for middle, down in zip(x, y, strict=True):
            pen.stroke(points((middle - 0.2, down), (middle + 0.2, down + 0.03)), shade(bark, -0.4), 0.022)
    for angle in rng.permutation(np.linspace(-200, 20, 7)) * np.pi / 180:
        along, reach = np.linspace(0, 1, 9), 0.42
        spine = np.stack(
            [
                0.45 + reach * along * np.cos(angle),
                0.3 + reach * along * np.sin(angle) * 0.75 + 0.22 * along**2,
            ],
            1,
        )
        wide = 0.085 * np.sin(np.pi * (0.15 + 0.85 * along)) * (1 + 0.3 * (np.arange(9) % 2))
        leaf = np.concatenate(
            [spine - np.stack([0 * wide, wide], 1), (spine + np.stack([0 * wide, wide], 1))[::-1]]
        )
        pen.fill(leaf, leaves)
        pen.stroke(spine, shade(leaves, -0.42), 0.026)
    for side in (-1, 1):
        pen.fill(disc(0.45 + 0.05 * side, 0.35, 0.05, corners=12), nuts)


def round_tent(pen: Pen, rng: Generator, cloth: Colour, stripes: Colour, inside: Colour) -> None:
    """A round tent: walls of upright stripes, a pointed roof of gores with a scalloped hem, a door."""
    eaves, ridge = rng.uniform(0.42, 0.5), rng.uniform(0.55, 0.65)
    wall = box(0.12, eaves, 1.08, 1.0)
    pen.fill(wall, cloth)
    with pen.inside(wall):
        for x in np.linspace(0.16, 1.04, 7):
            pen.stroke(points((x, 0.3), (x, 1.1)), stripes, 0.06)
    pen.fill(box(0.47, eaves + 0.12, 0.73, 1.1), shade(inside, -0.6))
    hem = np.linspace(0.0, 1.2, 7)
    for number, (left, right) in enumerate(pairwise(hem)):
        edge = disc((left + right) / 2, eaves, (right - left) / 2, 0.09, 180, 0, corners=8)
        pen.fill(np.concatenate([points((ridge, 0.06)), edge]), cloth if number % 2 else stripes)
    pen.stroke(points((ridge, 0.0), (ridge, 0.1)), WOOD, 0.045)


BOATS: tuple[Palette, ...] = (
    (RED, CREAM, BLUE),
    (BLUE, YELLOW, RED),
    (GREEN, PINK, PURPLE),
    (WOOD, ORANGE, CREAM),
    (PURPLE, SKY, YELLOW),
)
TREES: tuple[Palette, ...] = (
    (GREEN, RED, BROWN),
    (ORANGE, YELLOW, BROWN),
    (PINK, CREAM, BROWN),
    (TEAL, YELLOW, WOOD),
    (BLUE, PINK, BROWN),
)
TENTS: tuple[Palette, ...] = (
    (RED, CREAM, BROWN),
    (BLUE, YELLOW, CREAM),
    (GREEN, CREAM, ORANGE),
    (ORANGE, PURPLE, SKY),
    (CREAM, TEAL, RED),
)
FAMILY_DRAWINGS: dict[str, Thing] = {
    "sailing boat": Thing(outdoor.boat, 1.0, BOATS),
    "rowing boat": Thing(rowing_boat, 1.3, BOATS),
    "steam boat": Thing(steam_boat, 1.3, BOATS),
    "apple tree": Thing(indoor.tree, 0.9, TREES),
    "fir tree": Thing(fir_tree, 0.9, TREES),
    "palm tree": Thing(palm_tree, 0.9, TREES),
    "ridge tent": Thing(outdoor.tent, 1.2, TENTS),
    "round tent": Thing(round_tent, 1.2, TENTS),
}
