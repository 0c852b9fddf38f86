"""Batches of rows in the forms that batch engines pass: lists, columns, pandas frames, pyarrow tables."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.errors import UsageError


def rows_of(batch: Any) -> list[Mapping[str, Any]]:
    """A batch as a list of rows.

    Raises:
        UsageError: a form that nobody passes, or columns of different lengths.
    """
    if _is("pandas", "DataFrame", batch):
        rows: list[Mapping[str, Any]] = batch.to_dict("records")
        return [{name: value for name, value in row.items() if not _is_missing(value)} for row in rows]
    if _is("pyarrow", "Table", batch):
        return list(batch.to_pylist())
    if isinstance(batch, Mapping):
        lengths = {name: len(column) for name, column in batch.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"columns have different lengths: {lengths}")
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    if isinstance(batch, Sequence) and all(isinstance(row, Mapping) for row in batch):
        return list(batch)
    raise UsageError(
        "rows are a list of mappings, a mapping of columns, a pandas DataFrame or a pyarrow Table, "
        f"got {type(batch).__name__}"
    )


def shaped_like(batch: Any, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Rows in the form of a batch.

    Args:
        batch: what `rows_of` took.
        rows: with all columns each.
        columns: their order.
    """
    if _is("pandas", "DataFrame", batch):
        return sys.modules["pandas"].DataFrame({name: _objects(rows, name) for name in columns})
    if _is("pyarrow", "Table", batch):
        return table(rows)
    if isinstance(batch, Mapping):
        return {name: _objects(rows, name) for name in columns}
    return [{name: row[name] for name in columns} for row in rows]


def schema() -> Any:
    """The rows' pyarrow schema."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("label_map", pa.binary()),
            ("classes", pa.list_(pa.string())),
            ("areas", pa.list_(pa.int64())),
            ("confidence", pa.list_(pa.float64())),
            ("error", pa.string()),
        ]
    )


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pyarrow Table of `schema`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=schema())


def _objects(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """A column as an array of objects, whatever is in it: NumPy would cut zeros off bytes."""
    column = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        column[index] = row[name]
    return column


def _is(module: str, name: str, value: Any) -> bool:
    """Whether a value is of a class of a package that whoever made it has imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_missing(value: Any) -> bool:
    """pandas' word for nothing."""
    return value is None or (isinstance(value, float) and value != value)
