"""What the settings ask for, versions as the registry has them, and the folder of fetched ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import CheckpointError
from model.storage.files import silent
from model.storage.manifest import MANIFEST
from model.storage.verify import verify
from model.storage.versions import StoreError, Versions
from service.hot_loading.registry import Cache, Policy, RegistryModel, chosen_models, sources
from service.settings import Settings, SettingsError
from tests.service.hot_loading.model_fakes import connection_lost, memory_url, publish, remove


def test_models_and_their_policies() -> None:
    chosen = chosen_models("ebseg-base, b.2@3,c_@canary:10 , d@latest")
    assert chosen == {
        "ebseg-base": Policy(kind="latest"),
        "b.2": Policy(kind="pinned", version=3),
        "c_": Policy(kind="canary", percent=10),
        "d": Policy(kind="latest"),
    }
    assert next(iter(chosen)) == "ebseg-base"
    assert [str(policy) for policy in chosen.values()] == ["latest", "pinned", "canary:10", "latest"]


@pytest.mark.parametrize(
    ("text", "entry", "reason"),
    [
        ("a,", "''", "a model's name must be"),
        ("../a", "'../a'", "a model's name must be"),
        ("a,b@", "'b@'", "there must be a version from 1 up, latest, or canary:PERCENT"),
        ("a@0", "'a@0'", "there must be a version"),
        ("a@-1", "'a@-1'", "there must be a version"),
        ("a@1.5", "'a@1.5'", "there must be a version"),
        ("a@\u0663", "'a@\u0663'", "there must be a version"),
        ("a@newest", "'a@newest'", "there must be a version"),
        ("a@canary", "'a@canary'", "there must be a version"),
        ("a@canary:0", "'a@canary:0'", "with 1 to 100"),
        ("a@canary:101", "'a@canary:101'", "with 1 to 100"),
        ("a,b,a@2", "'a@2'", "a is named twice"),
    ],
)
def test_unusable_entries_are_named(text: str, entry: str, reason: str) -> None:
    with pytest.raises(SettingsError) as raised:
        chosen_models(text)
    assert str(raised.value).startswith(f"model: {entry}: ")
    assert reason in str(raised.value)


@pytest.mark.parametrize("registry", ["oss://bucket", "nowhere://bucket"])
def test_unusable_registries_are_settings_errors(registry: str) -> None:
    with pytest.raises(SettingsError, match=r"^registry: .*bucket/a: "):
        sources(Settings(registry=registry, model="a"))


def test_registry_without_models() -> None:
    settings = Settings(registry="there", model="a").model_copy(update={"model": None})
    with pytest.raises(SettingsError, match="model has to say what to serve"):
        sources(settings)
    assert sources(Settings()) == ({}, None)


def test_only_remote_registries_need_a_folder(tmp_path: Path) -> None:
    assert sources(Settings(registry=str(tmp_path), model="a"))[1] is None
    assert sources(Settings(registry="memory://x", model="a"))[1] is not None


@pytest.fixture(params=["folder", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "registry") if request.param == "folder" else memory_url()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache")
    cache.open()
    yield cache
    cache.close()


def test_newer_ones_are_above_and_not_refused(registry: str, cache: Cache) -> None:
    source = RegistryModel(registry, "a", cache)
    assert source.newer(0, {}) == []
    for number in (1, 2, 10):
        publish(registry, "a", number)
    place = Versions(f"{registry}/a")
    place.fs.makedirs(place.path(11), exist_ok=True)
    place.fs.makedirs(place.path(12), exist_ok=True)  # nothing in it
    place.fs.pipe_file(f"{place.path(11)}/model.safetensors", b"half")
    unfinished, found = source.newer(0, {})
    assert (unfinished.number, found.number, found.lacks) == (11, 10, None)
    assert str(unfinished.lacks).startswith("has no manifest.json: ")
    assert (source.find(10), source.find(11), source.find(12)) == (found, unfinished, None)
    assert source.newer(11, {}) == []
    assert [one.number for one in source.newer(0, {10: found.fingerprint})] == [11, 2]
    publish(registry, "a", 10, "good again")
    again = source.newer(2, {10: found.fingerprint, 11: unfinished.fingerprint})
    assert [one.number for one in again] == [10]
    assert again[0].fingerprint != found.fingerprint


def test_versions_get_a_local_folder(registry: str, cache: Cache, tmp_path: Path) -> None:
    manifest = publish(registry, "a", 3)
    source = RegistryModel(registry, "a", cache)
    folder, found, verified = source.fetch(3, silent)
    assert found == manifest == verify(folder)
    if source.local:
        assert (folder, verified) == (tmp_path / "registry" / "a" / "3", False)  # in place
        assert list((tmp_path / "cache").glob("*/")) == []
    else:
        assert (folder, verified) == (tmp_path / "cache" / "a" / "3", True)
    source.keep([])
    assert folder.exists() is source.local


def test_fetched_versions_are_used_again_if_they_are_whole(cache: Cache, tmp_path: Path) -> None:
    registry = memory_url()
    publish(registry, "a", 3)
    source = RegistryModel(registry, "a", cache)
    folder, manifest, _ = source.fetch(3, silent)
    written = (folder / MANIFEST).stat().st_mtime_ns
    assert source.fetch(3, silent) == (folder, manifest, True)
    assert (folder / MANIFEST).stat().st_mtime_ns == written
    (folder / "config.json").write_text("x")
    assert verify(source.fetch(3, silent)[0]) == manifest
    newer = publish(registry, "a", 3, "good, but another")
    assert source.fetch(3, silent)[1] == verify(folder) == newer


def test_only_fetched_versions_in_use_are_kept(cache: Cache, tmp_path: Path) -> None:
    registry = memory_url()
    source = RegistryModel(registry, "a", cache)
    for number in (1, 2, 3):
        publish(registry, "a", number)
        source.fetch(number, silent)
    (tmp_path / "cache" / "a" / ".4.0.partial").mkdir()
    source.keep([2, 3])
    assert {path.name for path in (tmp_path / "cache" / "a").iterdir()} == {"2", "3"}
    cache.close()
    source.keep([])
    assert (tmp_path / "cache" / "a" / "2").exists()


def test_store_and_version_are_told_apart(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = memory_url()
    publish(registry, "a", 1)
    source = RegistryModel(registry, "a", cache)
    for name in ("ls", "cat_file", "get_file"):
        with monkeypatch.context() as patch:
            patch.setattr(Versions(registry + "/a").fs, name, connection_lost)
            with pytest.raises(StoreError, match="connection lost"):
                source.fetch(1, silent)
    Versions(f"{registry}/a").fs.rm(Versions(f"{registry}/a").path(1) + "/config.json")
    with pytest.raises(CheckpointError, match="is missing") as raised:
        source.fetch(1, silent)
    assert not isinstance(raised.value, StoreError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{place}/3: config.json is missing", "config.json is missing"),
        ("{place}/3 has no manifest.json", "has no manifest.json"),
        ("{place}: FileNotFoundError: {root}/3/golden.safetensors", "FileNotFoundError: golden.safetensors"),
        ("{cache}/a/3: cannot be read: '{cache}/a/3/config.json'", "cannot be read: 'config.json'"),
        ("{cache}/a/.3.0f9e.partial: model.safetensors is damaged", "model.safetensors is damaged"),
        ("KeyError: '/3: '", "KeyError: '/3: '"),
    ],
)
def test_users_are_told_files_and_no_folders(
    registry: str, cache: Cache, tmp_path: Path, text: str, expected: str
) -> None:
    source = RegistryModel(registry, "a", cache)
    root = Versions(f"{registry}/a").root
    assert source.without_place(text.format(place=source, root=root, cache=tmp_path / "cache")) == expected


def test_a_vanished_version_is_not_there(tmp_path: Path, cache: Cache) -> None:
    publish(tmp_path, "a", 1)
    source = RegistryModel(str(tmp_path), "a", cache)
    remove(tmp_path, "a", 1)
    assert (source.find(1), source.newer(0, {})) == (None, [])


def test_temporary_folder_goes_and_a_given_one_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        _ = Cache(None).folder
    temporary, given = Cache(None), Cache(tmp_path / "deep" / "cache")
    temporary.open()
    given.open()
    folders = [temporary.folder, given.folder]
    temporary.close()
    given.close()
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.open()
    with pytest.raises(SettingsError, match="in use by another process; give each a folder of its own"):
        Cache(tmp_path / "cache").open()
    cache.close()
    again = Cache(tmp_path / "cache")
    again.open()
    again.close()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cache_dir: .*file.* cannot be used"):
        Cache(tmp_path / "file" / "cache").open()
