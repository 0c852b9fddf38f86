"""Drawings of what grows, lives or stands in a room: tree, mushroom, fish, butterfly, pumpkin, cactus, ...

Each function draws in the unit box of its own width (see `things.py`); texture and shape, not colour, are
what makes the thing. Periods of patterns are 0.06 and more: 4 pixels of a drawing 64 pixels high.
"""

import numpy as np

from training.storybook.sprites import (
    CREAM,
    WOOD,
    Colour,
    Pen,
    arcs,
    box,
    disc,
    lines,
    mirrored,
    moved,
    points,
    shade,
    smooth,
)

Generator = np.random.Generator
SCALLOPS = points((-0.085, 0.02), (0.0, 0.02), (0.085, 0.02), (-0.05, 0.1), (0.035, 0.1))


def tree(pen: Pen, rng: Generator, leaves: Colour, fruit: Colour, bark: Colour) -> None:
    """A crown of blobs, each with scalloped strokes, fruit, and a streaked trunk with roots."""
    trunk = smooth(
        points((0.36, 0.5), (0.35, 0.85), (0.24, 1.0), (0.44, 0.96), (0.64, 1.0), (0.53, 0.85), (0.53, 0.5)),
        steps=5,
    )
    pen.fill(trunk, bark, 0)
    with pen.inside(trunk):
        for x in (0.4, 0.48):
            pen.stroke(points((x - 0.01, 0.6), (x + 0.01, 0.8), (x - 0.02, 1.0)), shade(bark, -0.4), 0.022)
    blobs = np.array(
        [(0.19, 0.5), (0.69, 0.5), (0.2, 0.3), (0.68, 0.29), (0.44, 0.2), (0.44, 0.56), (0.44, 0.38)]
    )
    blobs = blobs + rng.uniform(-0.02, 0.02, blobs.shape)
    for x, y in blobs:
        pen.fill(disc(x, y, rng.uniform(0.18, 0.21), corners=24), leaves)
    for x, y in blobs:
        pen.fill(disc(x, y, 0.175, corners=24), shade(leaves, rng.uniform(-0.12, 0.12)), 0)
        pen.stroke(disc(x - 0.03, y - 0.03, 0.1, None, 170, 290, corners=8), shade(leaves, 0.42), 0.03)
        pen.stroke(arcs(moved(SCALLOPS, x, y), 0.042, 0, 180, corners=6), shade(leaves, -0.42), 0.026)
    for x, y in blobs[rng.permutation(7)[: int(rng.integers(0, 6))]]:
        pen.fill(disc(x, y - 0.05, 0.045, corners=12), fruit, 0.016)


def mushroom(pen: Pen, rng: Generator, cap: Colour, spots: Colour, stem: Colour) -> None:
    """A domed cap with spots of several sizes, gills below its rim, a fat stem with a ring."""
    waist = rng.uniform(0.14, 0.19)
    foot = smooth(
        points(
            (0.5 - waist, 0.5),
            (0.5 - waist, 0.8),
            (0.25, 0.98),
            (0.5, 1.0),
            (0.75, 0.98),
            (0.5 + waist, 0.8),
            (0.5 + waist, 0.5),
        ),
        steps=5,
    )
    pen.fill(foot, stem, 0)
    with pen.inside(foot):
        for x in np.arange(0.27, 0.8, 0.085):
            pen.stroke(points((0.5 + (x - 0.5) * 0.6, 0.8), (x, 1.0)), shade(stem, -0.3), 0.022)
    gills = disc(0.5, 0.53, 0.44, 0.17)
    pen.fill(gills, shade(stem, -0.12), 0)
    with pen.inside(gills):
        x = np.linspace(-0.1, 1.1, 17)
        starts = np.stack([0.35 + 0.3 * x, np.full(17, 0.46)], axis=1)
        pen.stroke(lines(starts, np.stack([x, np.full(17, 0.72)], axis=1)), shade(stem, -0.5), 0.022)
    peak = rng.uniform(0.45, 0.55)
    rim = disc(0.5, 0.52, 0.5, 0.06, 0, 180, corners=16)
    dome = np.concatenate(
        [rim, smooth(points((0.0, 0.52), (0.12, 0.18), (peak, 0.0), (0.88, 0.18), (1.0, 0.52)), closed=False)]
    )
    pen.fill(dome, cap, 0)
    with pen.inside(dome):
        places = np.array(
            [(0.5, 0.2), (0.24, 0.27), (0.76, 0.27), (0.37, 0.37), (0.63, 0.38), (0.12, 0.43), (0.89, 0.43)]
        )
        for x, y in places + rng.uniform(-0.025, 0.025, places.shape):
            wide = rng.uniform(0.055, 0.09)
            pen.fill(disc(x, y, wide, wide * 0.85, corners=16), spots, 0.016)
        for x, y in ((0.36, 0.1), (0.66, 0.1), (0.5, 0.44), (0.24, 0.42), (0.76, 0.46)):
            pen.fill(disc(x, y, 0.032, corners=12), spots, 0.014)


def fish(pen: Pen, rng: Generator, body: Colour, scales: Colour, fins: Colour) -> None:
    """Rows of scales, a round eye, rayed fins and tail."""
    high = rng.uniform(0.16, 0.26)
    tail = smooth(
        points((0.3, 0.5), (0.12, 0.18), (0.0, 0.12), (0.09, 0.5), (0.0, 0.88), (0.12, 0.82)), steps=5
    )
    back = smooth(points((0.5, 0.25), (0.62, 0.0), (0.98, high - 0.14), (1.12, 0.28)), steps=5)
    belly = smooth(points((0.56, 0.75), (0.62, 1.0), (0.84, 0.96), (0.92, 0.75)), steps=5)
    for fin in (tail, back, belly):
        pen.fill(fin, fins)
    with pen.inside(tail, back, belly):
        turned = np.radians(
            np.concatenate([np.arange(48, 132, 12), np.arange(147, 215, 9), np.arange(228, 312, 12)])
        )
        rays = 0.8 * np.stack([np.cos(turned), np.sin(turned)], axis=1)
        pen.stroke(lines(points((0.7, 0.5)), moved(rays, 0.7, 0.5)), shade(fins, -0.45), 0.02)
    trunk = smooth(
        points(
            (0.22, 0.5),
            (0.46, 0.22),
            (0.85, 0.13),
            (1.2, 0.28),
            (1.4, 0.52),
            (1.2, 0.76),
            (0.85, 0.87),
            (0.46, 0.76),
        )
    )
    pen.fill(trunk, body, 0)
    with pen.inside(trunk):
        size = rng.uniform(0.072, 0.085)
        x, y = np.meshgrid(np.arange(0.24, 1.06, size * 1.3), np.arange(0.12, 0.95, 2 * size))
        y[:, 1::2] += size
        pen.stroke(arcs(np.stack([x.ravel(), y.ravel()], axis=1), size, -90, 90, corners=7), scales, 0.026)
        head = smooth(points((1.04, 0.0), (1.1, 0.5), (1.02, 1.0), (1.6, 1.0), (1.6, 0.0)), steps=6)
        pen.fill(head, shade(body, 0.25))
    pen.fill(disc(1.2, 0.42, 0.085), CREAM)
    pen.fill(disc(1.22, 0.43, 0.04), pen.ink, 0)
    pen.stroke(disc(1.33, 0.54, 0.09, 0.1, 60, 170), pen.ink, 0.028)
    side = smooth(points((0.98, 0.52), (0.76, 0.5), (0.68, 0.66), (0.84, 0.68)), steps=5)
    pen.fill(side, fins)


def butterfly(pen: Pen, rng: Generator, wings: Colour, eyes: Colour, border: Colour) -> None:
    """Four wings with veins, eye-spots, a dark border with pale dots; body and feelers."""
    lift = rng.uniform(-0.03, 0.05)
    upper = smooth(
        points(
            (0.6, 0.46),
            (0.72, 0.2),
            (0.96, 0.04 + lift),
            (1.17, 0.08 + lift),
            (1.18, 0.34),
            (1.02, 0.52),
            (0.72, 0.56),
        )
    )
    lower = smooth(
        points((0.6, 0.52), (0.8, 0.52), (1.02, 0.6), (1.06, 0.8), (0.9, 0.98), (0.74, 0.9), (0.64, 0.72))
    )
    eye, tip = points((0.97, 0.28 + lift))[0], points((0.86, 0.75))[0]
    rim = shade(border, -0.45)
    for side in (0, 1):
        for wing, spot, size in ((lower, tip, 0.1), (upper, eye, 0.12)):
            shape = mirrored(wing, 0.6) if side else wing
            centre = mirrored(spot[None], 0.6)[0] if side else spot
            root = points((0.6, 0.5))[0]
            pen.fill(shape, rim)
            inner = (shape - centre) * 0.8 + centre * 0.94 + root * 0.06
            pen.fill(inner, wings, 0.014)
            pen.stroke(lines(root, inner[4::6]), shade(rim, 0.05), 0.02)
            edge = (shape - centre) * 0.9 + centre * 0.97 + root * 0.03
            pen.stroke(lines(edge[9:-9:5], edge[9:-9:5]), CREAM, 0.042)
            for ring, colour in ((1.0, rim), (0.75, eyes), (0.4, CREAM)):
                pen.fill(disc(centre[0], centre[1], size * ring, corners=20), colour, 0)
    for side in (-1, 1):
        feeler = smooth(
            points((0.6, 0.32), (0.6 + side * 0.06, 0.14), (0.6 + side * 0.15, 0.06)), closed=False
        )
        pen.stroke(feeler, pen.ink, 0.026)
        pen.fill(disc(0.6 + side * 0.15, 0.06, 0.026), pen.ink, 0)
    trunk = disc(0.6, 0.56, 0.05, 0.27)
    pen.fill(trunk, shade(border, 0.1), 0)
    with pen.inside(trunk):
        for y in np.arange(0.44, 0.84, 0.07):
            pen.stroke(points((0.5, y), (0.7, y)), pen.ink, 0.024)
    pen.fill(disc(0.6, 0.33, 0.055), shade(border, 0.1))


def pumpkin(pen: Pen, rng: Generator, skin: Colour, ribs: Colour, leaf: Colour) -> None:
    """Ribs that bulge over one another, a crooked stem, a leaf."""
    stem = smooth(
        points((0.54, 0.28), (0.57, 0.1), (0.47, 0.03), (0.56, -0.02), (0.67, 0.06), (0.68, 0.28)), steps=5
    )
    pairs = int(rng.integers(3, 5))
    spread = rng.uniform(0.38, 0.41)
    for part in range(pairs, -1, -1):
        offset = spread * np.sin(np.pi / 2 * part / pairs)
        wide = 0.22 - 0.012 * part
        for side in (-1, 1) if part else (1,):
            x = 0.6 + side * offset
            pen.fill(disc(x, 0.61 + 0.012 * part, wide, 0.39 - 0.022 * part), shade(skin, 0.12 - 0.09 * part))
            pen.stroke(disc(x, 0.61, wide * 0.55, 0.3, 105, 255, corners=14), shade(skin, 0.45), 0.028)
            pen.stroke(disc(x, 0.61, wide * 0.55, 0.33, -80, 80, corners=14), ribs, 0.032)
    pen.fill(stem, shade(leaf, -0.2))
    pen.stroke(points((0.6, 0.07), (0.6, 0.24)), shade(leaf, -0.55), 0.022)
    blade = smooth(
        points((0.66, 0.27), (0.76, 0.14), (0.98, 0.13), (1.06, 0.24), (0.94, 0.34), (0.8, 0.36)), steps=5
    )
    pen.fill(blade, leaf)
    pen.stroke(points((0.7, 0.27), (1.0, 0.23)), shade(leaf, -0.45), 0.02)


def lamp(pen: Pen, rng: Generator, cloth: Colour, trim: Colour, foot: Colour) -> None:
    """A pleated shade with fringes over a banded vase."""
    top, low = rng.uniform(0.17, 0.24), rng.uniform(0.5, 0.55)
    pen.fill(box(0.35, low - 0.05, 0.45, 0.72), WOOD)
    vase = smooth(
        points((0.33, 0.6), (0.17, 0.76), (0.26, 0.93), (0.54, 0.93), (0.63, 0.76), (0.47, 0.6)), steps=6
    )
    pen.fill(vase, foot, 0)
    with pen.inside(vase):
        for y in (0.69, 0.78, 0.87):
            pen.stroke(disc(0.4, y - 0.03, 0.3, 0.05, 0, 180), shade(foot, 0.5), 0.034)
    pen.fill(box(0.18, 0.93, 0.62, 1.0), shade(foot, -0.3))
    shape = points((0.4 - top, 0.02), (0.4 + top, 0.02), (0.8, low), (0.0, low))
    pen.fill(shape, cloth)
    count = int(rng.integers(6, 9)) * 2
    high, deep = np.linspace(0.4 - top, 0.4 + top, count + 1), np.linspace(0, 0.8, count + 1)
    with pen.inside(shape):
        for pleat in range(0, count, 2):
            fold = points((high[pleat], 0), (high[pleat + 1], 0), (deep[pleat + 1], low), (deep[pleat], low))
            pen.fill(fold, shade(cloth, -0.32), 0)
        pen.stroke(points((0, 0.05), (0.8, 0.05)), trim, 0.06)
        pen.stroke(points((0, low - 0.04), (0.8, low - 0.04)), trim, 0.075)
    for x in np.arange(0.03, 0.8, 0.0822):
        pen.fill(disc(x, low + 0.02, 0.03, corners=12), trim, 0.016)


def cactus(pen: Pen, rng: Generator, skin: Colour, flower: Colour, pot: Colour) -> None:
    """A stout column with raised arms, rows of spines downwards, flowers, a pot."""
    reach, raised = rng.uniform(0.36, 0.46), rng.uniform(0.1, 0.22)
    left = smooth(
        points(
            (0.3, 0.62),
            (0.08, 0.62),
            (0.0, 0.5),
            (0.0, reach),
            (0.08, reach - 0.08),
            (0.17, reach),
            (0.18, 0.44),
            (0.3, 0.44),
        ),
        steps=5,
    )
    right = smooth(
        points(
            (0.5, 0.5),
            (0.7, 0.52),
            (0.8, 0.4),
            (0.8, raised + 0.1),
            (0.72, raised),
            (0.63, raised + 0.08),
            (0.62, 0.32),
            (0.5, 0.34),
        ),
        steps=5,
    )
    column = smooth(
        points((0.23, 0.85), (0.21, 0.2), (0.28, 0.05), (0.4, 0.0), (0.52, 0.05), (0.59, 0.2), (0.57, 0.85))
    )
    for arm in (left, right, column):
        pen.fill(arm, skin)
    spine = shade(skin, 0.68)
    with pen.inside(column):
        for row, x in enumerate((0.28, 0.4, 0.52)):
            pen.stroke(points((x + 0.06, 0), (x + 0.06, 0.9)), shade(skin, -0.35), 0.022)
            for y in np.arange(0.1 + 0.04 * (row % 2), 0.8, 0.085):
                pen.stroke(points((x - 0.025, y - 0.02), (x, y + 0.015), (x + 0.025, y - 0.02)), spine, 0.024)
    for x, top, low in ((0.09, reach, 0.56), (0.715, raised + 0.06, 0.46)):
        for y in np.arange(top, low, 0.085):
            pen.stroke(points((x - 0.03, y - 0.02), (x, y + 0.015), (x + 0.03, y - 0.02)), spine, 0.024)
    blooms = ((0.4, 0.02), (0.72, raised + 0.01), (0.09, reach - 0.07))
    for x, y in blooms[: int(rng.integers(1, 4))]:
        for angle in np.arange(5) * 2 * np.pi / 5:
            pen.fill(
                disc(x + 0.05 * np.cos(angle), y + 0.05 * np.sin(angle), 0.04, corners=12), flower, 0.014
            )
        pen.fill(disc(x, y, 0.03, corners=12), CREAM, 0)
    tub = points((0.12, 0.76), (0.68, 0.76), (0.6, 1.0), (0.2, 1.0))
    pen.fill(tub, pot, 0)
    with pen.inside(tub):
        pen.stroke(
            np.stack([np.arange(0.05, 0.8, 0.07), np.tile([0.92, 0.87], 6)[:11]], axis=1),
            shade(pot, 0.5),
            0.028,
        )
    pen.fill(box(0.08, 0.73, 0.72, 0.81), shade(pot, -0.15))


def clock(pen: Pen, rng: Generator, case: Colour, dial: Colour, hands: Colour) -> None:
    """An alarm clock: bells, feet, a notched rim, a dial with minute marks, bars for hours, two hands."""
    x, y = 0.43, 0.57
    for side in (-1, 1):
        pen.stroke(points((x + side * 0.2, 0.8), (x + side * 0.3, 0.97)), shade(case, -0.4), 0.08)
        bell = disc(x + side * 0.23, 0.18, 0.17, 0.14, 160 + side * 25, 380 + side * 25)
        pen.fill(bell, shade(hands, 0.2))
    pen.stroke(points((x, 0.2), (x, 0.06)), shade(case, -0.4), 0.05)
    pen.fill(box(x - 0.08, 0.02, x + 0.08, 0.09), shade(case, -0.2))
    pen.fill(disc(x, y, 0.42), case)
    angles = np.arange(24) * np.pi / 12
    out = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pen.stroke(moved(lines(out * 0.345, out * 0.41), x, y), shade(case, 0.55), 0.03)
    dial = shade(dial, 0.4)  # pale, for the marks to show
    pen.fill(disc(x, y, 0.335), dial)
    faint = shade(dial, -0.28)
    pen.stroke(disc(x, y, 0.2), faint, 0.02, closed=True)
    hours = out[::2]
    along = hours[::3, ::-1] * (-0.028, 0.028)
    bars = moved(lines(hours * 0.235, hours * 0.3), x, y)
    # A single bar an hour, two at the quarters.
    singles = np.delete(bars, slice(None, None, 3), axis=0)
    for some in (singles, bars[::3] + along[:, None], bars[::3] - along[:, None]):
        pen.stroke(some, pen.ink, 0.03)
    turn = rng.uniform(0, 2 * np.pi)
    for length, width, angle in ((0.15, 0.06, turn), (0.24, 0.04, turn * 12)):
        tip = points((x + length * np.cos(angle), y + length * np.sin(angle)))[0]
        back = points((x, y))[0] * 1.25 - tip * 0.25
        pen.stroke(np.stack([back, tip]), shade(hands, -0.3), width)
    pen.fill(disc(x, y, 0.05), hands, 0.016)
