"""What all readers of exports need: JSON that is what it should be, and pictures by the names in it."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from training.errors import DatasetError

# What comes of a file whose JSON or XML is sound, but holds other things than its format has.
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def json_of(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from None


def files_below(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file itself, or all files of these suffixes below a folder; hidden ones do not count.

    Raises:
        DatasetError: there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not found:
        raise DatasetError(f"{source} holds no {' or '.join(suffixes)} file: is it the export's folder?")
    return found


class PictureFinder:
    """Finds pictures by the paths and addresses that exports call them by.

    Args:
        folders: which are looked through, the first first.
    """

    def __init__(self, folders: Iterable[Path]):
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._folders = list(dict.fromkeys(folders))
        for folder in self._folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in PICTURES and path not in self._by_name[path.name]:
                    self._by_name[path.name].append(path)

    def find(self, named: str, beside: Path) -> Path | None:
        """The file of a picture; None if there is none.

        A path counts from the annotation file or one of the folders. Where nothing lies there the name alone
        decides; where several files have it, the one whose path ends most like the named one.

        Args:
            named: path or address in the export.
            beside: folder of the annotation file.
        """
        texts = paths_of(named)
        for text in texts:
            for folder in (beside, *self._folders):
                path = folder / text
                if path.is_file():
                    return path
        for wanted in map(Path, texts):
            # Label Studio puts a number before a name
            for name in (wanted.name, wanted.name.partition("-")[2]):
                if found := self._by_name.get(name):
                    likeness = [_common_end(path.parts, wanted.parts) for path in found]
                    return found[likeness.index(max(likeness))]
        return None

    def stem(self, name: str, apart_from: Path) -> Path | None:
        """The picture of a name without suffix, and not that file itself; None if there is none."""
        for suffix in PICTURES:
            for path in (
                *self._by_name.get(name + suffix, []),
                *self._by_name.get(name + suffix.upper(), []),
            ):
                if path.resolve() != apart_from.resolve():
                    return path
        return None


def missing_picture(named: str, where: Path) -> DatasetError:
    """The error of a picture that was not found."""
    return DatasetError(f"{where}: its image {named} is not there; name its folder with --pictures DIR")


def paths_of(named: str) -> tuple[str, ...]:
    """What a picture's path may be: the text as it stands, for `a#1 50%.jpg` is a name; then as an address.

    An address has its path, which may stand in its query, as Label Studio's local files do.
    """
    plain = named.replace("\\", "/")
    try:
        parts = urlsplit(plain)
    except ValueError:  # no address, such as //[a].jpg
        return (plain.lstrip("/"),)
    inner = parse_qs(parts.query).get("d")
    return plain.lstrip("/"), unquote(inner[0] if inner else parts.path).lstrip("/")


def _common_end(path: tuple[str, ...], wanted: tuple[str, ...]) -> int:
    count = 0
    for ours, theirs in zip(reversed(path), reversed(wanted), strict=False):
        if ours != theirs:
            break
        count += 1
    return count
