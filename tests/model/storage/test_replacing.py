"""A file takes another's place whole, or not at all."""

import os
import stat
from pathlib import Path

import pytest

from model.storage.files import replace_text, replacing


@pytest.mark.parametrize("before", ["old", None])
def test_on_an_error_all_is_as_before(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "notes.json"
    if before is not None:
        path.write_text(before)

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if before is None else [before])


def test_readers_see_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.suffix == ".json"
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]


def test_file_and_folder_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, bool]] = []  # is a folder, the new file is in its place
    fsync, path = os.fsync, tmp_path / "notes.json"

    def noted(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    replace_text(path, "new")
    assert synced == [(False, False), (True, True)]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_mode_is_that_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "weights.safetensors") as partial:
            partial.chmod(0o600)  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~mask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("there/notes")
    replace_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "notes").read_text() == "new"
    assert len(list((tmp_path / "there").iterdir())) == 1


def test_devices_are_written_to(tmp_path: Path) -> None:
    replace_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(IsADirectoryError):
        replace_text(tmp_path, "a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("\u00e9" * 120 + ".json")
    replace_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
