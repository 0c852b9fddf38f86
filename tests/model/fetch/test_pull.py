"""From a source to a version in a registry: the same that `ebseg import` makes, whole or not at all."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from model.errors import CheckpointError, FetchError
from model.fetch import pull as pulling
from model.fetch.fetching import SourceFile
from model.fetch.pull import Order, pull
from model.fetch.resolve import folder_of, local_folder_of, order_of
from model.released.importing import import_released
from model.storage.files import sha256
from model.storage.manifest import FILES, MANIFEST, Manifest
from model.storage.packaged import packaged_checkpoint
from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.model.checkpoints import make, write
from tests.model.fetch.watching import REPOSITORY, Watch, blobs

SOURCE = f"hf://{REPOSITORY}/EBSeg_tiny.pth"


@pytest.fixture
def hub(hub: Hub, released_file: Path) -> Hub:
    hub.repositories.add(REPOSITORY, {"EBSeg_tiny.pth": released_file, "notes.pth": b"no weights" * 99})
    return hub


@pytest.fixture
def order(hub: Hub, tmp_path: Path) -> Order:
    return order_of(SOURCE, registry=tmp_path / "registry")


def left(registry: Path) -> list[str]:
    """All that lies in the registry, but the files of whole versions."""
    return sorted(
        str(path.relative_to(registry)) for path in registry.rglob("*") if path.name not in (*FILES, MANIFEST)
    )


def test_it_is_what_import_makes(order: Order, watch: Watch, released_file: Path, tmp_path: Path) -> None:
    pulled = pull(order, notify=watch.notify, progress=watch.progress)
    assert pulled.directory == tmp_path / "registry" / "ebseg-tiny" / "1"
    assert pulled.received == released_file.stat().st_size
    import_released(released_file, tmp_path / "imported" / "1", name="ebseg-tiny", version=1)
    for name in FILES:
        assert (pulled.directory / name).read_bytes() == (tmp_path / "imported" / "1" / name).read_bytes()
    ours, theirs = (
        Manifest.from_json((folder / MANIFEST).read_bytes()).to_dict()
        for folder in (pulled.directory, tmp_path / "imported" / "1")
    )
    source = ours["training"].pop("source")
    assert source.startswith(f"hf://{REPOSITORY}@")
    assert theirs["training"].pop("source") == "EBSeg_tiny.pth"
    assert ours["training"] == {"sha256": sha256(released_file)}
    assert ours | {"created": ""} == theirs | {"created": ""}
    assert left(tmp_path / "registry") == ["ebseg-tiny", "ebseg-tiny/1"]


def test_what_is_there_is_not_fetched(order: Order, watch: Watch, hub: Hub, released_file: Path) -> None:
    first = pull(order, notify=watch.notify, progress=watch.progress)
    asked = len(hub.requests)
    second = pull(order, notify=watch.notify, progress=watch.progress)
    assert (second.manifest, second.received) == (first.manifest, None)
    assert len(hub.requests) == asked
    # another place for the same file costs no byte
    elsewhere = order_of(SOURCE, registry=order.registry, version=2)
    assert pull(elsewhere, notify=watch.notify, progress=watch.progress).received == 0
    assert hub.sent("/cdn/") == released_file.stat().st_size


def test_a_damaged_version_says_what_to_do(order: Order, watch: Watch) -> None:
    directory = pull(order, notify=watch.notify, progress=watch.progress).directory
    weights = directory / FILES[0]
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"does not match its sha256.*move .*/1 away and pull again"):
        pull(order, notify=watch.notify, progress=watch.progress)
    (directory / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="is taken, and holds no checkpoint: move it away, or choose"):
        pull(order, notify=watch.notify, progress=watch.progress)


def test_other_weights_are_not_taken_for_these(
    order: Order, watch: Watch, hub: Hub, released_file: Path
) -> None:
    hub.repositories.add("someone/else", {"EBSeg_tiny.pth": released_file})
    pull(order, notify=watch.notify, progress=watch.progress)
    other = order_of("hf://someone/else/EBSeg_tiny.pth", registry=order.registry)
    with pytest.raises(CheckpointError, match=r"was made of hf://slonetime/EBSeg@.*--version 2"):
        pull(other, notify=watch.notify, progress=watch.progress)
    pinned = order_of(SOURCE, registry=order.registry, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="was made of a file with sha256"):
        pull(pinned, notify=watch.notify, progress=watch.progress)
    same = order_of(str(released_file), registry=order.registry)
    assert pull(same, notify=watch.notify, progress=watch.progress).received is None


def test_untrained_weights_are_not_taken_for_released_ones(hub: Hub, watch: Watch, tmp_path: Path) -> None:
    order = order_of("base", registry=tmp_path)
    write(make(), order.directory, name="ebseg-base", untrained=True)
    with pytest.raises(CheckpointError, match="holds untrained weights: move it away, or choose"):
        pull(order, notify=watch.notify, progress=watch.progress)
    shutil.rmtree(order.directory)
    write(make(), order.directory, name="ebseg-base")  # imported by hand, say
    assert pull(order, notify=watch.notify, progress=watch.progress).received is None
    assert hub.requests == []


def test_a_pinned_digest(watch: Watch, hub: Hub, released_file: Path, tmp_path: Path) -> None:
    good = sha256(released_file)
    wrong = order_of(SOURCE, registry=tmp_path / "registry", sha256="1" * 64)
    with pytest.raises(FetchError, match=f"has the sha256 {good}, not the 1111.* nothing was fetched"):
        pull(wrong, notify=watch.notify, progress=watch.progress)
    assert hub.sent("/cdn/") == 0
    local = order_of(str(released_file), registry=tmp_path / "registry", sha256="1" * 64)
    with pytest.raises(FetchError, match="it is not taken"):
        pull(local, notify=watch.notify, progress=watch.progress)
    assert released_file.exists()
    assert left(tmp_path) == [] or not (tmp_path / "registry" / "ebseg-tiny" / "1").exists()
    right = order_of(SOURCE, registry=tmp_path / "registry", sha256=good)
    assert pull(right, notify=watch.notify, progress=watch.progress).manifest.training["sha256"] == good


def test_a_file_without_weights_leaves_nothing(watch: Watch, hub: Hub, tmp_path: Path) -> None:
    order = order_of(f"hf://{REPOSITORY}/notes.pth", registry=tmp_path / "registry")
    with pytest.raises(CheckpointError, match=f"^hf://{REPOSITORY}/notes.pth") as failure:
        pull(order, notify=watch.notify, progress=watch.progress)
    assert str(constants.HF_HUB_CACHE) not in str(failure.value)
    assert left(tmp_path / "registry") == ["notes"]


def test_a_full_disk_is_told_before(
    order: Order, watch: Watch, hub: Hub, monkeypatch: pytest.MonkeyPatch, released_file: Path
) -> None:
    size = released_file.stat().st_size
    free = 2 * size + pulling.ROOM - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    with pytest.raises(FetchError, match=r"free, and hf://.* needs .* there: make room"):
        pull(order, notify=watch.notify, progress=watch.progress)
    assert hub.sent("/cdn/") == 0
    free += 1
    assert pull(order, notify=watch.notify, progress=watch.progress).received == size


@pytest.mark.parametrize("step", ["fetching", "writing the weights"])
def test_a_disk_that_fills_meanwhile(
    order: Order, watch: Watch, hub: Hub, step: str, released_file: Path
) -> None:
    def full(now: str, done: int, total: int) -> None:
        if now.startswith(step) and done >= total // 2:
            raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

    size = released_file.stat().st_size
    with pytest.raises(FetchError, match="/some/file: No space left on device: make room"):
        pull(order, notify=watch.notify, progress=full)
    assert left(order.registry) == ["ebseg-tiny"]
    (kept,) = blobs().values()
    assert kept == size if step != "fetching" else size // 2 <= kept < size
    asked = len(hub.requests)
    pull(order, notify=watch.notify, progress=watch.progress)
    ranges = [request.range for request in hub.requests[asked:] if request.host == "cdn"]
    assert ranges == ([] if step != "fetching" else [f"bytes={kept}-"])


def test_folders_that_cannot_be_written(
    watch: Watch, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    order = order_of(SOURCE, registry=tmp_path / "file" / "registry")
    with pytest.raises(FetchError, match=r"cannot be written .*: choose another folder with --registry"):
        pull(order, notify=watch.notify, progress=watch.progress)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    order = order_of(SOURCE, registry=tmp_path / "registry")
    with pytest.raises(FetchError, match="HF_HOME for what is fetched"):
        pull(order, notify=watch.notify, progress=watch.progress)
    assert hub.sent("/cdn/") == 0


def test_another_process_may_be_quicker(order: Order, watch: Watch, hub: Hub, tmp_path: Path) -> None:
    other = order_of(SOURCE, registry=tmp_path / "other")
    theirs = pull(other, notify=watch.notify, progress=watch.progress)

    def quicker(step: str, done: int, total: int) -> None:
        if step == "writing the weights" and not order.directory.exists():
            shutil.copytree(theirs.directory, order.directory)

    pulled = pull(order, notify=watch.notify, progress=quicker)
    assert (pulled.manifest, pulled.received) == (theirs.manifest, None)
    assert left(order.registry) == ["ebseg-tiny", "ebseg-tiny/1"]


def test_nothing_is_fetched_that_was_not_allowed(order: Order, watch: Watch, hub: Hub) -> None:
    asked: list[SourceFile] = []

    def no(found: SourceFile) -> bool:
        asked.append(found)
        return False

    with pytest.raises(FetchError, match=r"nothing was fetched: `ebseg pull hf://.*` does it"):
        pull(order, notify=watch.notify, progress=watch.progress, allow=no)
    assert [found.here for found in asked] == [0]
    assert not order.registry.exists()
    assert hub.sent("/cdn/") == 0


def test_names_lead_to_folders(watch: Watch, hub: Hub, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    assert local_folder_of("tiny") == local_folder_of("ebseg-tiny") == packaged_checkpoint()
    assert local_folder_of(str(tmp_path)) == tmp_path
    missing = local_folder_of("base", registry=registry)
    assert isinstance(missing, Order)
    assert (missing.directory, str(missing.source)) == (
        registry / "ebseg-base" / "1",
        "hf://slonetime/EBSeg/EBSeg_base.pth",
    )
    assert local_folder_of("ebseg-large", registry=registry) == order_of("large", registry=registry)
    with pytest.raises(CheckpointError, match="there is no folder nothing, and no model of that name"):
        local_folder_of("nothing")
    folder = folder_of(SOURCE, notify=watch.notify, progress=watch.progress, registry=registry)
    assert folder == registry / "ebseg-tiny" / "1"
    hub.faults.add(Fault("", status=500))
    assert folder_of(SOURCE, notify=watch.notify, progress=watch.progress, registry=registry) == folder
    assert json.loads((folder / MANIFEST).read_text())["name"] == "ebseg-tiny"
