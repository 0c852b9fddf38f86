"""`ebseg models` and `ebseg vocabularies` against a running service."""

import json
import re
from pathlib import Path

import pytest

from tests.service.cli_calls import run
from tests.service.fakes import INFO
from tests.service.scripted_server import Answer, scripted

DETAILS = {
    "name": "ebseg-base",
    "version": 4,
    "digest": "d" * 64,
    "untrained": True,
    "variant": "base",
    "device": "cuda:0",
    "dtype": "bfloat16",
    "license": "MIT AND Apache-2.0",
    "card": {"domain": "photographs", "words": ["sky"], "threshold": 0.4, "threshold_note": "measured"},
    "default": True,
    "policy": "latest",
    "pinned": 4,
    "asked": {
        "revision": 7,
        "policy": "canary",
        "version": 3,
        "canary": 4,
        "percent": 10,
        "changed_by": "night-shift",
        "changed_at": "2026-01-02T03:04:08Z",
        "obeyed": False,
    },
    "versions": [
        {
            "version": 4,
            "digest": "d" * 64,
            "untrained": True,
            "variant": "base",
            "device": "cuda:0",
            "dtype": "bfloat16",
            "role": "current",
            "in_flight": 2,
            "loaded_at": "2026-01-02T03:04:05Z",
            "load_seconds": 1.25,
        }
    ],
    "unfinished": [{"version": 6, "reason": "config.json is missing", "since": "2026-01-02T03:04:07Z"}],
    "quarantined": [{"version": 5, "reason": "damaged", "since": "2026-01-02T03:04:06Z"}],
    "last_error": "no route to host",
    "last_checked_at": "2026-01-02T03:04:07Z",
}
DONE = "version 4 serves, and stays until unpinned"


def test_models_of_a_service(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "list", "--url", url) == 0
    output = capsys.readouterr().out
    assert "fake (default)" in output
    assert "fixed" in output
    assert run("models", "list", "--url", url, "--json") == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["version"], model["digest"]) == ("fake", 3, INFO.digest)
    assert run("models", "show", "fake", "--url", url, "--json") == 0
    assert json.loads(capsys.readouterr().out) == model
    assert run("models", "show", "fake", "--url", url) == 0
    assert INFO.digest in capsys.readouterr().out


def test_everything_that_a_model_may_tell(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(Answer(body=DETAILS)) as server:
        assert run("models", "show", "ebseg-base", "--url", server.url) == 0
        shown = capsys.readouterr().out
        assert run("models", "show", "ebseg-base", "--url", server.url, "--json") == 0
        document = json.loads(capsys.readouterr().out)
    assert "MIT AND Apache-2.0" in shown
    output = "canary version 3 canary 4 percent 10, by night-shift at 2026-01-02 03:04:08 UTC, revision 7"
    assert f"{output}; NOT SO HERE" in " ".join(shown.split())
    for text in (
        "UNTRAINED",
        "pinned to 4",
        "no route to host",
        "damaged",
        "config.json is missing",
        "2026-01-02 03:04:05",
        "1.2 s",
    ):
        assert text in shown
    assert document["quarantined"][0]["since"] == "2026-01-02T03:04:06+00:00"
    assert document.keys() == DETAILS.keys()
    assert (document["license"], document["card"]) == (DETAILS["license"], DETAILS["card"])
    with scripted(Answer(body={"models": [DETAILS, DETAILS | {"default": False, "pinned": None}]})) as server:
        assert run("models", "list", "--url", server.url) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "not serving" not in listed
    with scripted(Answer(body={"models": [], "missing": [{"name": "other", "reason": "away"}]})) as server:
        assert run("models", "list", "--url", server.url) == 0
        assert re.search(r"not serving.*other\W+away", capsys.readouterr().out, re.DOTALL)
        assert run("models", "list", "--url", server.url, "--json") == 0
        assert json.loads(capsys.readouterr().out)["missing"] == [{"name": "other", "reason": "away"}]
    for text in ("4, UNTRAINED", "pinned to 4", "latest", "bfloat16", "failing:"):
        assert text in listed


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (("pin", "ebseg-base", "4"), "/v1/models/ebseg-base:pin", b'{"version":4}'),
        (
            ("canary", "ebseg-base", "4", "--percent", "20"),
            "/v1/models/ebseg-base:canary",
            b'{"version":4,"percent":20}',
        ),
        (("unpin", "ebseg-base"), "/v1/models/ebseg-base:unpin", b""),
        (("rollback", "ebseg-base"), "/v1/models/ebseg-base:rollback", b""),
        (("reload", "ebseg-base"), "/v1/models/ebseg-base:reload", b""),
    ],
)
def test_changes(
    words: tuple[str, ...],
    path: str,
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EBSEG_API_KEY", "the admin key 123")
    with scripted(Answer(body={"done": DONE, "model": DETAILS})) as server:
        assert run("models", *words, "--url", server.url) == 0
        assert capsys.readouterr().out == f"ebseg-base: {DONE}\n"
        assert run("models", *words, "--url", server.url, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        first, _ = server.heard
    assert (document["done"], document["model"]["version"]) == (DONE, 4)
    assert (first.method, first.path, first.body) == ("POST", path, body)
    assert first.headers["authorization"] == "Bearer the admin key 123"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("models", "show", "nothing"), 2, "[404]"),
        (("models", "rollback", "fake"), 2, "administration is off"),
        (("vocabularies", "show", "nothing"), 2, "[404]"),
        (("vocabularies", "delete", "voc-20"), 2, "[409]"),
        (("vocabularies", "put", "Bad Name", "--classes", "sky"), 2, "[422]"),
        (("vocabularies", "put", "mine", "--classes", "sky,sky"), 2, "given twice"),
    ],
)
def test_refusals(
    words: tuple[str, ...], code: int, message: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--url", url) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"ebseg: error: {url}: ")
    assert message in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_service_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted() as server:
        pass
    assert run("models", "list", "--url", server.url, "--timeout", "2") == 1
    output = capsys.readouterr().err
    assert "Connection refused" in output
    assert output.endswith(". Does `ebseg serve` run there?\n")
    assert run("models", "list", "--url", "localhost:8000") == 2
    assert "http://HOST:PORT" in capsys.readouterr().err


def test_vocabularies_of_a_service(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = ("--url", url)
    assert (
        run("vocabularies", "put", "harbour", "--classes", "boat, water", "--classes", "quay", *service) == 0
    )
    assert capsys.readouterr().out == "stored harbour, 3 classes\n"
    assert run("vocabularies", "list", *service) == 0
    assert "harbour" in capsys.readouterr().out
    assert run("vocabularies", "list", *service, "--json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["vocabularies"]}
    stored = {"name": "harbour", "size": 3, "builtin": False, "shared": True, "owner": None}
    assert listed["harbour"] == stored
    assert listed["ade20k-150"]["builtin"] is True

    file = tmp_path / "classes.json"
    tree = {"name": "tree", "synonyms": ["bush"], "trained": True, "color": "#00ff00", "threshold": 0.5}
    for content in ({"classes": ["sky", tree]}, ["sky", tree]):
        file.write_text(json.dumps(content))
        assert run("vocabularies", "put", "harbour", "--file", file, *service, "--json") == 0
        stored = json.loads(capsys.readouterr().out)
        assert stored["classes"] == [
            {
                "name": "sky",
                "synonyms": [],
                "trained": None,
                "color": None,
                "threshold": None,
                "ignore": False,
            },
            tree | {"ignore": False},
        ]
    assert run("vocabularies", "show", "harbour", *service) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("tree", "bush", "#00ff00", "trained", "by its words"))
    lines = tmp_path / "classes.txt"
    lines.write_text("sky\n\n tree, with birds \n", encoding="utf-8")
    assert run("vocabularies", "put", "harbour", "--file", lines, *service, "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["classes"]] == [
        "sky",
        "tree, with birds",
    ]

    assert run("vocabularies", "delete", "harbour", *service, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": "harbour"}
    assert run("vocabularies", "delete", "harbour", *service) == 2
    assert "[404]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "classes.json cannot be read: No such file or directory\n"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"{", "is no JSON"),
        (b"3", 'must hold {"classes": [...]} or a list'),
        (b'{"names": []}', 'must hold {"classes": [...]} or a list'),
        (b'["sky", {"nam": "tree"}]', "class 1 must be a name"),
        (b"[3]", "class 0 must be a name"),
    ],
)
def test_files_of_classes_that_cannot_be_used(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "classes.json"
    if content is not None:
        file.write_bytes(content)
    assert run("vocabularies", "put", "mine", "--file", file) == 2
    assert message in capsys.readouterr().err
