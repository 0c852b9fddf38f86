"""The page's modules by themselves, in the browser that they are for."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from service.schemas.lists import listed
from service.segmentation.run_lengths import rles
from tests.browser.conftest import OpenPage

STATIC = Path(__file__).parents[2] / "service" / "static"
LONGEST = 400
NAMES = ("p.jpg", "my p.jpg", "it's.png", 'a"b.png', "a\\b;type=x,@.png", "$(touch x)`y`.png", "-o.png")


@pytest.fixture
def page(visit: OpenPage) -> Page:
    return visit()


def call(page: Page, module: str, function: str, *arguments: Any) -> Any:
    """What a module's function gives."""
    return page.evaluate(
        "async ([module, name, values]) => (await import(`./static/js/${module}.js`))[name](...values)",
        [module, function, arguments],
    )


def test_run_lengths_are_read_as_pycocotools_writes_them(page: Page) -> None:
    generator = np.random.default_rng(5)
    sizes = [(1, 1), (1, 9), (7, 1), (13, 17), (300, 200)]
    maps = [generator.integers(0, 4, size).astype(np.uint16) for size in sizes]
    maps += [np.full((5, 6), label, np.uint16) for label in (0, 1, 3)]
    maps.append(np.repeat(np.repeat(maps[3], 40, 0), 50, 1))  # runs of many digits
    for labels in maps:
        classes = [{"label": label + 1, "rle": rle} for label, rle in enumerate(rles(labels, 3))]
        answer = {"size": {"width": labels.shape[1], "height": labels.shape[0]}, "classes": classes}
        read: list[int] = page.evaluate(
            "async (answer) => Array.from((await import('./static/js/mask.js')).labelMap(answer))", answer
        )
        assert np.array_equal(np.array(read).reshape(labels.shape), labels)


def test_shell_and_python_text_say_exactly_what_was_sent(page: Page) -> None:
    for name in NAMES:
        document = {
            "classes": [name, {"name": "été", "trained": True, "color": "#ff0000"}],
            "outputs": ["rle"],
        }
        picture = {"name": name, "url": None}
        sent = {"url": "http://h:1/v1/segment", "document": document, "picture": picture, "withKey": True}
        words = shlex.split(call(page, "snippets", "curlText", sent).replace("\\\n", " "))
        assert words[:3] == ["curl", "-H", "X-API-Key: $EBSEG_API_KEY"]
        assert json.loads(words[words.index("--form-string") + 1].removeprefix("request=")) == document
        given = words[words.index("-F") + 1].removeprefix("image=@")
        if given.startswith('"'):  # curl undoes backslashes inside of quotes
            given = given[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        assert given == name
        assert words[-1] == sent["url"]

        tree = ast.parse(call(page, "snippets", "pythonText", sent))
        values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        assert ast.literal_eval(values[0]) == document
        assert name in [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def test_suggestions_are_ranked(page: Page) -> None:
    words = ["wall", "stone wall", "wallpaper", "Wall clock", "drywall", "sky"]
    ranked = page.evaluate(
        "async (words) => (await import('./static/js/suggestions.js'))"
        ".rank(words, ' Wall', new Set(['wallpaper']))",
        words,
    )
    assert ranked == ["wall", "Wall clock", "stone wall", "drywall"]


def test_words_of_the_model_come_before_all_others(page: Page) -> None:
    ranked = page.evaluate(
        "async (lists) => (await import('./static/js/suggestions.js')).ranked(lists, 'wall', new Set())",
        [["drywall", "Wall"], ["wall", "wallpaper"], ["wall clock"]],
    )
    assert ranked == ["Wall", "drywall", "wallpaper", "wall clock"]


@pytest.mark.parametrize(
    "text",
    [
        "sky, tree",
        " sky ,\n tree , ",
        '"red, ripe apple", tree',
        '"say ""a"", b",c',
        "red\\, ripe apple, tree",
        "sky\ntree",
        '["a, b", "c"]',
        '{"name": "tree", "synonyms": ["bush"]}',
        "a\\b, c",
        'a"b, c',
    ],
)
def test_lists_are_read_as_the_service_reads_them(page: Page, text: str) -> None:
    entries = [{"name": one} if isinstance(one, str) else one for one in listed([text])]
    assert call(page, "listed", "listed", text) == [one for one in entries if one["name"]]


@pytest.mark.parametrize(
    "text",
    ['"open', '"a" b', "'a, b'", "('a', 'b')", "\u201ca\u201d, b", '["a"', "[1]", '[{"synonyms": []}]'],
)
def test_lists_that_cannot_be_read_are_refused_in_words(page: Page, text: str) -> None:
    told = page.evaluate(
        "async (text) => { try { (await import('./static/js/listed.js')).listed(text); return null; } "
        "catch (error) { return error.message; } }",
        text,
    )
    assert re.search("quotes|JSON|name", told)


def test_names_are_written_so_that_they_are_read_again(page: Page) -> None:
    names = [
        "sky",
        "red, ripe apple",
        'a "b" c',
        "[x]",
        "back\\slash",
        "two\nlines",
        "'x'",
        "\u201cz\u201d",
        "(y)",
    ]
    assert listed([call(page, "listed", "written", names)]) == names


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("sk", ["", "sk"]),
        ("sky, tr", ["sky", "tr"]),
        ("a,b,", ["a,b", ""]),
        ('"red, ri', ["", '"red, ri']),
        ('sky, "red, ri', ["sky", '"red, ri']),
        ('"red, ripe", t', ['"red, ripe"', "t"]),
        ('["a",', ["", '["a",']),
    ],
)
def test_a_comma_ends_a_name_unless_it_belongs_to_it(page: Page, typed: str, parts: list[str]) -> None:
    assert call(page, "listed", "complete", typed) == parts


def test_files_are_short_plain_and_ask_nobody_else() -> None:
    for file in [*STATIC.rglob("*.js"), *STATIC.rglob("*.css"), *STATIC.rglob("*.html")]:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LONGEST, file
        assert "//" not in re.sub(
            r"^\s*// .*|http://www.w3.org|; // .*|{ // .*|, // .*", "", text, flags=re.M
        ), file
        assert "style=" not in text, file
        assert "innerHTML" not in text, file
        assert "eval(" not in text, file


def test_page_without_scripts_says_so(browser: Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(url)
        assert "This page needs JavaScript" in page.inner_text("body")
    finally:
        context.close()
