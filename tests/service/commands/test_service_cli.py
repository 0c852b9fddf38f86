"""`ebseg serve` and `ebseg segment`, in this process."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.confidence.caution import untrained
from model.errors import CheckpointError, VocabularyError
from model.segmenter import Segmenter
from model.storage import packaged
from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.storage.verify import verify
from model.vocabulary.classes import Vocabulary
from service.options import OPTIONS
from service.server import listen
from tests.service.cli_calls import run
from tests.service.fakes import encoded

PICTURE = np.random.default_rng(3).integers(0, 255, (6, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(PICTURE))
    return path


def test_segment_writes_files_and_prints_a_table(
    photo: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, overlay = tmp_path / "mask.png", tmp_path / "overlay.jpg"
    code = run(
        *("segment", photo, "--classes", "sky, zebra crossing", "--classes", "qux", "--checkpoint"),
        *(tiny_checkpoint, "--out", out, "--overlay", overlay, "--templates", "plain"),
    )
    assert code == 0
    vocabulary = Vocabulary.of(["sky", "zebra crossing", "qux"], templates="plain")
    expected = Segmenter(load(tiny_checkpoint).ebseg).segment(PICTURE, vocabulary)
    with Image.open(out) as image:
        assert (np.asarray(image) == expected.labels).all()
        assert json.loads(image.info["classes"]) == ["other", "sky", "zebra crossing", "qux"]
    with Image.open(overlay) as image:
        assert (image.format, image.size) == ("JPEG", (80, 60))
    printed = capsys.readouterr()
    assert "80 x 60, ebseg-tiny/1 (UNTRAINED)" in printed.out
    for index, name in enumerate(vocabulary.names):
        share = (expected.labels == index + 1).mean()
        line = next(line for line in printed.out.splitlines() if name in line)
        assert (f"{share:.1%}" in line) if share else line.startswith("not found: ")
    assert untrained("ebseg-tiny").message in printed.err


def test_segment_prints_json(
    photo: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EBSEG_CHECKPOINT", str(tiny_checkpoint))
    assert run("segment", photo, "--vocabulary", "voc-20", "--background", "0.5", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["size"] == {"width": 80, "height": 60}
    assert answer["model"]["untrained"] is True
    assert answer["warnings"] == [dataclasses.asdict(untrained("ebseg-tiny"))]
    assert len(answer["classes"]) == 20
    assert answer["other"]["area"] + sum(item["area"] for item in answer["classes"]) == 4800
    assert set(answer["classes"][0]["rle"]) == {"size", "counts"}
    assert "request_id" not in answer


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.png", "--classes", "sky"), "nothing.png cannot be read: No such file"),
        (("TEXT", "--classes", "sky"), "this is text; images are taken as JPEG"),
        (("PHOTO", "--classes", "sky", "--templates", "vild2"), "templates: unknown template set"),
        (("PHOTO", "--vocabulary", "voc"), "there is no built-in vocabulary 'voc'"),
        (("PHOTO", "--classes", "sky", "--out", "mask.jpg"), "mask.jpg must end in .png"),
        (("PHOTO", "--classes", "sky", "--overlay", "no/such/folder.png"), "folder.png cannot be written"),
        (("PHOTO", "--classes", "sky", "--device", "tpu"), "device: "),
        (("PHOTO", "--classes", "sky", "--max-pixels", "10"), "at most 10 are taken"),
    ],
)
def test_segment_tells_what_cannot_be_used(
    words: tuple[str, ...],
    message: str,
    photo: Path,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = photo.with_name("text.jpg")
    text.write_text("not an image")
    places = {"PHOTO": photo, "TEXT": text}
    code = run("segment", *(places.get(word, word) for word in words), "--checkpoint", tiny_checkpoint)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.startswith("ebseg: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_errors_of_the_model_are_left_to_main(photo: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="manifest"):
        run("segment", photo, "--classes", "sky", "--checkpoint", tmp_path)
    with pytest.raises(VocabularyError, match="empty name"):
        run("segment", photo, "--classes", "sky,,tree", "--checkpoint", tiny_checkpoint)
    with pytest.raises(CheckpointError, match="manifest"):
        run("serve", "--checkpoint", tmp_path, "--port", "0")


def test_without_a_checkpoint_segment_takes_the_packaged_one(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("segment", photo, "--classes", "house, mushroom", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    manifest = verify(packaged_checkpoint())
    assert answer["model"] == {
        "name": "ebseg-tiny",
        "version": manifest.version,
        "digest": manifest.digest,
        "untrained": False,
    }
    assert [item["trained"] for item in answer["classes"]] == [True, False]


def test_without_any_checkpoint_both_say_how_to_get_one(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    for words in (("segment", photo, "--classes", "sky"), ("serve",)):
        with pytest.raises(CheckpointError, match=r"--checkpoint DIR.*ebseg import"):
            run(*words)


def test_serve_has_every_setting_as_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "checkpoint": "a/b",
        "host": "0.0.0.0",
        "device": "cuda",
        "dtype": "float16",
        "padding": "few",
        "log_level": "debug",
    }
    values |= {"log_format": "text", "redis_url": "redis://cache:6379/0", "otlp_endpoint": "http://traces"}
    values |= {"api_keys": "a" * 16, "admin_keys": "b" * 16, "map_weights": "true"}
    values |= {"max_header_bytes": "4096", "share_caches": "true", "cors_origins": "https://pages.example"}
    values |= {"root_path": "/a", "workers": "7"}
    values |= {"url_hosts": "a.example", "url_private_hosts": "b.example:81", "url_buckets": "s3://shelf"}
    given = [name for name in OPTIONS if name not in ("registry", "model")]  # these stand against checkpoint
    words = [f"--{name.replace('_', '-')}={values.get(name, 77)}" for name in given]
    assert run("serve", "--print-config", *words) == 0
    printed = capsys.readouterr().out
    for name in given:
        assert f"\n{name} = " in printed
    file = tmp_path / "c.toml"
    file.write_text(printed)
    assert run("serve", "--print-config", "--config", file) == 0
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit) as stopped:
        run("serve", "--help")
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in output for name in OPTIONS)
    assert "Examples:" in output


def test_serve_refuses_a_port_that_is_taken(tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run("serve", "--checkpoint", tiny_checkpoint, "--port", port, "--log-level", "error") == 2
    assert f"port {port}: Address already in use" in capfd.readouterr().err


def test_serve_is_not_open_where_a_clients_variable_was_meant_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EBSEG_API_KEY", "meant-as-a-key-of-the-service")
    for words in ((), ("--admin-keys", "an-admin-key-of-24-bytes")):
        assert run("serve", "--checkpoint", tmp_path, *words) == 2
        printed = capsys.readouterr().err
        assert "Give its keys in EBSEG_API_KEYS, or unset EBSEG_API_KEY" in printed
        assert "meant-as" not in printed
    assert run("serve", "--print-config") == 0  # which serves nothing
    with pytest.raises(CheckpointError):  # both may be set: a shell that serves and asks
        run("serve", "--checkpoint", tmp_path, "--api-keys", "a-user-key-of-22-bytes")
    monkeypatch.setenv("EBSEG_API_KEY", "")
    with pytest.raises(CheckpointError):
        run("serve", "--checkpoint", tmp_path)
