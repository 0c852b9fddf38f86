"""Drawings of what is built or made to go out with: house, boat, balloon, umbrella, car, tent, kite, sun.

Each function draws in the unit box of its own width (see `things.py`); texture and shape, not colour, are
what makes the thing. Periods of patterns are 0.06 and more: 4 pixels of a drawing 64 pixels high.
"""

from itertools import pairwise

import numpy as np

from training.storybook.sprites import (
    BROWN,
    OUTLINE,
    SKY,
    WOOD,
    YELLOW,
    Colour,
    Pen,
    Points,
    box,
    disc,
    lines,
    moved,
    points,
    shade,
    smooth,
    star,
)

Generator = np.random.Generator


def house(pen: Pen, rng: Generator, plaster: Colour, roof: Colour, door: Colour) -> None:
    """Half-timbered: plaster between beams, windows, a boarded roof, a chimney."""
    beam = shade(BROWN, -0.35)
    pen.fill(box(0.7, 0.02, 0.82, 0.3), shade(roof, -0.25))
    wall = box(0.07, 0.4, 0.93, 1)
    pen.fill(wall, plaster)
    storeys = (0.42, 0.68, 0.99)
    columns = int(rng.integers(3, 5))
    edges = np.linspace(0.07, 0.93, columns + 1)
    entrance = int(rng.integers(columns))
    with pen.inside(wall):
        for storey, (top, bottom) in enumerate(pairwise(storeys)):
            for column, (left, right) in enumerate(pairwise(edges)):
                middle, wide = (left + right) / 2, (right - left) / 2
                if storey == 1 and column == entrance:
                    pen.fill(box(middle - wide * 0.62, top + 0.07, middle + wide * 0.62, 1.1), door)
                elif (storey + column) % 2 == 0:
                    pane = box(middle - wide * 0.55, top + 0.06, middle + wide * 0.55, bottom - 0.06)
                    pen.fill(pane, SKY if rng.random() < 0.5 else YELLOW)
                    pen.stroke(points((middle, top + 0.06), (middle, bottom - 0.06)), pen.ink, 0.02)
                else:
                    pen.stroke(points((left, top), (right, bottom)), beam, 0.032)
                    pen.stroke(points((right, top), (left, bottom)), beam, 0.032)
        for x in edges:
            pen.stroke(points((x, 0.3), (x, 1.1)), beam, 0.036)
        for y in storeys:
            pen.stroke(points((0, y), (1, y)), beam, 0.036)
    slope = rng.uniform(0.12, 0.3)
    gable = points((0.0, 0.44), (slope, 0.08), (1 - slope, 0.08), (1.0, 0.44))
    pen.fill(gable, roof, 0)
    with pen.inside(gable):
        x = np.linspace(-0.1, 1.1, 13)
        boards = lines(
            np.stack([0.2 + 0.6 * x, np.full(13, 0.08)], axis=1), np.stack([x, np.full(13, 0.44)], axis=1)
        )
        pen.stroke(boards, shade(roof, -0.35), 0.024)
        pen.stroke(points((0, 0.41), (1, 0.41)), shade(roof, 0.35), 0.04)


def sun(pen: Pen, rng: Generator, inner: Colour, outer: Colour, rays: Colour) -> None:
    """Two rows of pointed rays, rings, and a sleepy or a merry face."""
    count = int(rng.integers(9, 14))
    pen.fill(star(0.5, 0.5, 0.5, count, 0.68) if rng.random() < 0.5 else _wavy(count), rays)
    turn = np.pi / count
    back = star(0, 0, 0.43, count, 0.72) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    pen.fill(back + 0.5, outer)
    for ring, radius in enumerate((0.34, 0.28, 0.22)):
        pen.fill(disc(0.5, 0.5, radius), shade(outer, 0.12) if ring == 1 else inner)
    awake = rng.random() < 0.5
    for x in (0.42, 0.58):
        if awake:
            pen.fill(disc(x, 0.45, 0.03, 0.042, corners=16), pen.ink, 0)
        else:
            pen.stroke(disc(x, 0.44, 0.045, 0.04, 10, 170, corners=8), pen.ink, 0.026)
    pen.stroke(disc(0.5, 0.53, 0.1, 0.08, 15, 165, corners=12), pen.ink, 0.03)


def _wavy(count: int) -> Points:
    """Rays of the sun that bend to one side."""
    angles = np.linspace(0, 2 * np.pi, 3 * count, endpoint=False)
    radii = np.tile([0.35, 0.44, 0.52], count)
    return np.stack([0.5 + radii * np.cos(angles), 0.5 + radii * np.sin(angles)], axis=1)


def boat(pen: Pen, rng: Generator, hull: Colour, sail: Colour, emblem: Colour) -> None:
    """A planked hull, a mast with a pennant, two sails with seams and an emblem."""
    mast = rng.uniform(0.38, 0.46)
    pen.stroke(points((mast, 0.02), (mast, 0.75)), shade(WOOD, -0.3), 0.045)
    pen.fill(points((mast, 0), (mast - 0.16, 0.045), (mast, 0.09)), emblem)
    belly = rng.uniform(0.04, 0.1)
    foot = rng.uniform(0.62, 0.66)
    main = np.concatenate(
        [
            smooth(points((mast + 0.03, 0.05), (0.72 + belly, 0.26), (0.97, foot)), closed=False),
            points((mast + 0.03, foot)),
        ]
    )
    jib = np.concatenate(
        [
            smooth(points((mast - 0.03, 0.13), (0.2, 0.36), (0.02, foot)), closed=False),
            points((mast - 0.03, foot)),
        ]
    )
    pen.fill(main, sail)
    pen.fill(jib, emblem if rng.random() < 0.5 else sail)
    with pen.inside(main, jib):
        for y in (0.2, 0.33, 0.46, 0.59):
            pen.stroke(disc(0.5, y - 0.1, 0.7, 0.1, 0, 180), shade(sail, -0.28), 0.02)
    if rng.random() < 0.5:
        pen.fill(star(mast + 0.19, 0.44, 0.13), emblem)
    else:
        pen.fill(disc(mast + 0.19, 0.44, 0.1), emblem)
        pen.fill(disc(mast + 0.19, 0.44, 0.045), sail)
    rim = smooth(points((0.0, 0.68), (0.5, 0.75), (1.0, 0.66)), closed=False)
    keel = smooth(
        points((1.0, 0.66), (0.86, 0.95), (0.7, 1.0), (0.3, 1.0), (0.14, 0.94), (0.0, 0.68)), closed=False
    )
    body = np.concatenate([rim, keel])
    pen.fill(body, hull, 0)
    with pen.inside(body):
        for plank, drop in enumerate((0.02, 0.1, 0.18, 0.26)):
            pen.stroke(
                moved(rim, 0, drop), shade(hull, 0.55 if plank == 0 else -0.45), 0.05 if plank == 0 else 0.022
            )
        for x in np.arange(0.12, 1, 0.2) + rng.uniform(-0.04, 0.04):
            pen.stroke(points((x, 0.81), (x, 0.885)), shade(hull, -0.45), 0.018)
            pen.stroke(points((x + 0.1, 0.885), (x + 0.1, 0.96)), shade(hull, -0.45), 0.018)


def balloon(pen: Pen, rng: Generator, first: Colour, second: Colour, band: Colour) -> None:
    """A hot-air balloon: gores from crown to mouth, a scalloped band, ropes and a woven basket."""
    middle, radius = 0.37, 0.37
    down = np.linspace(0, 1, 30)
    # A round crown that tapers to a mouth a quarter as wide.
    wide = radius * np.where(down < 0.46, np.sqrt(np.clip(1 - (1 - down / 0.46) ** 2, 0, 1)), 0)
    fall = np.clip((down - 0.46) / 0.54, 0, 1)
    wide = np.where(down < 0.46, wide, radius * (0.27 + 0.73 * (np.cos(np.pi * fall) + 1) / 2))
    heights = 0.78 * down
    for rope in (middle - 0.09, middle + 0.09):
        pen.stroke(points((rope, 0.76), (rope, 0.9)), shade(WOOD, -0.4), 0.035)
    basket = points((0.23, 0.85), (0.51, 0.85), (0.48, 1.0), (0.26, 1.0))
    pen.fill(basket, WOOD, 0)
    with pen.inside(basket):
        for x in np.arange(0.2, 0.56, 0.07):
            pen.stroke(points((x, 0.84), (x, 1.0)), shade(WOOD, -0.4), 0.02)
        pen.stroke(points((0.2, 0.92), (0.54, 0.92)), shade(WOOD, 0.4), 0.022)

    def seam(at: float) -> Points:
        return np.stack([middle + wide * at, heights], axis=1)

    skin = np.concatenate([seam(-1), seam(1)[::-1]])
    pen.fill(skin, first)
    seams = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 2 * int(rng.integers(4, 7))))
    for gore, (left, right) in enumerate(pairwise(seams)):
        pen.fill(np.concatenate([seam(left), seam(right)[::-1]]), second if gore % 2 else first, 0.014)
    if rng.random() < 0.6:
        level = rng.uniform(0.3, 0.42)
        with pen.inside(skin):
            for x in np.linspace(-0.02, 0.76, 8):
                pen.fill(disc(x, level, 0.058, 0.09, 0, 180), band, 0.014)
            pen.stroke(points((-0.1, level), (0.9, level)), shade(band, 0.35), 0.04)
    pen.stroke(skin, pen.ink, OUTLINE, closed=True)


def umbrella(pen: Pen, rng: Generator, first: Colour, second: Colour, trim: Colour) -> None:
    """Open, seen from the side: segments that meet at the tip, scalloped hem, a crook."""
    grip = shade(WOOD, -0.2)
    pen.stroke(points((0.55, 0.02), (0.55, 0.88)), grip, 0.05)
    pen.stroke(disc(0.64, 0.88, 0.09, 0.1, 0, 180), grip, 0.06)
    count = int(rng.integers(5, 9))
    hem = rng.uniform(0.52, 0.6)
    ribs = 0.55 - 0.55 * np.cos(np.linspace(0, np.pi, count + 1))
    rise = np.linspace(0, np.pi / 2, 12)

    def rib(x: float) -> Points:
        return np.stack([0.55 + (x - 0.55) * np.cos(rise), hem - (hem - 0.06) * np.sin(rise)], axis=1)

    canopy = disc(0.55, hem, 0.55, hem - 0.06, 180, 360)
    scallops = []
    for segment, (left, right) in enumerate(pairwise(ribs)):
        scallop = disc((left + right) / 2, hem, (right - left) / 2, 0.05, 180, 360, corners=10)
        scallops.append(scallop)
        panel = np.concatenate([scallop, rib(right), rib(left)[::-1]])
        pen.fill(panel, second if segment % 2 else first, 0)
    canopy = np.concatenate([canopy, np.concatenate(scallops)[::-1]])
    with pen.inside(canopy):
        for up in (0.25, 0.75):
            level = hem - (hem - 0.06) * np.sin(up)
            pen.stroke(disc(0.55, level, 0.55 * np.cos(up), 0.04, 180, 360, corners=16), trim, 0.034)
        for x in ribs[1:-1]:
            pen.stroke(rib(x), pen.ink, 0.02)


def car(pen: Pen, rng: Generator, paint: Colour, stripe: Colour, wheel: Colour) -> None:
    """Panels, doors, windows with a glint, bumpers, spoked wheels."""
    roof, back = rng.uniform(0.0, 0.06), rng.uniform(0.2, 0.34)
    cabin = smooth(
        points(
            (back - 0.12, 0.46), (back + 0.1, roof + 0.03), (0.75, roof), (1.0, roof + 0.06), (1.26, 0.46)
        ),
        steps=8,
    )
    body = smooth(
        points(
            (0.02, 0.5),
            (0.3, 0.4),
            (1.2, 0.41),
            (1.55, 0.5),
            (1.6, 0.78),
            (1.4, 0.84),
            (0.2, 0.84),
            (0.0, 0.76),
        )
    )
    pen.fill(cabin, paint)
    pen.fill(body, paint)
    doors = (0.48, 0.82, 1.14)
    glass = (cabin - (0.72, 0.3)) * (0.86, 0.72) + (0.72, 0.28)
    pen.fill(glass, SKY, 0)
    with pen.inside(glass):
        for x in (0.35, 0.66, 1.0):
            pen.stroke(points((x, 0.45), (x + 0.22, 0.0)), shade(SKY, 0.6), 0.05)
        for x in doors:
            pen.stroke(points((x, 0), (x, 0.5)), paint, 0.05)
    with pen.inside(body):
        pen.fill(box(-0.1, 0.58, 1.7, 0.66), stripe, 0.018)
        pen.fill(box(-0.1, 0.76, 1.7, 0.9), shade(paint, -0.4), 0.018)
        for x in doors:
            pen.stroke(points((x, 0.4), (x, 0.76)), pen.ink, 0.02)
        for x in (1.24, 1.31, 1.38):
            pen.stroke(points((x, 0.46), (x, 0.56)), pen.ink, 0.022)
    for x in doors[:2]:
        pen.stroke(points((x + 0.06, 0.52), (x + 0.15, 0.52)), shade(stripe, 0.4), 0.035)
    pen.fill(disc(1.52, 0.57, 0.055, 0.07), shade(YELLOW, 0.4))
    spokes = int(rng.integers(5, 9))
    for x in (0.36, 1.24):
        pen.fill(disc(x, 0.79, 0.21), (48, 46, 52))
        pen.fill(disc(x, 0.79, 0.135), shade(wheel, 0.35))
        turned = np.arange(spokes) * 2 * np.pi / spokes + rng.uniform(0, 1)
        hub = points((x, 0.79))
        pen.stroke(
            lines(hub, hub + 0.12 * np.stack([np.cos(turned), np.sin(turned)], axis=1)), pen.ink, 0.024
        )
        pen.fill(disc(x, 0.79, 0.045), wheel, 0.014)


def tent(pen: Pen, rng: Generator, cloth: Colour, zigzag: Colour, inside: Colour) -> None:
    """A ridge tent seen from a corner: zig-zag bands over both sides, open flaps in front."""
    top, reach = rng.uniform(0.42, 0.5), rng.uniform(1.0, 1.08)
    side = points((top, 0.06), (reach, 0.12), (1.3, 0.9), (0.86, 1.0))
    front = points((top, 0.06), (0.86, 1.0), (0.0, 1.0))
    for x, y in ((top, 0.0), (reach, 0.06)):
        pen.stroke(points((x, y), (x, 0.3)), WOOD, 0.045)
    bands = int(rng.integers(3, 5))
    for shape, colour, lean in ((side, shade(cloth, -0.12), -0.1), (front, cloth, 0.0)):
        pen.fill(shape, colour, 0)
        with pen.inside(shape):
            for y in np.linspace(0.26, 0.92, bands):
                across = np.arange(-0.06, 1.5, 0.08)
                teeth = np.where(np.arange(across.size) % 2 == 0, 0.045, -0.045)
                pen.stroke(np.stack([across, y + teeth + lean * (across - 0.86)], axis=1), zigzag, 0.06)
    foot = rng.uniform(0.13, 0.19)
    pen.fill(points((top - 0.02, 0.36), (0.43 + foot, 1.0), (0.43 - foot, 1.0)), shade(inside, -0.6))
    for edge in (1, -1):
        flap = points((top - 0.02, 0.36), (0.43 + edge * foot, 1.0), (0.43 + edge * (foot + 0.1), 0.98))
        pen.fill(smooth(flap, steps=4), shade(inside, 0.3))


def kite(pen: Pen, rng: Generator, first: Colour, second: Colour, bows: Colour) -> None:
    """A diamond in four quarters with chevrons, the spars as a cross, a tail with bows."""
    cross, foot = rng.uniform(0.23, 0.3), 0.7
    middle = points((0.3, cross))[0]
    tips = points((0.3, 0.0), (0.6, cross), (0.3, foot), (0.0, cross))
    bend = 0.1 * (1 if rng.random() < 0.5 else -1)
    tail = smooth(points((0.3, foot), (0.3 + bend, 0.8), (0.3 - bend, 0.9), (0.3 + bend, 0.98)), closed=False)
    pen.stroke(tail, pen.ink, 0.035)
    for x, y in (tail[7], tail[14], tail[-1]):
        for wing in (-1, 1):
            pen.fill(points((x, y), (x + wing * 0.1, y - 0.05), (x + wing * 0.1, y + 0.05)), bows, 0.018)
    for quarter in range(4):
        here, there = tips[quarter], tips[(quarter + 1) % 4]
        ground, line = (first, second) if quarter % 2 == 0 else (second, first)
        panel = np.stack([middle, here, there])
        pen.fill(panel, ground, 0)
        for part in (0.38, 0.74):
            pen.stroke(
                np.stack([middle + (here - middle) * part, middle + (there - middle) * part]), line, 0.055
            )
    pen.stroke(tips[[0, 2]], bows, 0.035)
    pen.stroke(tips[[1, 3]], bows, 0.035)
    pen.stroke(tips, pen.ink, 0.03, closed=True)
    pen.fill(disc(0.3, cross, 0.045), shade(bows, 0.4), 0.018)
