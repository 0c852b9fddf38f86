"""Label maps as picture files, by indices or by colours, and a text file that names the classes.

A line of that file is a name, or `name:red,green,blue` as CVAT writes it; what follows a further colon does
not count, nor do empty lines and those that begin with #. Without colours the lines count from 0, or from -1
if the first is __ignore__, as LabelMe's own lists do.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.exports.reading import PictureFinder, files_below
from training.data.exports.regions import AnnotatedPicture, Export
from training.data.layout import opened_image, read_labels
from training.errors import DatasetError

FIRST_IGNORED = "__ignore__"


def read(source: Path, finder: PictureFinder, names: Path | None) -> Export:
    """All PNG files of a folder, each with the picture of its name.

    Raises:
        DatasetError: there is no list of names or it is damaged, or a picture is missing.
    """
    if names is None:
        raise DatasetError(
            "masks need --classes FILE: the classes' names, one a line, in the order of values"
        )
    values = _values(names)
    pictures = []
    for path in files_below(source, (".png",)):
        named = path.with_suffix("").name
        picture = finder.stem(named, path)
        if picture is None:
            raise DatasetError(
                f"{path} has no image of its name; name the images' folder with --pictures DIR"
            )
        place = path.relative_to(source).with_suffix("") if source.is_dir() else Path(named)
        pictures.append(
            AnnotatedPicture(name="_".join(place.parts), picture=picture, label_map=path, values=values)
        )
    return Export(pictures=pictures, classes=tuple(dict.fromkeys(values.values())))


def colored(values: dict[int, str]) -> bool:
    """Whether values are colours, see `color`, and not indices."""
    return any(value >= 1 << 24 for value in values)


def color(red: int, green: int, blue: int) -> int:
    """A colour as a number above all indices."""
    return (1 << 24) + (red << 16) + (green << 8) + blue


def shown(value: int) -> str:
    """An index or a colour in words."""
    if value < 1 << 24:
        return f"the value {value}"
    return f"the colour {value >> 16 & 255},{value >> 8 & 255},{value & 255}"


def values_of(path: Path, by_color: bool) -> NDArray[np.int64]:
    """The indices or colours of a label map, [H, W].

    Raises:
        DatasetError: it cannot be read, or has colours where indices are wanted.
    """
    if not by_color:
        try:
            return read_labels(path).astype(np.int64)
        except DatasetError as error:
            raise DatasetError(
                f"{error}; for colours, --classes needs lines such as road:128,64,128"
            ) from None
    with opened_image(path) as image:
        channels = np.asarray(image.convert("RGB"), dtype=np.int64)
    found: NDArray[np.int64] = (1 << 24) + channels @ np.array([1 << 16, 1 << 8, 1])
    return found


def names_in(path: Path) -> tuple[str, ...]:
    """The names of a text file, in its order.

    Raises:
        DatasetError: it cannot be read, or names none.
    """
    return tuple(dict.fromkeys(_values(path).values()))


def _values(path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DatasetError(f"{path} names no class")
    parts = [line.split(":") for line in lines]
    start = -1 if lines[0] == FIRST_IGNORED else 0
    found: dict[int, str] = {}
    for number, (name, *rest) in enumerate(parts, start):
        value = _color(rest[0], f"{path}: {name}") if rest and rest[0] else number
        if value in found:
            raise DatasetError(f"{path}: {name} and {found[value]} have the same colour")
        found[value] = name.strip()
    if len({value >= 1 << 24 for value in found}) > 1:
        raise DatasetError(f"{path}: some classes have a colour and some have none")
    return found


def _color(text: str, where: str) -> int:
    try:
        red, green, blue = (int(part) for part in text.split(","))
        if not all(0 <= part <= 255 for part in (red, green, blue)):
            raise ValueError
    except ValueError:
        raise DatasetError(f"{where}: {text!r} is no colour such as 128,0,64") from None
    return color(red, green, blue)
