"""`ebseg pull` as a process."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebseg import build_parser, main
from model.released.importing import import_released
from model.released.torch_file import write_state_dict
from model.storage.files import sha256
from model.storage.manifest import FILES, MANIFEST
from tests.golden.weights import official_state_dict
from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.model.checkpoints import make, write
from tests.model.fetch.killing import Pulling, kill_five_times, ranges
from tests.model.fetch.watching import REPOSITORY
from tests.waiting import LONG_WAIT, WAIT, wait_until

ROOT = Path(__file__).parents[3]
Here = Callable[..., tuple[str, str]]
TINY = f"hf://{REPOSITORY}/EBSeg_tiny.pth"


@pytest.fixture
def hub(hub: Hub, released_file: Path) -> Hub:
    hub.repositories.add(REPOSITORY, {"EBSeg_tiny.pth": released_file})
    return hub


def assert_same_as_import(version: Path, released: Path, folder: Path) -> None:
    """Every file but the manifest, which tells its time and source."""
    import_released(released, folder / "1", name=version.parent.name, version=1)
    for name in FILES:
        assert sha256(version / name) == sha256(folder / "1" / name)
    ours_manifest, theirs_manifest = (
        json.loads((path / MANIFEST).read_text()) for path in (version, folder / "1")
    )
    for manifest in (ours_manifest, theirs_manifest):
        del manifest["created"], manifest["seal"], manifest["training"]["source"]
    assert ours_manifest == theirs_manifest


def test_killed_at_five_moments_it_goes_on(hub: Hub, tmp_path: Path, released_file: Path) -> None:
    size = released_file.stat().st_size
    version = tmp_path / "registry" / "ebseg-tiny" / "1"
    pulling = Pulling(hub, TINY, size, tmp_path, version)
    _, first, second = kill_five_times(pulling)
    printed = pulling.finish()
    assert printed.startswith(f"pulled {TINY} as registry/ebseg-tiny/1\n")
    # each process asked for what its predecessor had not written, and for no byte twice
    assert ranges(hub) == [None, f"bytes={first}-", f"bytes={second}-"]
    assert_same_as_import(version, released_file, tmp_path / "imported")


@pytest.mark.slow
def test_killed_at_five_moments_with_a_file_of_the_base_models_size(hub: Hub, tmp_path: Path) -> None:
    released = tmp_path / "EBSeg_base.pth"
    write_state_dict(released, official_state_dict("base"))
    hub.repositories.add(REPOSITORY, {"EBSeg_base.pth": released})
    version = tmp_path / "registry" / "ebseg-base" / "1"
    pulling = Pulling(hub, "base", released.stat().st_size, tmp_path, version)
    _, first, second = kill_five_times(pulling)
    pulling.finish()
    assert ranges(hub) == [None, f"bytes={first}-", f"bytes={second}-"]
    assert_same_as_import(version, released, tmp_path / "imported")


def test_an_interrupt_keeps_what_came(hub: Hub, tmp_path: Path, released_file: Path) -> None:
    size = released_file.stat().st_size
    pulling = Pulling(hub, TINY, size, tmp_path, tmp_path / "registry" / "ebseg-tiny" / "1")
    with hub.faults.during(Fault("GET /cdn", bytes_per_second=size / 10)), pulling.start() as process:
        wait_until(lambda: pulling.partial)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert output.endswith(
        "ebseg: what was fetched is kept: the same command goes on there\nebseg: error: interrupted\n"
    )
    kept = pulling.partial
    assert not list(tmp_path.glob("registry/**/*"))[1:]
    pulling.finish()
    assert ranges(hub) == [None, f"bytes={kept}-"]


def test_two_at_once(hub: Hub, tmp_path: Path, released_file: Path) -> None:
    size = released_file.stat().st_size
    pulling = Pulling(hub, TINY, size, tmp_path, tmp_path / "registry" / "ebseg-tiny" / "1")
    slow = hub.faults.add(Fault("GET /cdn", bytes_per_second=size / 100))
    with pulling.start() as first:
        wait_until(lambda: pulling.partial)
        with pulling.start() as second:
            assert second.stderr is not None
            waiting = second.stderr.readline()
            while "waiting" not in waiting:
                waiting = second.stderr.readline()
            slow.bytes_per_second = None
            output = [process.communicate(timeout=WAIT) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], output
    assert output[0][0].startswith("pulled ")
    assert "is there already and whole" in output[1][0]
    assert "another process fetches it just now" in waiting
    assert ranges(hub) == [None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs commands in this process and the test's folder; what they print, and tell on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        found = main([*words])
        printed = capsys.readouterr()
        assert found == code, printed.err
        return printed.out, printed.err

    return run


def test_what_it_prints(here: Here, hub: Hub, tmp_path: Path, released_file: Path) -> None:
    size, digest = released_file.stat().st_size, sha256(released_file)
    assert json.loads(here("pull", TINY, "--dry-run", "--json")[0]) == {
        "source": TINY,
        "directory": "registry/ebseg-tiny/1",
        "there": False,
        "size": size,
        "fetched": 0,
        "sha256": digest,
    }
    assert list(tmp_path.glob("registry")) == []
    assert "size         19.6 MB" in here("pull", TINY, "--dry-run")[0]
    mine = ("pull", TINY, "--name", "mine", "--version", "7")
    printed, output = here(*mine, "--json")
    found = json.loads(printed)
    assert (found["directory"], found["there"], found["received"]) == ("registry/mine/7", False, size)
    assert (found["manifest"]["name"], found["manifest"]["version"]) == ("mine", 7)
    assert found["manifest"]["training"]["sha256"] == digest
    assert output.startswith(f"ebseg: fetching {TINY} at {hub.url} (19.6 MB)\n")
    assert "registry/mine/7 is there already and whole, made of hf://" in here(*mine)[0]
    assert json.loads(here(*mine, "--dry-run", "--json")[0])["there"] is True


def test_without_a_network_it_says_so_soon(tmp_path: Path) -> None:
    # .invalid never has an address
    places = {"HF_ENDPOINT": "https://hub.invalid", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "ebseg", "pull", "base"],
        cwd=tmp_path,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"ebseg: error: (no network, or no host hub\.invalid|hub\.invalid does not answer).*"
        r"HF_ENDPOINT=https://MIRROR.*fetch https://huggingface\.co/slonetime/EBSeg/resolve/main/"
        r"EBSeg_base\.pth with a browser.*then: ebseg pull EBSeg_base\.pth --as base\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["bose"], 1, "there is no file bose; give a name (base or large), hf://"),
        (["hf://a"], 1, "An example: hf://slonetime/EBSeg/EBSeg_base.pth"),
        (["s3://bucket/file"], 1, "s3:// cannot be fetched from"),
        (["http://example.com/x.pth"], 1, "is not protected on its way"),
        (["https:///x.pth"], 1, "names no host"),
        (["base", "--sha256", "12"], 1, "--sha256 takes 64 hexadecimal digits"),
        (["base", "--name", "../x"], 2, "a model's name must be"),
        (["base", "--version", "0"], 2, "must be a whole number from 1"),
        (["base", "--as", "small"], 2, "invalid choice: 'small'"),
        ([], 2, "the following arguments are required: SOURCE"),
    ],
)
def test_wrong_words(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", *words]) == code
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1


def test_inspect_by_name(here: Here, tmp_path: Path) -> None:
    assert "ebseg-tiny" in here("inspect", "tiny")[0]
    assert (
        "registry/ebseg-base/1 is not there: `ebseg pull base` makes it" in here("inspect", "base", code=2)[1]
    )
    write(make(), tmp_path / "registry" / "ebseg-base" / "1", name="ebseg-base")
    assert json.loads(here("inspect", "base", "--json")[0])["name"] == "ebseg-base"
    assert "there is no folder bose, and no model of that name" in here("inspect", "bose", code=2)[1]
    assert here("inspect", "bse", code=2)[1].endswith("did you mean base?\n")


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 0), ("YES", 0)])
def test_one_question_on_a_terminal(
    answer: str, code: int, hub: Hub, tmp_path: Path, released_file: Path
) -> None:
    here, there = pty.openpty()
    command = [sys.executable, "-m", "ebseg", "segment", str(ROOT / "samples" / "room.jpg")]
    with subprocess.Popen(
        [*command, "--classes", "lamp, clock", "--model", TINY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "400"},
        stdin=there,
        stdout=subprocess.DEVNULL,
        stderr=there,
    ) as process:
        os.close(there)
        output = ""
        while "Go on? [Y/n]" not in output:
            output += os.read(here, 4096).decode()
        assert hub.sent("/cdn/") == 0
        os.write(here, f"{answer}\n".encode())
        while chunk := _read(here):
            output += chunk
        assert process.wait(WAIT) == code, output
    os.close(here)
    assert "registry/ebseg-tiny/1 is not there: fetching hf://slonetime/EBSeg/EBSeg_tiny.pth at" in output
    assert output.count("Go on?") == 1
    assert ("nothing was fetched" in output) == (code == 1)
    assert (tmp_path / "registry" / "ebseg-tiny" / "1").exists() == (code == 0)
    assert "Traceback" not in output


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    except OSError:  # the other side is closed
        return ""


def test_a_registry_at_a_url_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["pull", "base", "--registry", "s3://bucket/registry"])
    assert "then ebseg publish FOLDER/NAME/1 s3://bucket/registry/NAME --force" in capsys.readouterr().err
