"""A list that is written as text means the same in forms, JSON documents, stored lists and commands."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.schemas.lists import MOST_TEXT, MOST_VALUES, listed
from service.schemas.segment import SegmentRequest
from tests.service.cli_calls import run
from tests.service.fakes import PNG, fields, live, problem, running
from tests.service.scripted_server import Answer, scripted

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(lambda name: name.strip())
# each is one list, ["red, ripe apple", "tree"] but for the last, and ways to write it
WRITTEN: dict[str, list[Any]] = {
    '"red, ripe apple", tree': ["red, ripe apple", "tree"],
    "red\\, ripe apple,tree": ["red, ripe apple", "tree"],
    '["red, ripe apple", "tree"]': ["red, ripe apple", "tree"],
    ' ["red, ripe apple","tree"] ': ["red, ripe apple", "tree"],
    '"red, ripe apple"\ntree\n': ["red, ripe apple", "tree"],
    "sky, tree": ["sky", "tree"],
    "sky,\n tree\r\n": ["sky", "tree"],
    '["sky"]': ["sky"],
    '"sky"': ["sky"],
    '5" nail, screw': ['5" nail', "screw"],
    "'80s car, dog's bed": ["'80s car", "dog's bed"],
    '"a ""big"" dog"': ['a "big" dog'],
    '"red; ripe", salt &amp; pepper, end;': ["red; ripe", "salt &amp; pepper", "end;"],
    "\tsky\t,tree\t": ["sky", "tree"],
    '["sky", {"name": "tree", "synonyms": ["bush"]}]': ["sky", {"name": "tree", "synonyms": ["bush"]}],
    '{"name": "tree", "trained": true}': [{"name": "tree", "trained": True}],
}
BROKEN = [
    "'sky', 'tree'",
    "sky, 'red, ripe' , tree",
    "('sky', 'tree')",
    '("sky", "tree")',
    '["sky", "tree"',
    "[sky, tree]",
    '"sky',
    '"sky" and, tree',
    '{"name": ',
    "sky; tree",
    "sky;tree, road",
    "road, sky|tree",
    "sky\ttree",
    "sky，tree",
    "sky、tree",
    "سماء، شجرة",
    "[" * 100_000,
]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_text_is_a_list(text: str) -> None:
    assert listed([text]) == WRITTEN[text]
    assert listed(["one", text, "two, three"]) == ["one", *WRITTEN[text], "two", "three"]


@given(st.lists(NAMES, min_size=1))
def test_every_name_can_be_written(names: list[str]) -> None:
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    assert listed([quoted]) == names
    assert listed([json.dumps(names)]) == names


@given(st.text())
def test_every_text_is_a_list_or_one_error(text: str) -> None:
    try:
        values = listed([text])
    except ValueError:
        assert text.lstrip().startswith(("[", "{")) or set(text) & set("\"';|\t，、،；؛")
    else:
        assert all(isinstance(value, str) for value in values) or text.lstrip().startswith(("[", "{"))


@pytest.mark.parametrize("text", BROKEN)
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON, as in|ends with one|quotes or in none|have commas between"):
        listed([text])


@pytest.mark.parametrize(
    "text", ["," * MOST_VALUES * 2, "\n" * MOST_VALUES * 2, "[" + "1," * MOST_VALUES * 2 + "1]"]
)
def test_too_many_values_are_refused_before_they_are_made(text: str) -> None:
    with pytest.raises(ValueError, match="too many values"):
        listed([text])
    with pytest.raises(ValueError, match="too many values"):
        listed(["," * (MOST_VALUES // 2)] * 3)


@pytest.mark.parametrize("piece", ["'a", "\\", 'a""', " "])
def test_a_text_that_is_no_list_of_names_by_its_length_is_refused_unread(piece: str) -> None:
    """One of 14 MB held the interpreter for eight seconds, and no other thread ran."""
    text = piece * (MOST_TEXT // len(piece)) + "a" * 9
    with pytest.raises(ValueError, match=r"in at most 2097152 characters, this text has 20971[56]."):
        listed([text])


def test_the_longest_list_of_names_is_read() -> None:
    longest = ",".join('"' + '""' * 200 + '"' for _ in range(4096))
    assert listed([longest]) == ['"' * 200] * 4096


@pytest.mark.anyio
async def test_forms_documents_and_stored_lists_read_it_alike() -> None:
    async with running() as (client, _):
        for text, values in WRITTEN.items():
            expected = SegmentRequest(classes=values).classes
            image = [("image", PNG)]
            form = await client.post("/v1/segment", files=image, data={"classes": text})
            part = await client.post(
                "/v1/segment", files=image, data={"request": json.dumps({"classes": text})}
            )
            stored = await client.put("/v1/vocabularies/mine", json={"classes": text})
            assert expected is not None
            names = [one.name for one in expected]
            for answer in (form, part):
                assert answer.status_code == 200, answer.text
                assert [one["name"] for one in answer.json()["classes"]] == names
            assert [one["name"] for one in stored.json()["classes"]] == names
        repeated = await client.post(
            "/v1/segment",
            files=[("image", PNG), *(("classes", (None, text)) for text in ("a, b", '["c, d"]', '"e, f"'))],
        )
        assert [one["name"] for one in repeated.json()["classes"]] == ["a", "b", "c, d", "e, f"]


@pytest.mark.anyio
async def test_outputs_and_templates_of_a_form() -> None:
    async with running() as (client, _):
        data = {"classes": "a", "outputs": '["rle", "npy"]', "templates": '["a {}, large", "the {}."]'}
        answer = await client.post("/v1/segment", files={"image": PNG}, data=data)
        assert answer.status_code == 200
        assert {"npy"} <= answer.json().keys()
        assert "rle" in answer.json()["classes"][0]
        wrong = await client.post("/v1/segment", files={"image": PNG}, data=data | {"templates": "[no json"})
        odd = await client.post("/v1/segment", files={"image": PNG}, data=data | {"templates": "[3]"})
        assert set(fields(problem(wrong, 422))) == {"templates"}
        assert set(fields(problem(odd, 422))) == {"templates"}


@pytest.mark.anyio
async def test_what_cannot_be_read_is_told_with_its_field() -> None:
    async with running() as (client, _):
        for text in BROKEN:
            form = await client.post("/v1/segment", files={"image": PNG}, data={"classes": text})
            whole = await client.post("/v1/vocabularies/mine", json={"classes": text})
            assert whole.status_code == 405
            put = await client.put("/v1/vocabularies/mine", json={"classes": text})
            for answer in (form, put):
                (message,) = fields(problem(answer, 422)).values()
                assert "as in" in message
        files: list[Any] = [("image", PNG), ("classes", ("a.txt", b"sky")), ("classes", (None, "tree"))]
        mixed = problem(await client.post("/v1/segment", files=files), 422)
        assert fields(mixed) == {"classes": "must be text, not a file"}


def test_commands_read_it_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(PNG)
    text = '["red, ripe apple", {"name": "tree", "color": "#00ff00"}]'
    with live() as (url, _):
        for words in ((text,), ('"red, ripe apple", tree',), ("red\\, ripe apple", "--classes", "tree")):
            assert run("segment", picture, "--classes", *words, "--url", url, "--json") == 0
            document = json.loads(capsys.readouterr().out)
            assert [one["name"] for one in document["classes"]] == ["red, ripe apple", "tree"]
            assert run("vocabularies", "put", "mine", "--classes", *words, "--url", url, "--json") == 0
            stored = json.loads(capsys.readouterr().out)
            assert [one["name"] for one in stored["classes"]] == ["red, ripe apple", "tree"]
        assert run("segment", picture, "--classes", text, "--url", url, "--json") == 0
        assert json.loads(capsys.readouterr().out)["classes"][1]["color"] == "#00ff00"
    commands: list[tuple[object, ...]] = [
        ("segment", picture),
        ("batch", tmp_path, "--out", tmp_path / "o"),
        ("vocabularies", "put", "m"),
    ]
    for command in commands:
        assert run(*command, "--classes", '["sky"') == 2
        assert "--classes: a list in brackets is JSON" in capsys.readouterr().err
    with scripted(Answer()) as server:
        assert run("segment", picture, "--classes", '[{"nam": "sky"}]', "--url", server.url) == 2
    assert "--classes: class 0 must be a name, or an object" in capsys.readouterr().err
    assert server.heard == []
