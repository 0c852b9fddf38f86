"""Files of classes mean what they say, or are refused with their line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UsageError
from service.schemas.class_files import read_class_file
from service.schemas.segment import SegmentRequest
from tests.service.cli_calls import run
from tests.service.fakes import PNG, live

TREE = {"name": "red, ripe apple", "synonyms": ["apple", "fruit"], "trained": True, "color": "#ff0000"}
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1)
# each file holds the same list: "sky", and "red, ripe apple" as far as its form has more than names
SAME: dict[str, tuple[str, list[Any]]] = {
    "lines.txt": ("# fruit\nsky\n\n  red, ripe apple  \n#end", ["sky", "red, ripe apple"]),
    "quoted.txt": ('\ufeff"sky"\r\n"red, ripe apple"\r\n', ["sky", "red, ripe apple"]),
    "none": ("sky\nred, ripe apple", ["sky", "red, ripe apple"]),
    "one.csv": ('sky\n"red, ripe apple"\n', ["sky", "red, ripe apple"]),
    "one_header.CSV": ('Name\nsky\n"red, ripe apple"\n', [{"name": "sky"}, {"name": "red, ripe apple"}]),
    "all.csv": (
        "color,name, synonyms,trained,threshold,ignore\n,sky,,no,0.5,TRUE\n\n"
        '#ff0000,"red, ripe apple",apple; fruit,true,,\n',
        [{"name": "sky", "trained": False, "threshold": 0.5, "ignore": True}, TREE],
    ),
    "list.json": (json.dumps(["sky", TREE]), ["sky", TREE]),
    "object.json": (json.dumps({"classes": ["sky", TREE]}), ["sky", TREE]),
    "data_set.json": (json.dumps({"title": "a", "ignore": 255, "classes": [TREE]}), [TREE]),
}
WRONG: dict[str, tuple[str, str]] = {
    "empty.txt": ("# nothing\n\n", "holds no class"),
    "empty.csv": ("name\n", "holds no class"),
    "two.txt": ('sky\n"tree", "road"', "line 2: 2 names in quotes"),
    "open.txt": ('"sky', "line 1: a value in double quotes ends with one"),
    "wide.csv": ("sky\nred, ripe apple\n", "line 2: several columns need a header row of name, synonyms"),
    "semicolons.csv": ("name;color\nsky;#ff0000\n", "with commas between"),
    "unknown.csv": ("id,name\n1,sky\n", "line 1: there is no column 'id'; known are name, synonyms"),
    "twice.csv": ("name,name\nsky,tree\n", "line 1: a column comes twice"),
    "long.csv": ("name,trained\nsky,true,3\n", "line 2: 3 cells below 2 columns"),
    "flag.csv": ("name,trained\nsky,maybe\n", "line 2: 'maybe' is neither true nor false"),
    "number.csv": ("name,threshold\nsky,high\n", "line 2: 'high' is no number"),
    "open.csv": ('name\n"sky\n', "line 2: unexpected end of data"),
    "none.json": ("{", "is no JSON"),
    "text.json": ('"sky"', 'must hold {"classes": [...]} or a list'),
    "more.json": ('{"classes": ["sky"], "background": null}', "holds background, which is no part"),
}


@pytest.mark.parametrize("name", SAME)
def test_files_say_the_same_in_each_form(name: str, tmp_path: Path) -> None:
    text, expected = SAME[name]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    entries = read_class_file(tmp_path / name)
    assert entries == expected
    assert len(SegmentRequest(classes=entries).listed) == len(expected)


@pytest.mark.parametrize("name", WRONG)
def test_files_that_could_mean_something_else_are_refused(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_class_file(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} ")
    assert message in str(caught.value)


def test_bytes_that_are_no_text_or_too_many(tmp_path: Path) -> None:
    for data, message in ((b"\xff\xfes\0k\0y\0", "no text in UTF-8"), (b"a\n" * (9 << 20), "16 MiB")):
        (tmp_path / "a.txt").write_bytes(data)
        with pytest.raises(UsageError, match=message):
            read_class_file(tmp_path / "a.txt")


@given(st.lists(NAMES, min_size=1))
def test_every_name_can_be_written_as_csv(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "names.csv"
    rows = ['"' + name.replace('"', '""') + '"' for name in names]
    path.write_text("\n".join(["name", *rows]), encoding="utf-8")
    assert [one["name"] for one in read_class_file(path)] == names


def test_commands_take_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, photo = tmp_path / "classes.csv", tmp_path / "a.png"
    file.write_text('name,synonyms,color\nsky,,\n"red, ripe apple",apple; fruit,#ff0000\n')
    photo.write_bytes(PNG)
    with live() as (url, _):
        assert run("segment", photo, "--classes-file", file, "--url", url, "--json") == 0
        _, apple = json.loads(capsys.readouterr().out)["classes"]
        assert (apple["name"], apple["color"]) == ("red, ripe apple", "#ff0000")
        assert run("vocabularies", "put", "mine", "--classes-file", file, "--url", url, "--json") == 0
        stored = json.loads(capsys.readouterr().out)["classes"]
        assert [one["synonyms"] for one in stored] == [[], ["apple", "fruit"]]
    file.write_text("name,trained\nsky,maybe\n", encoding="utf-8")
    for words in (("segment", photo), ("batch", tmp_path, "--out", tmp_path / "o")):
        assert run(*words, "--classes-file", file) == 2
        assert "line 2: 'maybe' is neither true nor false" in capsys.readouterr().err
    file.write_text("\n".join(f"thing {index}" for index in range(1203)), encoding="utf-8")
    assert run("segment", photo, "--classes-file", file) == 2
    assert "1203 classes are too many; at most 1024 are taken (setting max_c" in capsys.readouterr().err
