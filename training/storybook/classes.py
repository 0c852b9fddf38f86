"""Storybook's classes: which there are, and which of them the segmenter sees masks of.

`NEW` classes are drawn into held-out scenes and into the pictures that CLIP reads captions of; scenes that
the segmenter trains on do not hold them at all.
"""

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
