"""The pictures of `ebseg segment` and where their results go, looked at before anything heavy is imported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from model.pictures.suffixes import PICTURES, TAKEN
from service.errors import UsageError

OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ENDINGS = {  # of what --save writes
    "confidence": ".png",
    "soft_mask": ".png",
    "cutout": ".png",
    "geojson": ".geojson",
    "regions": ".json",
    "panoptic": ".png",
    "npy": ".npy",
    "scores": ".npy",
}
REGIONAL = frozenset({"geojson", "regions", "panoptic"})  # those of regions
PANOPTIC_FILE = "panoptic.json"  # in a folder, beside the pictures that it describes

_LOOKED_AT = 512  # bytes of a file with another ending
MASK_FORMS: dict[str, Literal["PNG", "TIFF"]] = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlan:
    """What to do.

    Attributes:
        files: pictures.
        many: whether a folder or several pictures were named; then results go to folders.
        masks, overlays: where each file's go; None if they are not wanted.
        sheet: where the contact sheet goes.
        saved: for each further output where each file's goes.
        coco: where the document of all pictures' instances goes.
        as_json: print JSON, one object a line, instead of a table.
        parallel: pictures at a time.
        panoptic: where the document of all panoptic pictures goes.
        world: whether GeoJSON is in degrees.
    """

    files: list[Path]
    many: bool
    masks: dict[Path, Path] | None
    overlays: dict[Path, Path] | None
    sheet: Path | None
    as_json: bool
    parallel: int
    saved: dict[str, dict[Path, Path]] = field(default_factory=dict)
    coco: Path | None = None
    panoptic: Path | None = None
    world: bool = False


def plan(
    pictures: Sequence[Path],
    *,
    out: Path | None,
    overlay: Path | None,
    sheet: Path | None,
    as_json: bool,
    parallel: int,
    saved: Mapping[str, Path] = MappingProxyType({}),
    coco: Path | None = None,
    mask_format: str | None = None,
    world: bool = False,
) -> SegmentPlan:
    """Looks at all that can be wrong with files before anything is segmented.

    Raises:
        UsageError: a picture or target that cannot be, or results that would be written over pictures or
            each other.
    """
    many = len(pictures) > 1 or pictures[0].is_dir()
    files = [file for named in pictures for file in (_listed(named) if named.is_dir() else [named])]
    if many:
        masks = None if out is None else _in_folder(files, out, f".{mask_format or 'png'}")
        overlays = None if overlay is None else _in_folder(files, overlay, ".webp")
        further = {name: _in_folder(files, path, ENDINGS[name]) for name, path in saved.items()}
    else:
        further = {name: {files[0]: _checked(path, (ENDINGS[name],))} for name, path in saved.items()}
        masks = None if out is None else {files[0]: _checked(out, tuple(MASK_FORMS))}
        overlays = None if overlay is None else {files[0]: _checked(overlay, OVERLAY_SUFFIXES)}
        _refuse_unreadable(files[0])
    targets = [target for group in (masks, overlays) if group is not None for target in group.values()]
    targets += [target for group in further.values() for target in group.values()]
    panoptic = None
    if "panoptic" in saved:
        panoptic = saved["panoptic"] / PANOPTIC_FILE if many else saved["panoptic"].with_suffix(".json")
        targets.append(panoptic)
    targets += [] if sheet is None else [_checked(sheet, OVERLAY_SUFFIXES)]
    targets += [] if coco is None else [_checked(coco, (".json",))]
    sources = Counter(file.resolve() for file in files)
    for source, times in sources.items():
        if times > 1:
            raise UsageError(f"{source} is named more than once")
    for target, times in Counter(target.resolve() for target in targets).items():
        if target in sources:
            raise UsageError(f"{target} is one of the images and would be overwritten; choose another place")
        if times > 1:
            raise UsageError(f"{target} would be written more than once; choose different places")
    return SegmentPlan(
        files=files,
        many=many,
        masks=masks,
        overlays=overlays,
        sheet=sheet,
        as_json=as_json,
        parallel=parallel,
        saved=further,
        coco=coco,
        panoptic=panoptic,
        world=world,
    )


def _refuse_unreadable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _listed(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; not those of folders within.

    Raises:
        UsageError: there are none, or it cannot be read.
    """
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None
    files = [
        path for path in inside if not path.name.startswith(".") and path.is_file() and _is_picture(path)
    ]
    if not files:
        raise UsageError(f"{folder} holds no images; they end in {', '.join(TAKEN)}")
    return files


def _is_picture(path: Path) -> bool:
    """By its name, or else by its first bytes; one that is not taken is told of when its turn comes."""
    if path.suffix.lower() in PICTURES:
        return True
    from model.pictures.formats import looks_like_picture  # with Pillow, which help does not need

    try:
        with path.open("rb") as file:
            return looks_like_picture(file.read(_LOOKED_AT))
    except OSError:
        return False


def _in_folder(files: Sequence[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Where each file's result goes: NAME.png of NAME.jpg, or NAME.jpg.png if there are several NAMEs."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} must be a folder, for there are several images; it is a file")
    stems = Counter(file.stem for file in files)
    return {file: folder / f"{file.stem if stems[file.stem] == 1 else file.name}{suffix}" for file in files}


def _checked(path: Path, suffixes: tuple[str, ...]) -> Path:
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path} must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{path} cannot be written: {path.parent} is no folder, or it is one itself")
    return path
