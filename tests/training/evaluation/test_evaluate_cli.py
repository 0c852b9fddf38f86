"""`ebseg evaluate`, as a user runs it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import CheckpointError, ModelError
from tests.training.run.runs import CLASSES, SIDE, micro_config, write_places
from training.commands import evaluate
from training.data.protocol import write_differences
from training.errors import DatasetError, TrainingError

Command = Callable[..., int]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_places(tmp_path_factory.mktemp("places"), pictures=3)


def command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add(parser.add_subparsers())
    args = parser.parse_args(["evaluate", *map(str, words)])
    code: int = args.run(args)
    return code


def test_table_and_progress(places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*places) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert [line[:2] for line in lines[1:5]] == [
        ["red", "trained"],
        ["green", "trained"],
        ["blue", "trained"],
        ["yellow", "new"],
    ]
    assert ["images", "3"] in lines
    assert printed.out.splitlines()[-1] == "next: the same with --pictures DIR shows where it is wrong"
    assert "evaluating: 3 of 3" in printed.err


def test_json(places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*places, "--json", "--limit", "2", "--short-side", "96", "--balance", "off") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["checkpoint"] == "micro/3"
    assert values["balance"] == "off"
    assert (values["data"], values["split"], values["pictures"]) == ("micro", "val", 2)
    assert [row["name"] for row in values["classes"]] == list(CLASSES)
    assert 0 <= values["miou_trained"] <= 100


def test_pictures_and_split(
    places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--split", "train", "--pictures", tmp_path / "shown", "--picture-count", "1", "--json")
    assert command(*places, *words) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "train"
    assert sorted(path.name for path in (tmp_path / "shown").iterdir()) == ["contact-sheet.png", "train0.png"]


def test_the_confusion_is_written(places: tuple[str, str], tmp_path: Path) -> None:
    assert command(*places, "--confusion", tmp_path / "made") == 0
    table = (tmp_path / "made" / "confusion.csv").read_text().splitlines()
    assert table[0] == ",".join(("truth", *CLASSES))
    counted = sum(int(x) for row in table[1:] for x in row.split(",")[1:])
    assert counted == 3 * (SIDE**2 - 6 * 6)  # the corner is unknown
    assert (tmp_path / "made" / "confusion.png").is_file()


def test_the_worst_are_drawn(
    places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*places, "--worst", tmp_path / "worst", "--batch", "2", "--json") == 0
    worst = json.loads(capsys.readouterr().out)["worst"]
    names = [f"{place:02}-{one['picture']}-{one['miou']:.0f}.png" for place, one in enumerate(worst, 1)]
    assert len(names) == 3
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [*names, "contact-sheet.png"]


def test_what_is_otherwise_than_in_the_released_evaluation(
    places: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, data = places
    with pytest.raises(DatasetError, match=r"differences\.json is missing: .* is no benchmark"):
        command(checkpoint, data, "--protocol", "official")
    write_differences(Path(data), ["the sky was drawn by hand"])
    assert command(checkpoint, data, "--protocol", "official", "--limit", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differs"] == [
        "the sky was drawn by hand",
        "2 of 3 images are scored",
    ]
    assert command(checkpoint, data, "--protocol", "official") == 0
    assert "otherwise than in the released evaluation: the sky was drawn by hand\n" in capsys.readouterr().out
    write_differences(Path(data), [])
    assert command(checkpoint, data, "--protocol", "official", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differs"] == []
    assert command(checkpoint, data, "--json") == 0
    assert "differs" not in json.loads(capsys.readouterr().out)


def test_balances_of_the_words(places: tuple[str, str]) -> None:
    own = micro_config().balance
    assert evaluate._balance("configured", own) is own
    assert evaluate._balance("geometric", own) == own
    arithmetic = evaluate._balance("arithmetic", own)
    assert (arithmetic.mean, arithmetic.new) == ("arithmetic", own.new)
    assert evaluate._balance("off", own).trained.mask_attention == 1


def test_what_a_user_gets_wrong(
    places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, data = places
    with pytest.raises(DatasetError, match=r"classes\.json is missing"):
        command(checkpoint, tmp_path)
    with pytest.raises(DatasetError, match="right; there is train, val"):
        command(checkpoint, data, "--split", "test")
    with pytest.raises(CheckpointError, match="is not a folder"):
        command(tmp_path / "none", data)
    with pytest.raises(ModelError, match="the device 'gpu' cannot be used, take auto or cpu"):
        command(checkpoint, data, "--device", "gpu")
    with pytest.raises(TrainingError, match="--picture-count needs --pictures"):
        command(checkpoint, data, "--picture-count", "3")
    for wrong in (("--short-side", "-1"), ("--short-side", "large"), ("--balance", "harmonic")):
        with pytest.raises(SystemExit):
            command(checkpoint, data, *wrong)
    assert "argument --short-side: must be a whole number from 0" in capsys.readouterr().err


def test_short_sides() -> None:
    assert evaluate.short_side("configured") == "configured"
    assert evaluate.short_side("0") is None
    assert evaluate.short_side("640") == 640
