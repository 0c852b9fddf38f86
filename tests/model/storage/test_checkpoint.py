"""Checkpoint folders: whole or not at all, exact, and refused with a reason when damaged."""

import builtins
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model.errors import CheckpointError
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.storage import golden
from model.storage.checkpoint import check_golden, load
from model.storage.files import write_tensors
from model.storage.manifest import FILES, GOLDEN, MANIFEST, WEIGHTS
from model.storage.verify import verify
from tests.model.checkpoints import BIG_TENSOR, CLASSES, edit_tensors, make, put, reseal, write


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    return make()


@pytest.fixture(scope="module")
def saved(ebseg: EBSeg, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "ebseg-tiny" / "1"
    write(ebseg, folder, metrics={"miou": {"voc-20": 0.5}}, parent="a" * 64, notes={"steps": [1, 2]})
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A folder to damage, by `put`: its files are links, since copies would fill the disk."""
    return Path(shutil.copytree(saved, tmp_path / "ebseg-tiny" / "1", copy_function=os.link))


def test_round_trip_is_exact(ebseg: EBSeg, saved: Path) -> None:
    loaded = load(saved)
    before, after = ebseg.state_dict(), loaded.ebseg.state_dict()
    assert list(before) == list(after)
    assert all(before[name].dtype == after[name].dtype for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name for name, p in ebseg.named_parameters() if p.requires_grad} == {
        name for name, p in loaded.ebseg.named_parameters() if p.requires_grad
    }
    assert loaded.ebseg.config == ebseg.config
    assert loaded.ebseg.training_classes == CLASSES
    assert not loaded.ebseg.training
    assert loaded.metrics == {"miou": {"voc-20": 0.5}}
    assert loaded.directory == saved


def test_manifest_tells_all(ebseg: EBSeg, saved: Path) -> None:
    found = verify(saved)
    assert (found.name, found.version, found.variant) == ("ebseg-tiny", 1, "tiny")
    assert found.untrained is False
    assert found.parent == "a" * 64
    assert found.training == {"steps": [1, 2]}
    assert found.text_digest == ebseg.text_digest()
    assert {path.name for path in saved.iterdir()} == {*FILES, MANIFEST}
    assert {name: entry.bytes for name, entry in found.files.items()} == {
        name: (saved / name).stat().st_size for name in FILES
    }
    assert json.loads((saved / MANIFEST).read_text())["schema"] == 2


def test_files_can_be_read_by_whoever_may_read_new_files(saved: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()}
    assert modes == {stat.S_IMODE((saved / MANIFEST).stat().st_mode)}


def test_digest_is_of_the_content_alone(saved: Path, tmp_path: Path) -> None:
    first = verify(saved)
    metrics = {"miou": {"voc-20": 0.5}}
    again = write(make(), tmp_path / "again", name="other", version=9, metrics=metrics)
    assert again.digest == first.digest
    changed = write(make(), tmp_path / "changed", metrics={"miou": {"voc-20": 0.6}})
    assert changed.digest != first.digest
    assert changed.text_digest == first.text_digest
    reseeded = write(make(seed=1), tmp_path / "reseeded", metrics=metrics)
    assert reseeded.digest != first.digest
    assert reseeded.text_digest != first.text_digest


def test_half_precision_stays(tmp_path: Path) -> None:
    ebseg = make().to_compute_dtype(torch.bfloat16)
    write(ebseg, tmp_path / "1")
    after = load(tmp_path / "1").ebseg.state_dict()
    assert after["backbone.pos_embed"].dtype == torch.bfloat16
    assert all(torch.equal(tensor, after[name]) for name, tensor in ebseg.state_dict().items())


def test_golden_outputs_are_stored_and_compared(copy: Path) -> None:
    assert check_golden(load(copy)) <= 1e-6
    edit_tensors(copy / GOLDEN, lambda tensors: tensors["supervised"].mul_(1.01))
    reseal(copy)
    with pytest.raises(CheckpointError, match=rf"{copy}: the golden image.* supervised by 0\.0099"):
        check_golden(load(copy))


def test_untrained_is_said_aloud(ebseg: EBSeg, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(ebseg, tmp_path / "1", untrained=True)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path / "1").manifest.untrained is True
    assert ["untrained" in message for message in caplog.messages] == [True]


def test_saving_leaves_training_mode_as_it_was(tmp_path: Path) -> None:
    ebseg = make().train()
    write(ebseg, tmp_path / "1")
    assert ebseg.training


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_flipped_bit_is_found(copy: Path, name: str, place: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 1
    put(copy / name, bytes(content))
    with pytest.raises(CheckpointError, match=f"{name} does not match its sha256"):
        load(copy)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load(copy)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_named_even_without_digests(copy: Path, name: str) -> None:
    size = (copy / name).stat().st_size
    put(copy / name, (copy / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{name} has {size - 1} of its {size} bytes"):
        load(copy, verify_digests=False)


def test_extra_entries_are_named(copy: Path) -> None:
    (copy / "optimizer.pt").write_bytes(b"")
    (copy / "more").mkdir()
    with pytest.raises(CheckpointError, match=r"unexpected files: more, optimizer\.pt"):
        verify(copy)


def test_folder_without_manifest_was_never_finished(copy: Path, tmp_path: Path) -> None:
    (copy / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=r"no manifest\.json: it is no checkpoint, or was never"):
        load(copy)
    with pytest.raises(CheckpointError, match="is not a folder"):
        load(tmp_path / "absent")


def _nan(tensors: dict[str, Tensor]) -> None:
    tensors["fusion.layers.0.conv.weight"].view(-1)[3] = float("nan")


def _infinite(tensors: dict[str, Tensor]) -> None:
    tensors["background"].view(-1)[-1] = float("-inf")


def _transposed(tensors: dict[str, Tensor]) -> None:
    tensors[BIG_TENSOR] = tensors[BIG_TENSOR].T.contiguous()


def _integer(tensors: dict[str, Tensor]) -> None:
    tensors[BIG_TENSOR] = tensors[BIG_TENSOR].to(torch.int32)


def _lost(tensors: dict[str, Tensor]) -> None:
    del tensors["background"]


def _added(tensors: dict[str, Tensor]) -> None:
    tensors["optimizer.step"] = torch.zeros(1)


def _other(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors["x"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_nan, "fusion.layers.0.conv.weight holds NaN or infinity"),
        (_infinite, "background holds NaN or infinity"),
        (_transposed, rf"{BIG_TENSOR} has shape \[64, 16\], not \[16, 64\]"),
        (_integer, f"{BIG_TENSOR} is torch.int32, not torch.float32"),
        (_lost, "missing background"),
        (_added, "unexpected optimizer.step"),
        (_other, r"missing backbone.*, .* and \d+ more; unexpected x"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    copy: Path, edit: Callable[[dict[str, Tensor]], None], reason: str
) -> None:
    edit_tensors(copy / WEIGHTS, edit)
    reseal(copy)
    with pytest.raises(CheckpointError, match=f"{copy}.*{reason}"):
        load(copy)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (WEIGHTS, "not safetensors at all", "model.safetensors is no safetensors file"),
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "{}", "config: field 'balance' is missing"),
        ("config.json", None, "config.json is of variant base, not tiny"),
        ("training_classes.json", '{"classes": [{}]}', "training classes: class 0"),
        ("metrics.json", "[]", "metrics.json must hold a JSON object"),
    ],
)
def test_well_sealed_broken_files_are_named(copy: Path, name: str, content: str | None, reason: str) -> None:
    put(copy / name, json.dumps(VARIANTS["base"].to_dict()) if content is None else content)
    reseal(copy)
    with pytest.raises(CheckpointError, match=reason):
        load(copy)


def test_taken_place_is_refused_and_kept(ebseg: EBSeg, copy: Path, tmp_path: Path) -> None:
    before = verify(copy)
    with pytest.raises(CheckpointError, match="exists already; versions are never overwritten"):
        write(make(seed=1), copy)
    assert verify(copy) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        write(ebseg, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    write(ebseg, tmp_path / "empty")
    verify(tmp_path / "empty")


def test_place_taken_while_writing(ebseg: EBSeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "1"

    def write_and_lose_the_race(path: Path, tensors: dict[str, Tensor]) -> None:
        target.mkdir(exist_ok=True)
        (target / "theirs").write_text("theirs")
        write_tensors(path, tensors)

    monkeypatch.setattr("model.storage.checkpoint.write_tensors", write_and_lose_the_race)
    with pytest.raises(CheckpointError, match="exists already"):
        write(ebseg, target)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["1", "1/theirs"]


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"name": "a/b"}, "a model's name must be"),
        ({"name": ".hidden"}, "a model's name must be"),
        ({"version": 0}, "a version must be"),
        ({"metrics": {"miou": float("nan")}}, "cannot be written as JSON"),
        ({"notes": {"model": object()}}, "cannot be written as JSON"),
    ],
)
def test_unusable_arguments_leave_nothing(
    ebseg: EBSeg, tmp_path: Path, others: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        write(ebseg, tmp_path / "deep" / "1", **others)
    assert list(tmp_path.iterdir()) == []


def test_broken_weights_are_not_saved(tmp_path: Path) -> None:
    ebseg = make()
    with torch.no_grad():
        ebseg.background[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="tensor background holds NaN"):
        write(ebseg, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


class Crash(BaseException):
    """Like a signal's exception: no `except Exception` stops it."""


def test_a_crash_at_any_step_leaves_nothing(
    ebseg: EBSeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "make", lambda _: {"image": golden.image(8, 8)})  # not what is tested here
    steps, crash_at = 0, 0

    def dangerous(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == crash_at:
                raise Crash
            result = function(*args, **kwargs)
            assert all(path.name.startswith(".") for path in tmp_path.iterdir() if steps < complete)
            return result

        return step

    complete = 10**9
    real_rename = os.rename

    def rename(source: Path, target: Path) -> None:
        nonlocal complete
        verify(source)  # what is about to appear is whole
        complete = steps
        real_rename(source, target)

    for module, name in ((os, "fsync"), (builtins, "open"), (safetensors.torch, "save_file")):
        monkeypatch.setattr(module, name, dangerous(getattr(module, name)))
    monkeypatch.setattr(os, "rename", dangerous(rename))
    while True:
        crash_at += 1
        steps, complete = 0, 10**9
        try:
            write(ebseg, tmp_path / "1")
        except Crash:
            assert list(tmp_path.iterdir()) == []
            continue
        break
    assert crash_at > 20  # six files written and five read again, three syncs of folders and a rename
    assert crash_at == steps + 1


def test_full_disk_is_an_os_error(ebseg: EBSeg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"golden\.safetensors cannot be written: No space left"):
        write(ebseg, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_end_of_every_step(ebseg: EBSeg, tmp_path: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}

    def watch(step: str, done: int, total: int) -> None:
        steps[step] = (done, total)

    write(ebseg, tmp_path / "1", progress=watch)
    assert set(steps) == {"writing the weights", *(f"hashing {name}" for name in FILES)}
    assert all(done == total > 0 for done, total in steps.values())
