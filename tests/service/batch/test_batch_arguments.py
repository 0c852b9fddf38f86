"""What `ebseg batch` says of flags, requests, places and services that it cannot use."""

import json
from pathlib import Path

import pytest

from tests.service.batch.runs import CLASSES, COUNT, last_line, plan_of, words
from tests.service.cli_calls import run
from tests.service.fakes import live


def test_a_service_that_is_away(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words(folder, tmp_path / "out", "http://127.0.0.1:9")) == 1
    assert "http://127.0.0.1:9: the connection failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --classes, --classes-file, --vocabulary and --request"),
        (("--classes", "a", "--vocabulary", "voc-20"), "give one of"),
        (("--request", "no.json"), "cannot be read as JSON"),
        (("--vocabulary", "no-list"), "no built-in vocabulary"),
        (("--classes", "a", "--shard", "4/4"), "K from 0 to N - 1"),
        (("--classes", "a", "--checkpoint", "nowhere"), "nowhere"),
        (("--classes", "a", "--api-key", "k"), "--api-key needs --url"),
        (("--classes", "a", "--yes"), "--yes needs a --model"),
        (("--classes", "a", "--model", "tiny", "--checkpoint", "x"), "--model does not go with --checkpoint"),
        *(
            (("--classes", "a", "--url", "http://x", *flags), f"{flags[0]} does not go with --url")
            for flags in (
                ("--device", "cpu"),
                ("--dtype", "float16"),
                ("--max-pixels", "9"),
                ("--checkpoint", "x"),
                ("--model", "base"),
                ("--batch-size", "2"),
                ("--yes",),
            )
        ),
    ],
)
def test_wrong_arguments(
    options: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run("batch", folder, "--out", tmp_path / "out", *options)
        text = capsys.readouterr().err
    except Exception as error:  # of the model package, which `ebseg.main` tells
        code, text = 2, str(error)
    assert code == 2
    assert message in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("remote", [False, True])
def test_fields_of_a_request_that_mean_nothing_here(
    remote: bool, folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--url", url) if remote else ("--device", "cpu")
    fields = {"outputs": ["png"], "timeout_ms": 5} | ({} if remote else {"model": "x", "version": 1})
    for name, value in fields.items():
        (tmp_path / "request.json").write_text(json.dumps({"classes": ["a"], name: value}))
        words = ("--request", tmp_path / "request.json", "--out", tmp_path / "out", *where)
        assert run("batch", folder, *words) == 2
        assert f"{name}: leave it out of the request" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_environment_has_a_key_and_a_device(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(api_keys="a key that is long enough") as (address, _):
        assert run(*words(folder, tmp_path / "out", address)) == 2
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv("EBSEG_API_KEY", "a key that is long enough")
        assert run(*words(folder, tmp_path / "out", address)) == 1
        assert last_line(capsys)["rows"] == COUNT
    monkeypatch.setenv("EBSEG_DEVICE", "cuda:99")
    assert run("batch", folder, *CLASSES, "--out", tmp_path / "device") == 2
    assert "cuda:99" in capsys.readouterr().err


def test_an_output_within_the_input(
    folder: Path,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its contact sheet and label maps would be pictures of the next run."""
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    for source, out in (
        (folder, folder / "out"),
        (folder, folder),
        (Path(), Path("deeper/out")),
        (folder, tmp_path / "link" / "out"),
        (tmp_path / "link" / "*.png", folder),
        (folder / "**" / "*.png", folder / "deeper"),
    ):
        assert run(*words(source, out, url)) == 2
        assert "lies within the input" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before
    for source, out in ((folder / "deeper" / "*.png", folder), (folder / "list.txt", folder)):
        plan_of(source, out, url)  # whose output is no input


def test_outputs_that_cannot_be(
    folder: Path,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are told before any work; waiting would not mend them."""
    (tmp_path / "file").write_bytes(b"x")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        assert run(*words(folder, out, url)) == 2
        assert f"ebseg: error: {out} cannot be used: " in capsys.readouterr().err
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for source, place in (("s3://no-keys/photos", tmp_path / "out"), (folder, "s3://no-keys/out")):
        assert run("batch", source, "--classes", "a", "--out", place, "--url", url) == 2
        assert "Unable to locate credentials" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words(tmp_path / "none", tmp_path / "out", url)) == 2
    assert "there is no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
