"""What the documents say of the code: names, tables, files and links."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import ByteSize
from starlette.exceptions import HTTPException

import ebseg
from service.http.problems import KINDS, kind_of
from service.observability.metrics import Metrics
from service.schemas.classes import ClassEntry
from service.schemas.segment import ClassAnswer, SegmentAnswer, SegmentRequest
from service.settings import Settings
from tests.deploy.names import metric_names
from tests.e2e.documents import ROOT, code_spans, documents, section, table_rows, tracked_files

UNEXPLAINED = {".gitignore"}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def first_column(document: str, heading: str) -> list[str]:
    return [name for row in table_rows(document, heading) for name in code_spans(row[0])]


def anchors(path: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


WORDS = 12_000  # of the documents for those who use, run or train it, as `wc -w` counts them
NOT_COUNTED = {"CHANGELOG.md", "CONTRIBUTING.md", "samples/README.md"}
ONE_WORD = {"picture": "image", "answer": "response", "reply": "response", "unsupported": "not supported"}


def test_the_documents_stay_short() -> None:
    counted = {
        label(path): len(path.read_text(encoding="utf-8").split())
        for path in documents()
        if label(path) not in NOT_COUNTED
    }
    assert sum(counted.values()) <= WORDS, counted


@pytest.mark.parametrize("path", documents(), ids=label)
def test_one_thing_has_one_name(path: Path) -> None:
    """In prose; names in code are what they are."""
    if path.name == "CHANGELOG.md":
        return
    text = re.sub(r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    prose = re.sub(r"`[^`]*`", "", text).lower()
    for word, better in ONE_WORD.items():
        found = re.findall(rf".{{0,40}}\b{word}(?:s|ed)?\b.{{0,40}}", prose)
        assert found == [], f"{better!r} in place of {word!r}"


def test_defaults_stand_in_the_help_of_settings() -> None:
    for name, field in Settings.model_fields.items():
        text = str(field.description)
        if field.default not in (None, (), "", False):
            assert text.endswith(f"(default: {_as_documented(field.default)})"), name


def _as_documented(value: object) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable(separator=" ").replace(".0 ", " ")
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_documents_name_settings_and_metrics_that_exist() -> None:
    """What is written as a setting of a service, a variable or a metric in the operators' documents."""
    metrics = metric_names(Metrics())
    for document in ("docs/serving.md", "docs/operations.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        spans = [span.partition("{")[0].partition("=")[0] for span in code_spans(text)]
        variables = {span.removeprefix("EBSEG_").lower() for span in spans if span.startswith("EBSEG_")}
        assert variables - {"published"} <= set(Settings.model_fields), document
        named = {span for span in spans if span.startswith("ebseg_")} - {"ebseg_track"}
        assert named <= metrics, document


def test_errors() -> None:
    (text,) = [
        part for part in section("docs/http.md", "### Errors").split("\n\n") if part.startswith("400 ")
    ]
    rows = {
        (int(group.split()[0]), slug)
        for group in text.replace("\n", " ").split("; ")
        for slug in code_spans(group)
    }
    kinds = [*KINDS.values(), kind_of(HTTPException(405))]
    assert rows == {(kind.status, kind.slug) for kind in kinds}


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


PACKAGES = sorted(
    path
    for top in ("model", "service", "training", "requirements")
    for path in (ROOT / top).rglob("__init__.py")
    if "site-packages" not in path.parts
)


@pytest.mark.parametrize("path", PACKAGES, ids=label)
def test_every_package_says_what_its_files_are_for(path: Path) -> None:
    """In its docstring; and it names no file that is not there."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, "has no docstring"
    named = [span for span in code_spans(text) if re.fullmatch(r"[\w/]+\.py|\w+/", span)]
    assert [name for name in named if not any(path.parent.rglob(name.rstrip("/")))] == []


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
        if link.startswith(("https://", "http://")):
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
        elif program == "ebseg" and words and not words[0].startswith("-"):
            assert words[0] in known, span


def test_pictures_have_text_for_those_who_cannot_see_them() -> None:
    for path in documents():
        for text in re.findall(r"!\[([^\]]*)\]", path.read_text(encoding="utf-8")):
            assert len(text.split()) >= 4, f"{label(path)}: {text!r}"
