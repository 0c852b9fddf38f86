"""What the documents say of the code: names, tables, files and links."""

import re
from pathlib import Path

import pytest
from pydantic import ByteSize

import ebseg
from service.http.problems import KINDS
from service.observability.metrics import STAGES, Metrics
from service.schemas.classes import ClassEntry
from service.schemas.segment import ClassAnswer, SegmentAnswer, SegmentRequest
from service.settings import Settings
from tests.e2e.documents import ROOT, code_spans, documents, table_rows, tracked_files

UNEXPLAINED = {".gitignore"}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def first_column(document: str, heading: str) -> list[str]:
    return [name for row in table_rows(document, heading) for name in code_spans(row[0])]


def anchors(path: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_settings_and_their_defaults() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_rows("docs/serving.md", "## Settings")}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert rows == {name: _as_documented(value) for name, value in defaults.items()}


def _as_documented(value: object) -> str:
    if value in (None, ()):
        return ""
    if isinstance(value, ByteSize):
        return value.human_readable(separator=" ").replace(".0 ", " ")
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_metrics() -> None:
    rows = table_rows("docs/serving.md", "## Metrics")
    documented = {
        name.partition("{")[0] for row in rows for name in code_spans(row[0]) if name.startswith("ebseg_")
    }
    metrics = [metric for metric in Metrics().registry.collect() if metric.name.startswith("ebseg_")]
    exposed = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics}
    assert documented == exposed
    (stages,) = [row[1] for row in rows if "ebseg_stage" in row[0]]
    assert stages.partition(": ")[2].split(", ") == list(STAGES)


def test_errors() -> None:
    rows = {(int(status), slug.strip("`")) for status, slug, _ in table_rows("docs/http.md", "### Errors")}
    assert rows == {(kind.status, kind.slug) for kind in KINDS.values()}


def test_request_fields() -> None:
    rows = table_rows("docs/http.md", "### What goes in")
    assert [name for row in rows for name in code_spans(row[0])] == list(SegmentRequest.model_fields)
    (classes,) = [row[1] for row in rows if row[0] == "`classes`"]
    assert f"`{{{', '.join(ClassEntry.model_fields)}}}`" in classes


def test_answer_fields() -> None:
    documented = first_column("docs/http.md", "### What comes out")
    forms = ["application/json", "image/png", "image/webp", "application/x-npy"]
    fields = {*SegmentAnswer.model_fields, *ClassAnswer.model_fields}
    assert sorted(documented) == sorted([*forms, *fields])


def test_every_place_at_the_top_is_explained() -> None:
    explained = first_column("docs/code.md", "## At the top")
    unexplained = [
        path
        for path in tracked_files()
        if path not in {*explained, *UNEXPLAINED} and path.partition("/")[0] + "/" not in explained
    ]
    assert unexplained == []
    assert [name for name in explained if not (ROOT / name).exists()] == []


ROOMS = {"model": "model/", "service": "service/", "training": "training/", "requirements": "requirements/"}
ROOMS |= {"client": "client/ebseg_client/"}


@pytest.mark.parametrize("heading", ROOMS)
def test_every_room_is_explained(heading: str) -> None:
    explained = first_column("docs/code.md", f"## In {heading}")
    parts = [path.removeprefix(ROOMS[heading]) for path in tracked_files() if path.startswith(ROOMS[heading])]
    tops = {part.partition("/")[0] + ("/" if "/" in part else "") for part in parts}
    assert sorted(explained) == sorted(tops - {"__init__.py"})


@pytest.mark.parametrize("heading", ["model", "service", "training"])
def test_rooms_hold_the_files_that_their_sentence_names(heading: str) -> None:
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    section = text.partition(f"## In {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", section, re.M)
    named = {
        f"{heading}/{room}/{name}"
        for room, documented in rows
        for name in code_spans(documented)
        if "." in name
    }
    named = {name for name in named if not name.endswith(".load")}
    assert len(named) >= 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("change", "file", "by"),
    [
        ("PNG", "service/segmentation/colors.py", r"^OTHER = |^def class_colors"),
        ("quarantined", "service/hot_loading/quarantine.py", r"\.refused\[number\] = "),
        ("dice", "training/losses/criterion.py", r"^class LossWeights[^@]*?^    dice: float = "),
        ("SAM", "model/network/kernels.py", r"^def attention_on_grid|^HALF_ATTENTION"),
        ("buckets", "service/observability/metrics.py", r"\bHistogram\("),
    ],
)
def test_a_newcomer_finds_the_one_file_to_change(change: str, file: str, by: str) -> None:
    """Named for it in the table, and no other file of its package decides that."""
    rows = table_rows("docs/code.md", "## Where to change what")
    (named,) = [code_spans(row[1]) for row in rows if change in row[0]]
    package = ROOT / file.partition("/")[0]
    deciding = [
        str(path.relative_to(ROOT))
        for path in package.rglob("*.py")
        if re.search(by, path.read_text(encoding="utf-8"), re.M)
    ]
    assert deciding == named == [file]


def test_paths_in_the_two_lives_exist() -> None:
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8").partition("## At the top")[0]
    paths = [span for span in code_spans(text) if "/" in span]
    assert len(paths) >= 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", documents(), ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", documents(), ids=label)
def test_named_commands_exist(path: Path) -> None:
    spans = code_spans(re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    known = re.findall(r"^    ([a-z-]+)\b", ebseg.build_parser().format_help(), re.M)
    for span in spans:
        program, _, rest = span.partition(" ")
        words = [word for word in rest.split() if "=" not in word]
        if program == "make":
            assert set(words) <= targets, span
        elif program == "ebseg" and words:
            assert words[0] in known, span


def test_pictures_have_text_for_those_who_cannot_see_them() -> None:
    for path in documents():
        for text in re.findall(r"!\[([^\]]*)\]", path.read_text(encoding="utf-8")):
            assert len(text.split()) >= 4, f"{label(path)}: {text!r}"
