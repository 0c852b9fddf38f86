"""What the clients send: pictures of four sizes, twenty vocabularies of which half were never seen before."""

import io
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.vocabulary.classes import Vocabulary
from service.bench.process import ROOT

SCENES = ("village", "room")
SIZES = ((480, 640), (300, 300), (400, 300), (180, 320))  # rows, columns; each another network shape
KEPT = 10  # vocabularies that stay the same, and as many that are replaced now and then
FORMS = {"json": "application/json", "png": "image/png", "npy": "application/x-npy"}
FORM_SHARES = (6, 2, 2)  # of FORMS
SEEN_FILE_SHARE = 0.25  # of the requests send a file that was sent before, which the prediction cache knows
TIMEOUT_MS = 120_000  # the most that may be asked for: a slow machine is no mistake of the service
THRESHOLD = 0.35  # of every third vocabulary
_SYLLABLES = ("bar", "dol", "fen", "gri", "kas", "lum", "mo", "nep", "ru", "sti", "tav", "wex", "yol", "zim")
_NOUNS = ("lamp", "tree", "wall", "fish", "cloth", "tent", "stone", "house")


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, and the pixels that it decodes to."""

    jpeg: bytes
    pixels: NDArray[np.uint8]

    def copy(self, serial: int) -> bytes:
        """The same pixels in a file that was never sent before: with a comment."""
        text = f"copy {serial}".encode()
        return self.jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + self.jpeg[2:]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A vocabulary with the threshold that goes with it."""

    number: int
    names: tuple[str, ...]
    threshold: float | None

    def document(self) -> dict[str, Any]:
        """What a request says of it."""
        background = None if self.threshold is None else {"threshold": self.threshold}
        return {"classes": list(self.names), "timeout_ms": TIMEOUT_MS, "background": background}

    def vocabulary(self) -> Vocabulary:
        """The model's own idea of it."""
        return Vocabulary.of(self.names)


@dataclass(slots=True)
class Workload:
    """Pictures and vocabularies; replaces the vocabularies that are to be unseen one by one.

    Args:
        known: class names that the model was trained on.
        seed: of all choices.
    """

    known: Sequence[str]
    seed: int
    pictures: list[Picture] = field(default_factory=list)
    vocabularies: list[Wanted] = field(default_factory=list)
    _serial: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.pictures = [_picture(scene, size) for size in SIZES for scene in SCENES]
        rng = random.Random(f"{self.seed}:kept")
        for number in range(KEPT):
            names = rng.sample(list(self.known), rng.randint(2, 20))
            self.vocabularies.append(Wanted(number, tuple(names), _threshold(number)))
        for number in range(KEPT, 2 * KEPT):
            self.vocabularies.append(self._unseen(number))

    @property
    def kept(self) -> list[int]:
        """Numbers of the vocabularies that stay."""
        return list(range(KEPT))

    def renew(self) -> None:
        """Replaces the oldest unseen vocabulary by one that nobody has seen."""
        number = len(self.vocabularies)
        self.vocabularies.append(self._unseen(number))

    def choose(self, rng: random.Random) -> tuple[int, int]:
        """Which picture and which vocabulary comes next; half of the latter are unseen ones."""
        unseen = range(len(self.vocabularies) - KEPT, len(self.vocabularies))
        number = rng.choice(self.kept if rng.random() < 0.5 else unseen)
        return rng.randrange(len(self.pictures)), number

    def image(self, picture: int, rng: random.Random) -> bytes:
        """A file of a picture, mostly one that was never sent before."""
        chosen = self.pictures[picture]
        return chosen.jpeg if rng.random() < SEEN_FILE_SHARE else chosen.copy(next(self._serial))

    def _unseen(self, number: int) -> Wanted:
        """Classes with made-up names and, so that vocabularies overlap, a few known ones."""
        rng = random.Random(f"{self.seed}:unseen:{number}")
        made_up = {
            f"{rng.choice(_SYLLABLES)}{rng.choice(_SYLLABLES)}{rng.choice(_SYLLABLES)} {rng.choice(_NOUNS)}"
            for _ in range(rng.randint(2, 10))
        }
        names = [*sorted(made_up), *rng.sample(list(self.known), 3)]
        rng.shuffle(names)
        return Wanted(number, tuple(names), _threshold(number))


def _threshold(number: int) -> float | None:
    return THRESHOLD if number % 3 == 0 else None


def _picture(scene: str, size: tuple[int, int]) -> Picture:
    rows, columns = size
    with Image.open(ROOT / "samples" / f"{scene}.jpg") as opened:
        small = opened.convert("RGB").resize((columns, rows), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
        pixels = np.asarray(decoded.convert("RGB")).copy()
    return Picture(buffer.getvalue(), pixels)


def poison() -> list[tuple[bytes, int]]:
    """Files that are no usable pictures, each with the status that it deserves."""
    good = _picture("village", (300, 300)).jpeg
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")  # 400 megapixels in some 50 kB
    truncated = good[: len(good) // 2]
    return [
        (b"a text in a file that is called photo.jpg\n" * 50, 415),
        (truncated, 400),
        (b"", 400),
        (bomb.getvalue()[:30], 400),
        (bomb.getvalue(), 413),
    ]
