"""Storybook's classes: which there are, and which of them the segmenter sees masks of.

A book's new classes are drawn into held-out scenes and into the pictures that CLIP reads captions of; scenes
that the segmenter trains on do not hold them at all.
"""

from dataclasses import dataclass

from numpy.random import Generator

RARELY = 0.3  # share of the captioned scenes that a rare word may occur in

OUTDOOR_GROUNDS = (
    "grass",
    "water",
    "sand",
    "snow",
    "gravel",
    "cobblestones",
    "road",
    "hay",
    "corn field",
    "flower meadow",
)
BACKDROPS = ("sky", "clouds", "starry sky", "forest")
WALLS = ("brick wall", "stone wall", "planks", "marble", "bark", "lattice", "wallpaper")
FLOORS = ("carpet", "floor tiles", "leaves")
CLOTHS = ("striped cloth", "checked cloth", "dotted cloth", "net")
ROOFS = ("roof tiles",)
STUFF = (*OUTDOOR_GROUNDS, *BACKDROPS, *WALLS, *FLOORS, *CLOTHS, *ROOFS)
THINGS = (
    "house",
    "tree",
    "sun",
    "boat",
    "balloon",
    "umbrella",
    "car",
    "mushroom",
    "fish",
    "butterfly",
    "pumpkin",
    "lamp",
    "cactus",
    "clock",
    "tent",
    "kite",
)
CLASSES = (*STUFF, *THINGS)
NEW = (
    "snow",
    "cobblestones",
    "hay",
    "starry sky",
    "lattice",
    "checked cloth",
    "net",
    "boat",
    "mushroom",
    "butterfly",
    "clock",
    "kite",
)
TRAINED = tuple(name for name in CLASSES if name not in NEW)

# Classes that are alike, of one head word each: in every family are trained and new ones.
ALIKE = {
    "cloth": (
        "striped cloth",
        "checked cloth",
        "dotted cloth",
        "zigzag cloth",
        "ringed cloth",
        "diamond cloth",
    ),
    "wall": ("brick wall", "block wall", "stone wall", "log wall"),
    "tiles": ("floor tiles", "star tiles", "chess tiles", "roof tiles"),
    "field": ("corn field", "flower field", "cabbage field", "hay field"),
    "road": ("asphalt road", "gravel road", "pebble road", "cobbled road"),
    "sky": ("clear sky", "cloudy sky", "starry sky"),
    "boat": ("sailing boat", "rowing boat", "steam boat"),
    "tree": ("apple tree", "fir tree", "palm tree"),
    "tent": ("ridge tent", "round tent"),
}
_THINGS = ("boat", "tree", "tent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """What a data set draws.

    Attributes:
        title: of the data set.
        stuff, things: classes; labels are indices into `classes`.
        new: those that no mask shows to the segmenter.
        rare: words that few captions hold.
    """

    title: str
    stuff: tuple[str, ...]
    things: tuple[str, ...]
    new: tuple[str, ...]
    rare: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """All of them, in the order of their labels."""
        return (*self.stuff, *self.things)

    @property
    def trained(self) -> tuple[str, ...]:
        """Those that the segmenter sees masks of."""
        return tuple(name for name in self.classes if name not in self.new)

    def captioned(self, rng: Generator) -> tuple[str, ...]:
        """What may occur in a scene that CLIP reads the caption of; draws nothing where no word is rare."""
        if not self.rare:
            return self.classes
        left_out = {name for name in self.rare if rng.random() >= RARELY}
        return tuple(name for name in self.classes if name not in left_out)


STORYBOOK = Book(title="Storybook", stuff=STUFF, things=THINGS, new=NEW)
FAMILIES = Book(
    title="Storybook of families",
    stuff=(
        *(name for family, names in ALIKE.items() if family not in _THINGS for name in names),
        "grass",
        "water",
        "sand",
        "forest",
        "carpet",
    ),
    things=(*(name for family in _THINGS for name in ALIKE[family]), "fish", "car", "umbrella", "lamp"),
    new=(
        "checked cloth",
        "ringed cloth",
        "block wall",
        "star tiles",
        "cabbage field",
        "hay field",
        "cobbled road",
        "starry sky",
        "steam boat",
        "fir tree",
        "round tent",
    ),
    rare=("ringed cloth", "star tiles", "hay field", "steam boat", "diamond cloth", "log wall", "palm tree"),
)
EVERY_THING = frozenset((*STORYBOOK.things, *FAMILIES.things))
