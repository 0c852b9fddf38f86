"""Reading a registry: what counts as a version, at a folder and in an object store."""

import dataclasses
import json
import os
import shutil
import uuid
from pathlib import Path

import pytest

from model.errors import CheckpointError, UnfinishedError
from model.storage.checkpoint import Provenance, load, save
from model.storage.manifest import FILES, GOLDEN, MANIFEST
from model.storage.verify import verify
from model.storage.versions import StoreError, Versions, version_number
from tests.training.publishing.publish_runs import small_ebseg


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry folder with versions 1, 2 and 10, and much else."""
    place = tmp_path_factory.mktemp("registry") / "tiny"
    for number in (1, 2, 10):
        save(
            small_ebseg(),
            place / str(number),
            Provenance(name="tiny", version=number, untrained=False, metrics={"n": number}),
        )
    (place / "11").mkdir()
    (place / "11" / "model.safetensors").touch()
    for name in ("03", "0", "-4", "1.5", "x", ".12.partial", "\u0663"):
        shutil.copytree(place / "1", place / name, copy_function=os.link)
    (place / "20").touch()
    return place


@pytest.fixture(params=["path", "file", "memory"])
def versions(request: pytest.FixtureRequest, saved: Path, tmp_path: Path) -> Versions:
    """The same registry at three kinds of places, to be damaged at will."""
    place = tmp_path / "tiny"
    shutil.copytree(saved, place, copy_function=os.link)
    if request.param == "path":
        return Versions(place)
    if request.param == "file":
        return Versions(place.as_uri() + "/")
    found = Versions(f"memory://{uuid.uuid4().hex}/tiny")
    found.fs.put(f"{place}/", found.root, recursive=True)
    return found


def overwrite(versions: Versions, path: str, content: bytes) -> None:
    versions.fs.rm(path)  # a link
    versions.fs.pipe_file(path, content)


def test_versions_are_folders_with_a_manifest(versions: Versions) -> None:
    assert versions.name == "tiny"
    assert versions.numbers() == [1, 2, 10]
    newest = versions.newest()
    assert newest is not None
    assert newest == versions.check(10)
    assert newest.version == 10
    assert versions.metrics(2) == {"n": 2}


def test_fetched_version_loads(versions: Versions, tmp_path: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}
    target = tmp_path / "deep" / "fetched"
    manifest = versions.fetch(2, target, lambda step, done, total: steps.update({step: (done, total)}))
    assert manifest == verify(target) == versions.check(2)
    assert load(target).metrics == {"n": 2}
    fetching = set() if versions.folder else {"fetching model.safetensors"}  # a local copy is too quick
    assert {"hashing model.safetensors", *fetching} <= steps.keys()
    assert all(done == total > 0 for done, total in steps.values())
    with pytest.raises(CheckpointError, match="exists already"):
        versions.fetch(1, target)


@pytest.mark.parametrize("name", FILES)
def test_wrong_size_or_missing_file_is_no_version(
    versions: Versions, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{versions.path(10)}/{name}"
    overwrite(versions, path, b"short")
    with pytest.raises(CheckpointError, match=rf"/10: {name} has 5 of its \d+ bytes"):
        versions.check(10)
    versions.fs.rm(path)
    with pytest.raises(CheckpointError, match=rf"/10: {name} is missing"):
        versions.check(10)
    newest = versions.newest()
    assert newest is not None
    assert newest.version == 2
    assert any("passed over" in message for message in caplog.messages)


def test_damaged_content_is_found_when_fetched(versions: Versions, tmp_path: Path) -> None:
    path = f"{versions.path(10)}/golden.safetensors"
    content = versions.read(path)
    overwrite(versions, path, content[:-1] + bytes([content[-1] ^ 1]))
    assert versions.check(10).version == 10
    with pytest.raises(CheckpointError, match=r"golden\.safetensors does not match its sha256"):
        versions.fetch(10, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    metrics = f"{versions.path(10)}/metrics.json"
    overwrite(versions, metrics, versions.read(metrics).replace(b"10", b"99"))
    with pytest.raises(CheckpointError, match=r"metrics\.json does not match its sha256"):
        versions.metrics(10)


def test_manifest_has_to_be_of_its_place(versions: Versions) -> None:
    manifest = versions.check(10)
    path = f"{versions.path(10)}/{MANIFEST}"
    for changed, found in (({"version": 9}, "tiny version 9"), ({"name": "other"}, "other version 10")):
        overwrite(versions, path, dataclasses.replace(manifest, **changed).to_json().encode())
        with pytest.raises(CheckpointError, match=f"/10: {MANIFEST} is of {found}"):
            versions.check(10)
    overwrite(versions, path, json.dumps(manifest.to_dict()).encode())
    with pytest.raises(CheckpointError, match=r"/10: manifest\.json: content and seal do not match"):
        versions.check(10)


def test_extra_files_and_absent_versions(versions: Versions, tmp_path: Path) -> None:
    versions.fs.pipe_file(f"{versions.path(1)}/optimizer.pt", b"x")
    with pytest.raises(CheckpointError, match=r"/1: unexpected files: optimizer\.pt"):
        versions.check(1)
    for number in (3, 11):
        with pytest.raises(
            CheckpointError, match=f"/{number} has no manifest.json: there is no such version"
        ):
            versions.fetch(number, tmp_path / "x")


def test_fingerprints_change_with_all_that_lies_there(versions: Versions) -> None:
    assert versions.candidates()[:4] == [1, 2, 10, 11]  # 11 has no manifest yet
    seen = [versions.fingerprint(number) for number in (1, 2, 10, 11)]
    assert seen == [versions.fingerprint(number) for number in (1, 2, 10, 11)]
    assert versions.fingerprint(3) is None
    folder = versions.path(10)
    content = versions.read(f"{folder}/{GOLDEN}")
    other = bytes([content[0] ^ 1]) + content[1:]
    changes = ((GOLDEN, other), (GOLDEN, content), (MANIFEST, b"{}"), ("more", b"x"), ("more", b"xx"))
    for path, data in changes:
        if versions.fs.exists(f"{folder}/{path}"):
            versions.fs.rm(f"{folder}/{path}")
        versions.fs.pipe_file(f"{folder}/{path}", data)
        seen.append(versions.fingerprint(10))
    assert len(set(seen)) == len(seen)
    assert None not in seen


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ({MANIFEST: b""}, UnfinishedError),
        ({MANIFEST: b'{"schema": 2, "na'}, UnfinishedError),
        ({MANIFEST: bytes(800)}, UnfinishedError),
        ({MANIFEST: b"{}"}, CheckpointError),
        ({GOLDEN: b"", ".config.json.Wq3b1x": b"half"}, UnfinishedError),
        ({GOLDEN: bytes(1 << 16)}, CheckpointError),
        ({".config.json.Wq3b1x": b"half"}, CheckpointError),
    ],
)
def test_what_a_copy_passes_through_is_told_from_damage(
    versions: Versions, damage: dict[str, bytes], kind: type[Exception]
) -> None:
    for name, content in damage.items():
        path = f"{versions.path(10)}/{name}"
        if versions.fs.exists(path):
            versions.fs.rm(path)  # a link
        versions.fs.pipe_file(path, content)
    with pytest.raises(CheckpointError) as raised:
        versions.check(10)
    assert type(raised.value) is kind
    if versions.folder is not None:
        with pytest.raises(CheckpointError) as raised:
            verify(versions.folder / "10")
        assert type(raised.value) is kind


def test_a_store_that_does_not_answer_is_not_a_damaged_version(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ConnectionError("connection lost")

    for name in ("ls", "cat_file", "get_file"):
        with monkeypatch.context() as patch:
            patch.setattr(versions.fs, name, lost)
            with pytest.raises(StoreError, match="/tiny: ConnectionError: connection lost"):
                versions.fetch(10, tmp_path / "fetched")
            if name != "get_file":
                with pytest.raises(StoreError):
                    versions.newest()
    versions.fs.rm(f"{versions.path(10)}/{FILES[0]}")
    with pytest.raises(CheckpointError, match="missing") as raised:
        versions.fetch(10, tmp_path / "fetched")
    assert not isinstance(raised.value, StoreError)
    with pytest.raises(CheckpointError, match="FileNotFoundError") as raised:
        versions.read(f"{versions.path(3)}/{MANIFEST}")
    assert not isinstance(raised.value, StoreError)


def test_an_empty_place_has_no_versions(tmp_path: Path) -> None:
    for place in (tmp_path / "none" / "tiny", f"memory://{uuid.uuid4().hex}/tiny"):
        versions = Versions(place)
        assert versions.entries() == set()
        assert versions.numbers() == []
        assert versions.newest() is None


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("oss://bucket/tiny", "oss://bucket/tiny: .*ossfs.*needed for this kind of registry"),
        ("nowhere://bucket/tiny", "nowhere://bucket/tiny: ValueError: Protocol not known"),
        ("registry/no name", "a model's name must be"),
        ("", "name a model's place, REGISTRY/NAME"),
        ("/", "name a model's place, REGISTRY/NAME"),
    ],
)
def test_unusable_places(location: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        Versions(location).check(1)


def test_version_numbers() -> None:
    assert [version_number(name) for name in ("1", "10", "0", "01", "x", "", "\u0663", "-1")] == [
        1,
        10,
        *[None] * 6,
    ]
