"""`ebseg ablate`, as a user runs it; the grids really train, two steps a run."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from model import TrainingClasses
from model.errors import ModelError
from model.network.balance import Balance
from model.network.build import build
from model.storage.checkpoint import Provenance, save
from tests.training.run.runs import CLASSES, micro_config, micro_run, write_places
from training.ablate import grid
from training.ablate.grid import GridRun, GridScore
from training.commands import ablate
from training.config import TrainConfig
from training.errors import TrainingError
from training.run import trainer as loop


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_places(tmp_path_factory.mktemp("places"), pictures=2)


def command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    ablate.add(parser.add_subparsers())
    args = parser.parse_args(["ablate", *map(str, words)])
    code: int = args.run(args)
    return code


@pytest.mark.parametrize(("name", "rows"), [("embeddings", 7), ("balance", 5)])
def test_tables_of_one_checkpoint(
    name: str, rows: int, places: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(name, *places) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("**Table ")
    assert sum(line.startswith("| ") for line in printed.out.splitlines()) == rows + 2
    assert "comparing balances: 2 of 2" in printed.err
    assert printed.err.splitlines()[-1].startswith("ebseg: next: ebseg ")
    assert command(name, *places, "--json", "--limit", "1") == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert len(table["rows"]) == rows
    assert "on 1 images" in table["notes"][0]


@pytest.mark.parametrize(
    ("name", "row", "scores"), [("embeddings", "A, B, D", 6), ("balance", "none: B alone", 3)]
)
def test_tables_of_several_trainings_have_mean_least_and_greatest(
    name: str,
    row: str,
    scores: int,
    places: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    ebseg = build(micro_config(), TrainingClasses.of(CLASSES[:3]), seed=2)
    save(ebseg, other, Provenance(name="micro", version=4, untrained=False))

    def row_of(*words: str | Path) -> dict[str, Any]:
        assert command(name, *words, "--json") == 0
        (table,) = json.loads(capsys.readouterr().out)["tables"]
        return next(found for found in table["rows"] if row in found.values())

    one, two, both = row_of(*places), row_of(other, places[1]), row_of(*places, "--also", other)
    spreads = {key: value for key, value in both.items() if isinstance(value, dict)}
    assert len(spreads) == scores
    for key, spread in spreads.items():
        values = sorted((one[key], two[key]))
        assert (spread["least"], spread["greatest"], spread["runs"]) == (*values, 2)
        assert spread["mean"] == pytest.approx(sum(values) / 2)
    assert any(spread["least"] < spread["greatest"] for spread in spreads.values())
    assert command(name, *places, "--also", other) == 0
    assert "Mean (least to greatest) of 2 trainings." in capsys.readouterr().out


def test_trainings_that_balance_otherwise_have_no_mean(places: tuple[str, str], tmp_path: Path) -> None:
    weights = Balance.geometric(frozen_trained=0.1, frozen_new=0.4, mask_attention=0.6)
    config = dataclasses.replace(micro_config(), balance=weights)
    ebseg = build(config, TrainingClasses.of(CLASSES[:3]), seed=2)
    save(ebseg, tmp_path / "other", Provenance(name="micro", version=4, untrained=False))
    for name in ("embeddings", "balance"):
        with pytest.raises(TrainingError, match="balance with other weights"):
            command(name, *places, "--also", tmp_path / "other")


def write_config(tmp_path: Path) -> Path:
    config = micro_run(tmp_path, val_split="val", steps=2)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(config.to_dict()))
    return path


def test_ssc_trains_compares_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # one of each form, kind of embeddings, and layers
    variants = ["none", "a-all", "a-last-3", "a-last-1-cosine", "b-last-1", "ab-last-1"]
    words: list[str | Path] = [write_config(tmp_path), "--variants", *variants, "--seeds", "1", "--out", out]
    assert command("ssc", *words) == 0
    printed = capsys.readouterr()
    assert printed.out == (out / "table.md").read_text()
    assert printed.out.count("**Table") == 2
    assert printed.err.splitlines()[-1].startswith(f"ebseg: next: {out / 'table.md'} has the table")
    trained = json.loads((out / "a-all" / "seed-0" / "config.json").read_text())
    assert trained["ssc_stages"] == micro_config().transformer_decoder.layers + 1

    def never(config: TrainConfig, out: Path) -> Path:
        raise AssertionError(f"{out} was finished")

    monkeypatch.setattr(loop, "train", never)
    assert command("ssc", *words, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert [run["variant"] for run in values["runs"]] == variants
    rows = [(row["embeddings"], row["layers"]) for row in values["tables"][0]["rows"]]
    layers = [("none", "none"), ("A", "all"), ("A", "last 3"), ("A", "last")]
    assert rows == [*layers, ("B", "last"), ("A and B", "last")]


def test_default_variants_are_the_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[GridRun] = []

    def fake(wanted: list[GridRun], *_: object, **__: object) -> list[GridScore]:
        runs.extend(wanted)
        return []

    monkeypatch.setattr(grid, "run_grid", fake)
    assert command("ssc", write_config(tmp_path), "--seeds", "1", "--out", tmp_path / "out") == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command("ssc", "--help")
    printed = capsys.readouterr().out
    shown = " ".join(printed[printed.index("positional arguments") :].split())
    assert f"(default: {' '.join(run.variant for run in runs)})" in shown


def test_backbones(tmp_path: Path, places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Another checkpoint of SAM's kind stands for the Swins': what counts is who starts from what."""
    words = (write_config(tmp_path), "--seeds", "1", "--out", tmp_path / "out")
    with pytest.raises(TrainingError, match="for --swin-t and --swin-b as well"):
        command("backbones", *words)
    assert command("backbones", *words, "--swin-t", places[0], "--swin-b", places[0], "--json") == 0
    values = json.loads(capsys.readouterr().out)
    (table,) = values["tables"]
    assert [row["backbone"] for row in table["rows"]] == ["Swin-T", "Swin-T", "Swin-B", "SAM"]
    trained, frozen = (row["parameters"] for row in table["rows"][:2])
    assert trained > frozen
    assert len(values["runs"]) == 4


def test_what_a_user_gets_wrong(tmp_path: Path, places: tuple[str, str]) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        command("ssc", tmp_path / "none.json", "--out", tmp_path / "out")
    config = write_config(tmp_path)
    with pytest.raises(TrainingError, match="no SSC variant 'best'"):
        command("ssc", config, "--variants", "best", "--out", tmp_path / "out")
    with pytest.raises(ModelError, match="device 'gpu' cannot be used"):
        command("ssc", config, "--device", "gpu", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
