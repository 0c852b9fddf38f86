"""The whole command line: one style in every help, examples that parse, completion, real processes."""

import argparse
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ebseg
from service.commands.completion import SHELLS
from tests.e2e.documents import ROOT, blocks, code_spans, table_rows
from tests.e2e.processes import SECONDS, done, served
from tests.service.scripted_server import Answer, scripted

DEFAULT_URL = "http://127.0.0.1:8000"
SAMPLES = ["harbour", "room", "street", "village"]
CLASSES = ("--classes", "house, boat, lamp, car, water")
# Commands without --json, and why.
NO_JSON = {
    "serve": "prints nothing but its log, which is JSON",
    "completion": "prints a script",
}
MANY = 8  # options, --help among them, that nobody reads through
TOP = ["serve", "segment", "bench", "models", "vocabularies", "import", "inspect", "train", "evaluate"]
TOP += ["ablate", "publish", "prepare", "completion"]


def walk(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands with their parsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield f"{name} {word}".strip(), below
                yield from walk(below, f"{name} {word}".strip())


COMMANDS = dict(walk(ebseg.build_parser()))
LEAVES = {name: one for name, one in COMMANDS.items() if one.get_default("run") is not None}


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """Command lines of a help, each on one line."""
    text = (parser.epilog or "").partition("Examples:")[2].replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if re.match(r"  \S", line)]


def test_every_command_of_the_product_is_there() -> None:
    assert set(TOP) <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_one_style(name: str) -> None:
    parser = COMMANDS[name]
    description = parser.description or ""
    assert re.match(r"[A-Z]", description)
    assert description.endswith(".")
    assert parser.formatter_class is argparse.RawDescriptionHelpFormatter
    for action in options(parser):
        assert action.help, action.dest
        assert not action.help.endswith("."), action.help
        assert action.default in (None, False, argparse.SUPPRESS, []) or "default" in action.help, action.help
    lines = parser.format_help().splitlines()
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("name", LEAVES)
def test_options_stand_in_sections(name: str) -> None:
    """One for every eight at least, beside those for everything."""
    groups = [
        [one for one in group._group_actions if one.option_strings] for group in LEAVES[name]._action_groups
    ]
    sections = [group for group in groups[2:] if group]
    assert len(sections) >= sum(map(len, groups)) // MANY
    assert "(default: )" not in LEAVES[name].format_help()


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_of_the_command_and_parse(name: str) -> None:
    """Lines that begin with `ebseg`, perhaps after variables, in front of a redirection."""
    lines = examples(COMMANDS[name])
    own = [line for line in lines if re.search(rf"(^|\s|\()ebseg {name}\b", line)]
    assert own, lines
    for line in lines:
        command = re.search(r"(?:^|[\s(])ebseg (.*?)(?:\s*>.*|\))?$", line)
        if command is not None:
            args = ebseg.build_parser().parse_args(shlex.split(command[1]))
            assert callable(args.run)


@pytest.mark.parametrize(
    ("line", "documented"),
    [
        ("segment p.jpg --classes a --parallel 1.5", "--parallel: must be a whole number from 1, got '1.5'"),
        (
            "segment p.jpg --classes a --background 1.1",
            "--background: must be a number from 0 to 1, got '1.1'",
        ),
        (
            "segment p.jpg --classes a --background nan",
            "--background: must be a number from 0 to 1, got 'nan'",
        ),
        ("models list --timeout soon", "--timeout: must be a time above 0 such as 30 s"),
        ("init --variant tiny --out a/1 --seed -1", "--seed: must be a whole number from 0, got '-1'"),
        (f"init --variant tiny --out a/1 --seed {1 << 63}", f"--seed: must be at most {(1 << 63) - 1}"),
        ("storybook new --train -1", "--train: must be a whole number from 0, got '-1'"),
        ("storybook new --jobs ٣", "--jobs: must be a whole number from 1, got '٣'"),
        ("evaluate a b --limit 0", "--limit: must be a whole number from 1, got '0'"),
        ("evaluate a b --processes two", "--processes: must be a whole number from 1, got 'two'"),
        ("evaluate a b --short-side -3", "--short-side: must be a whole number from 0, got '-3'"),
        ("ablate ssc a.json --out b --seeds 0", "--seeds: must be a whole number from 1, got '0'"),
    ],
)
def test_wrong_values_are_told_at_once(
    line: str, documented: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ebseg.main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"ebseg: error: argument {documented}")
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_json_everywhere() -> None:
    without = {
        name for name, one in LEAVES.items() if not any("--json" in o.option_strings for o in options(one))
    }
    assert without == set(NO_JSON)


def test_commands_are_in_the_document() -> None:
    documented = {
        name for row in table_rows("docs/commands.md", "## Commands") for name in code_spans(row[1])
    }
    assert documented == set(LEAVES)


def test_exit_codes_are_in_the_document() -> None:
    documented = {int(row[0]) for row in table_rows("docs/commands.md", "## Exit codes")}
    own = {ebseg.DONE, ebseg.FAILED, ebseg.UNUSABLE, ebseg.INTERRUPTED, ebseg.BROKEN_PIPE}
    assert documented == own
    assert all(re.search(rf"\b{code}\s[a-z]", ebseg.build_parser().format_help()) for code in own)


def completed(line: str, environment: dict[str, str]) -> list[str]:
    """What a real bash offers at the end of a line."""
    script = (
        "set -eu\nsource <(ebseg completion bash)\n"
        "COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDS=($1) COMP_CWORD=0\n"
        "_python_argcomplete ebseg\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    offered = done(["bash", "-c", script, "bash", line], environment, ROOT).stdout
    return [text.strip() for text in offered.splitlines() if text.strip()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ebseg se", ["segment", "serve"]),
        ("ebseg models ro", ["rollback"]),
        ("ebseg segment --ov", ["--overlay"]),
        ("ebseg import --variant base-", ["base-swin-b", "base-swin-t"]),
        ("ebseg segment samples/vil", ["samples/village.jpg"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], environment: dict[str, str]) -> None:
    assert sorted(completed(line, environment)) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ebseg.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert {"bash": "complete", "zsh": "#compdef ebseg", "fish": "complete --command ebseg"}[shell] in script


def command(*words: object) -> list[str]:
    return ["ebseg", *map(str, words)]


@pytest.fixture(scope="module")
def url(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real service with the packaged model."""
    log = tmp_path_factory.mktemp("server") / "log"
    with served(command("serve", "--port", 0), environment, ROOT, log) as address:
        yield address


def test_folder_here_and_on_a_service_gives_the_same(
    url: str, workspace: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The client waits for the model: its requests are refused, and sent again, while that is loading."""
    words = command("segment", workspace / "samples", *CLASSES, "--json")
    there = done([*words, "--out", "there", "--sheet", "sheet.png", "--url", url], environment, tmp_path)
    here = done([*words, "--out", "here"], environment, tmp_path)
    documents = [[json.loads(line) for line in run.stdout.splitlines()] for run in (here, there)]
    for one in documents:
        assert [Path(entry["picture"]).stem for entry in one] == SAMPLES
    for mine, theirs in zip(*documents, strict=True):
        assert mine["model"] == theirs["model"]
        assert [item["area"] for item in mine["classes"]] == [item["area"] for item in theirs["classes"]]
    for name in SAMPLES:
        with (
            Image.open(tmp_path / "here" / f"{name}.png") as first,
            Image.open(tmp_path / "there" / f"{name}.png") as second,
        ):
            assert (np.asarray(first) == np.asarray(second)).all()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1600


def test_service_is_looked_after_by_commands(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(done(command("models", "list", "--url", url, "--json"), environment, tmp_path).stdout)
    assert [model["name"] for model in listed["models"]] == ["ebseg-tiny"]
    put = command("vocabularies", "put", "mine", "--classes", "house,hay", "--url", url)
    assert done(put, environment, tmp_path).stdout == "stored mine, 2 classes\n"
    refused = done(command("models", "rollback", "ebseg-tiny", "--url", url), environment, tmp_path, 2)
    assert "administration is off" in refused.stderr


def test_commands_of_the_document(url: str, workspace: Path, environment: dict[str, str]) -> None:
    """In their order: what one stores the next one shows."""
    text = "".join(
        block.text for block in blocks() if (block.document, block.language) == ("docs/commands.md", "sh")
    )
    lines = [line for line in text.splitlines() if line.startswith("ebseg ")]
    assert len(lines) == 8
    for line in lines:
        done(["bash", "-c", line.replace(DEFAULT_URL, url)], environment, workspace)
    assert sorted(path.stem for path in (workspace / "masks").iterdir()) == SAMPLES
    assert sorted(path.stem for path in (workspace / "overlays").iterdir()) == SAMPLES
    assert (workspace / "sheet.png").stat().st_size > 0


def test_example_of_a_file_of_classes(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    (example,) = [
        block.text for block in blocks() if (block.document, block.language) == ("docs/commands.md", "json")
    ]
    (tmp_path / "harbour.json").write_text(example, encoding="utf-8")
    put = command("vocabularies", "put", "example", "--classes-file", "harbour.json", "--url", url, "--json")
    stored = json.loads(done(put, environment, tmp_path).stdout)
    assert [one["name"] for one in stored["classes"]] == ["boat", "water", "quay"]
    assert stored["classes"][1]["color"] == "#3366cc"


def test_progress_is_a_bar_on_a_terminal_only(
    environment: dict[str, str], workspace: Path, tmp_path: Path
) -> None:
    with scripted(Answer(seconds=0.2)) as server:
        words = command("segment", workspace / "samples", "--classes", "sky", "--url", server.url)
        assert done(words, environment, tmp_path).stderr == ""
        primary, secondary = pty.openpty()
        try:
            process = subprocess.Popen(
                words,
                cwd=tmp_path,
                env=environment | {"TERM": "xterm"},
                stdout=subprocess.DEVNULL,
                stderr=secondary,
            )
            os.close(secondary)
            shown = b""
            while True:
                try:
                    part = os.read(primary, 65536)
                except OSError:  # Linux's way to say that the other side is closed
                    break
                if not part:
                    break
                shown += part
            assert process.wait(SECONDS) == 0
        finally:
            os.close(primary)
    assert b"segmenting" in shown
    assert b"4/4" in shown


def test_interrupted_folder_ends_with_130(
    environment: dict[str, str], workspace: Path, tmp_path: Path
) -> None:
    files = [workspace / "samples" / f"{name}.jpg" for name in SAMPLES]
    with scripted(Answer(seconds=0.5)) as server:
        words = command("segment", *files, "--classes", "sky", "--url", server.url, "--parallel", 1, "--json")
        with subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            giving_up = threading.Timer(SECONDS, process.kill)
            giving_up.start()
            while not server.heard:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, documented = process.communicate()
            giving_up.cancel()
        assert (process.returncode, documented) == (130, "ebseg: error: interrupted\n")
        assert len(server.heard) <= 2
