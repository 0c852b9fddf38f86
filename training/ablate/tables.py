"""Tables as Markdown and as JSON, and the mean and spread of several runs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"
# Columns of what was scored, names and headings.
TRAINED_NEW_ALL = (
    ("miou_trained", "mIoU trained"),
    ("miou_new", "mIoU new"),
    ("miou_all", "mIoU"),
    ("paper_trained", "paper's trained"),
    ("paper_new", "paper's new"),
    ("paper", "paper's mIoU"),
)
ALL_TRAINED_NEW = (("miou_all", "mIoU"), ("miou_trained", "trained"), ("miou_new", "new"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """What several runs scored: mean, least and greatest. The spread is that range, not a deviation.

    Attributes:
        runs: how many.
    """

    mean: float
    least: float
    greatest: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """Of the values that there are; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        return cls(mean=mean, least=min(known), greatest=max(known), runs=len(known))

    def __str__(self) -> str:
        """`70.1 (69.2 to 71.0)`, of one run `70.1`."""
        if self.runs == 1:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ({self.least:.1f} to {self.greatest:.1f})"


Cell = str | int | float | Spread | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table.

    Attributes:
        title: a line above it.
        columns: names in JSON and headings in Markdown.
        rows: a cell for each column; None where there is nothing to tell.
        notes: sentences below it.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Numbers have one digit after the point and stand at the right."""
        cells = [[heading for _, heading in self.columns], *([_text(x) for x in row] for row in self.rows)]
        numeric = [not any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]
        widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(self.columns))]

        def line(texts: Sequence[str]) -> str:
            padded = (
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(texts, widths, numeric, strict=True)
            )
            return f"| {' | '.join(padded)} |"

        rule = ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
        lines = [f"**{self.title}**", "", line(cells[0]), line(rule), *map(line, cells[1:])]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """JSON values: "title", "rows" (objects by column name) and "notes"."""
        keys = [key for key, _ in self.columns]
        rows = [dict(zip(keys, map(_value, row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def as_markdown(tables: Sequence[Table]) -> str:
    """Several tables, one below the other."""
    return "\n\n".join(table.markdown() for table in tables) + "\n"


def _text(cell: Cell) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _value(cell: Cell) -> Any:
    return dataclasses.asdict(cell) if isinstance(cell, Spread) else cell
