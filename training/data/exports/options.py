"""How an annotation tool's export is taken; needs no numpy, so that `ebseg prepare --help` is quick."""

from dataclasses import dataclass
from pathlib import Path

from training.errors import DatasetError

VAL_SHARE = 0.2  # of the pictures, where an export tells of no splits


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """How an export is taken.

    Attributes:
        pictures: folder of the pictures, if not beside the annotations.
        classes: text file of names, one a line.
        ignored: names that are no classes, beside those that tools give to what is none.
        link: take picture files that need no change by second names and not as copies.
        val_share: share of the pictures for validation, 0..1, where the export tells of no splits.
    """

    pictures: Path | None = None
    classes: Path | None = None
    ignored: tuple[str, ...] = ()
    link: bool = False
    val_share: float = VAL_SHARE

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise DatasetError(f"--val-share must be at least 0 and less than 1, got {self.val_share:g}")
