"""docs/tour.ipynb, executed as Jupyter does it, in a kernel of its own."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.documents import ROOT
from tests.waiting import LONG_WAIT

TOUR = ROOT / "docs" / "tour.ipynb"


def notebook() -> Any:
    return nbformat.reads(TOUR.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]


def test_the_tour_is_kept_without_outputs() -> None:
    """They would differ from machine to machine."""
    for cell in notebook().cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_every_cell_runs_and_shows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    page = notebook()
    NotebookClient(page, timeout=LONG_WAIT, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    shown = [cell.outputs for cell in page.cells if cell.cell_type == "code"]
    assert all(outputs for outputs in shown)
    first, shares, cut_out, others, odd = shown
    assert "text/html" in first[-1].data or "image/png" in first[-1].data
    found = {words[0]: float(words[1].rstrip("%")) for words in map(str.split, shares[0].text.splitlines())}
    assert set(found) == {"house", "umbrella", "butterfly", "clouds", "hay", "sand"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert "image/png" in cut_out[-1].data
    assert "roof" in others[0].text
    assert "image/png" in others[-1].data
    assert odd[0].text.startswith("unknown-words")
