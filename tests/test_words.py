"""What users read calls a thing by one word: image, not picture; response, not answer."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ebseg
from tests.e2e.test_cli import COMMANDS
from tests.service.fakes import running
from tests.test_structure import ROOT, label

ARTICLES = "an|the|its|this|no|one|each|every|own|other|several|all|good|JSON|first|new|of|for|with|as"
# "answers" as a verb stays: the server answers with 404
REFUSED = re.compile(rf"\bpictures?\b(?!-)|\b(?:{ARTICLES}) answers?\b|\bunsupported\b", re.I)
NAMES = re.compile(r"--[\w-]+|`[^`]*`|\b\w+[-_/.]\w[\w./-]*")  # flags, fields, paths: they are what they are
PAGE = ROOT / "service" / "static"
# Texts that no user reads, or that are not ours.
OTHERS = {
    "model/vocabulary/templates.py": "sentences of the paper's for CLIP",
    "model/bench/engine.py": "the same",
    "training/storybook/scene.py": "captions, which a CLIP is trained on",
}


def off_the_list(text: str) -> list[str]:
    return [match[0] for match in REFUSED.finditer(NAMES.sub(" ", text))]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("the picture is broken", ["picture"]),
        ("Pictures and the answer", ["Pictures", "the answer"]),
        ("Unsupported media", ["Unsupported"]),
        ("--pictures DIR, or `pictures` in out/pictures.png: urn:ebseg:problem:bad-picture", []),
        ("the server answers with 404; it was answered; a picture-book", []),
    ],
)
def test_words_off_the_list_are_seen(text: str, wrong: list[str]) -> None:
    assert off_the_list(text) == wrong


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts of several words in code, which are not docstrings, with their lines."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documentation:
            continue
        if isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def test_messages_in_code() -> None:
    wrong = []
    for folder in ("model", "service", "training", "client", "ebseg.py"):
        for path in [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py")):
            if label(path) not in OTHERS:
                found = messages(ast.parse(path.read_text(encoding="utf-8")))
                wrong += [
                    f"{label(path)}:{line}: {word}" for line, text in found for word in off_the_list(text)
                ]
    assert wrong == []


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str) -> None:
    parser = COMMANDS[name] if name else ebseg.build_parser()
    assert off_the_list(parser.format_help()) == []


@pytest.mark.anyio
async def test_openapi() -> None:
    """Descriptions come from docstrings as well."""
    async with running() as (client, _):
        document = (await client.get("/openapi.json")).json()

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for one in value.values():
                yield from texts(one)
        elif isinstance(value, list):
            for one in value:
                yield from texts(one)
        elif isinstance(value, str) and " " in value:
            yield value

    read = list(texts(document))
    assert len(read) > 300
    assert [(text, off_the_list(text)) for text in read if off_the_list(text)] == []


class _Read(HTMLParser):
    """What a reader of a page sees or hears."""

    def __init__(self, text: str):
        super().__init__()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [
            text or ""
            for name, text in attrs
            if name in ("title", "alt", "aria-label", "placeholder", "content")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.html")), ids=label)
def test_pages(path: Path) -> None:
    texts = _Read(path.read_text(encoding="utf-8")).texts
    assert [word for text in texts for word in off_the_list(text)] == []


def test_scripts_of_the_page() -> None:
    """Texts begin with a capital or stand in a template; names of code are in neither."""
    wrong = []
    for path in sorted((PAGE / "js").glob("*.js")):
        code = re.sub(r"//.*|/\*.*?\*/|\$\{[^}]*\}", " ", path.read_text(encoding="utf-8"))
        for text in re.findall(r"\"([^\"\n]* [^\"\n]*)\"|`([^`\n]* [^`\n]*)`", code):
            wrong += [(label(path), word) for word in off_the_list("".join(text))]
    assert wrong == []


def test_alerts_and_dashboards() -> None:
    for path in (
        ROOT / "docker" / "prometheus" / "alerts.yml",
        ROOT / "docker" / "grafana" / "dashboards" / "ebseg.json",
    ):
        texts = re.findall(r"(?:summary|description|title)\"?: (.*)", path.read_text(encoding="utf-8"))
        assert len(texts) > 20
        assert [word for text in texts for word in off_the_list(text)] == []
