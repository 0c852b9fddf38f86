"""Manifests: nothing but what was sealed is read, and of that nothing but what makes sense."""

import json
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage import manifest
from model.storage.manifest import FILES, FileEntry, Manifest, files_digest, json_object, to_json

ENTRIES = {name: FileEntry(sha256=f"{number:064x}", bytes=number) for number, name in enumerate(FILES)}


def valid(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "ebseg-tiny",
        "version": 3,
        "variant": "tiny",
        "untrained": True,
        "files": ENTRIES,
        "digest": files_digest(ENTRIES),
        "text_digest": "b" * 64,
        "parent": None,
        "created": "2025-01-02T03:04:05+00:00",
        "training": {"note": "gr\u00fcn"},
    }
    return Manifest(**values | changes)


def sealed(values: dict[str, Any]) -> str:
    return json.dumps(values | {"seal": manifest._seal(values)})


def test_round_trip() -> None:
    assert Manifest.from_json(valid().to_json()) == valid()
    assert json.loads(valid().to_json())["schema"] == 2


def test_notes_come_back_as_json_has_them() -> None:
    text = valid(training={"crop": (640, 640), 10: "a", 9: "b"}).to_json()
    assert Manifest.from_json(text).training == {"crop": [640, 640], "10": "a", "9": "b"}


def test_any_flipped_bit_is_found() -> None:
    content = valid(training={}).to_json().encode()  # no escapes, in which JSON ignores letters' case
    for place in range(len(content)):
        for bit in (1, 32, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            with pytest.raises(CheckpointError, match=r"manifest\.json"):
                Manifest.from_json(bytes(damaged))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"text"', "\x00", b"\xff\xfe\xfd", "[" * 100_000, "{}"]
)
def test_garbage_is_refused(text: str | bytes) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("schema", 3, "schema 3 is unknown, this ebseg reads schemas 1 and 2"),
        ("schema", "1", "schema '1' is unknown"),
        ("schema", True, "schema True is unknown"),
        ("license", 3, r"\.license must be of type str, got 3"),
        ("license", "", "a licence is written as SPDX does"),
        ("license", "MIT, Apache", "a licence is written as SPDX does"),
        ("license", ..., r"missing or unknown fields \['license'\]"),
        ("card", [], r"\.card must be an object, got \[\]"),
        ("card", {}, r"\.card: field 'domain' is missing"),
        ("name", "../up", "a model's name must be"),
        ("name", 3, r"\.name must be of type str, got 3"),
        ("version", 0, "a version must be"),
        ("version", True, r"\.version must be of type int, got True"),
        ("version", "1", r"\.version must be of type int, got '1'"),
        ("untrained", None, r"\.untrained must be of type bool, got None"),
        ("parent", 7, r"\.parent must be of type str, got 7"),
        ("created", "yesterday", "created is no ISO time"),
        ("digest", "0" * 64, "digest does not match"),
        ("files", {}, "files must be"),
        ("files", {"model.safetensors": 3}, r"files\.model\.safetensors must be an object, got 3"),
        (
            "files",
            {"model.safetensors": {"sha256": "0" * 64, "bytes": 1.5}},
            r"files\.model\.safetensors\.bytes must be of type int, got 1\.5",
        ),
        ("training", [], r"\.training must be an object, got \[\]"),
        ("surprise", 1, r"missing or unknown fields \['surprise'\]"),
        ("text_digest", ..., r"missing or unknown fields \['text_digest'\]"),
    ],
)
def test_well_sealed_nonsense_is_refused(field: str, value: object, reason: str) -> None:
    values = valid().to_dict()
    if value is ...:
        del values[field]
    else:
        values[field] = value
    with pytest.raises(CheckpointError, match=reason):
        Manifest.from_json(sealed(values))


@pytest.mark.parametrize(("sha256", "size"), [("0" * 63, 1), ("G" * 64, 1), ("0" * 64, -1)])
def test_malformed_entries_are_refused(sha256: str, size: int) -> None:
    values = valid().to_dict()
    values["files"]["config.json"] = {"sha256": sha256, "bytes": size}
    with pytest.raises(CheckpointError, match="sha256 or size is malformed"):
        Manifest.from_json(sealed(values))


def test_paths_out_of_the_folder_are_refused() -> None:
    values = valid().to_dict()
    values["files"]["../../secret"] = values["files"].pop("golden.safetensors")
    with pytest.raises(CheckpointError, match="files must be"):
        Manifest.from_json(sealed(values))


def test_digest_depends_on_every_file_and_on_no_order() -> None:
    digests = {files_digest(ENTRIES | {name: FileEntry(sha256="f" * 64, bytes=1)}) for name in FILES}
    assert len(digests | {files_digest(ENTRIES)}) == len(FILES) + 1
    assert files_digest(dict(reversed(ENTRIES.items()))) == files_digest(ENTRIES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        to_json({"value": value})


def test_json_errors_name_their_source() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        json_object("{'a': 1}", "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json must hold a JSON object, got a list"):
        json_object("[]", "config.json")
