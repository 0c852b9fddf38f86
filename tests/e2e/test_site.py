"""The documents as a site: built as by `make docs`, searchable, without dead links, and as llms.txt."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.e2e.documents import ROOT, documents
from tests.waiting import LONG_WAIT

REFERENCE = Path("docs/reference.md")  # made of the code


def built(checkout: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "docs/build_site.py"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents alone, in a folder of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in [*documents(), ROOT / "mkdocs.yml", ROOT / "LICENSE"]:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for path in (ROOT / "docs").iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / "docs" / path.name)
    return folder


def test_site(checkout: Path) -> None:
    """Every page is there and found by its words, and nothing is loaded from elsewhere."""
    done = built(checkout)
    assert done.returncode == 0, done.stderr
    site = checkout / "out" / "site"
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    pages = [path.relative_to(ROOT) for path in documents()]
    assert found == {
        "" if path == Path("README.md") else f"{path.with_suffix('')}/".replace("README/", "")
        for path in [*pages, REFERENCE]
    }
    settings = (site / REFERENCE).read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| \S[^|]+ \|$", settings, re.MULTILINE) == list(Settings.model_fields)
    languages = (site / "docs" / "http" / "index.html").read_text(encoding="utf-8")
    tabs = re.findall(r"<div class=\"tabbed-labels\">(.*?)</div>", languages, re.DOTALL)
    assert [re.findall(r">(\w+)</label>", labels) for labels in tabs] == [["curl", "Python", "JavaScript"]]
    hits = [entry["location"] for entry in index["docs"] if "synonym_mode" in entry["text"]]
    assert any(location.startswith("docs/http/") for location in hits)
    for page in site.rglob("index.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', text) == [], page
    lines = (site / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# EBSeg")
    assert lines[2].startswith("> ")
    links = [match[1] for line in lines if (match := re.match(r"- \[.+\]\((\S+)\): \S", line))]
    assert sorted(links) == sorted(str(path) for path in [*pages, REFERENCE] if path != Path("README.md"))
    for link in sorted({*links} - {str(REFERENCE)}):
        assert (site / link).read_text(encoding="utf-8") == (ROOT / link).read_text(encoding="utf-8")


@pytest.mark.parametrize("link", ["[a](http.md#nothing-of-that-name)", "[a](nowhere.md)"])
def test_a_dead_link_ends_the_build(checkout: Path, link: str) -> None:
    page = checkout / "docs" / "models.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{text}\n{link}\n", encoding="utf-8")
    try:
        done = built(checkout)
    finally:
        page.write_text(text, encoding="utf-8")
    assert done.returncode == 1
    assert link[4:-1].partition("#")[2] in done.stderr
    assert "Aborted with 1 warnings in strict mode" in done.stdout
