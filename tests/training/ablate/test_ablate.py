"""The paper's tables: subsets of a balance, one pass, grids of runs that go on, and what the tables say."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from model import VARIANTS, Balance, MaskPredictions, TrainingClasses, Weights
from model.network.build import build
from model.storage.checkpoint import LoadedCheckpoint, Provenance, load, save
from tests.training.run.runs import CLASSES, micro_config, micro_run, write_dataset
from training.ablate import backbones, ssc
from training.ablate.grid import (
    GridRun,
    GridScore,
    by_seed,
    model_config,
    read_config,
    run_grid,
    spread,
    trained_parameters,
)
from training.ablate.subsets import SUBSETS, balance_table, compare, embeddings_table, restricted
from training.ablate.tables import Spread, Table, as_markdown
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.evaluation.confusion_counts import Options
from training.evaluation.evaluate import evaluate
from training.run import trainer as loop

SILENT = Options(shown=False)
BASE = VARIANTS["base"].balance


def shares(weights: Weights) -> tuple[float, float, float]:
    return weights.supervised, weights.mask_attention, weights.frozen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SegmentationFolder:
    return SegmentationFolder(write_dataset(tmp_path_factory.mktemp("data"), pictures=2), "val")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedCheckpoint:
    place = tmp_path_factory.mktemp("registry") / "micro" / "1"
    ebseg = build(micro_config(), TrainingClasses.of(CLASSES[:3]), seed=1)
    save(ebseg, place, Provenance(name="micro", version=1, untrained=False))
    return load(place)


# --- Tables 3 and 4


@pytest.mark.parametrize(
    ("subset", "trained", "new"),
    [
        ("A", (1, 0, 0), (1, 0, 0)),  # no weight for new classes is left: shared equally
        ("B", (0, 1, 0), (0, 1, 0)),
        ("D", (0, 0, 1), (0, 0, 1)),
        ("AB", (0.21 / 0.91, 0.7 / 0.91, 0), (0, 1, 0)),
        ("AD", (0.7, 0, 0.3), (0, 0, 1)),
        ("BD", (0, 0.7 / 0.79, 0.09 / 0.79), (0, 0.7, 0.3)),
        ("ABD", (0.21, 0.7, 0.09), (0, 0.7, 0.3)),
    ],
)
def test_subsets_keep_the_others_proportions(
    subset: str, trained: tuple[float, ...], new: tuple[float, ...]
) -> None:
    for mean in ("geometric", "arithmetic"):
        found = restricted(dataclasses.replace(BASE, mean=mean), subset)
        assert found.mean == mean
        assert shares(found.trained) == pytest.approx(trained)
        assert shares(found.new) == pytest.approx(new)


def test_nothing_left_is_shared_equally() -> None:
    only_b = Weights(supervised=0, mask_attention=1, frozen=0)
    found = restricted(Balance(mean="geometric", trained=only_b, new=only_b), "AD")
    assert shares(found.new) == (0.5, 0, 0.5)


def test_all_three_are_the_balance_itself() -> None:
    assert restricted(BASE, "ABD") is BASE


def test_one_pass_equals_single_evaluations(
    loaded: LoadedCheckpoint, folder: SegmentationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    balances = {name: restricted(BASE, name) for name in SUBSETS} | {"again": BASE}
    wanted = {
        name: evaluate(loaded.ebseg, folder, balance=balance, shown=False)
        for name, balance in balances.items()
    }
    predicted: list[Tensor] = []
    predict = loaded.ebseg.predict

    def counted(images: Tensor) -> MaskPredictions:
        predicted.append(images)
        return predict(images)

    monkeypatch.setattr(loaded.ebseg, "predict", counted)
    found = compare(loaded, folder, balances, options=SILENT)
    assert len(predicted) == len(folder)
    assert list(found) == list(balances)
    for name, evaluation in found.items():
        assert evaluation.to_json() == wanted[name].to_json()


def test_table_3(loaded: LoadedCheckpoint, folder: SegmentationFolder) -> None:
    table = embeddings_table(loaded, folder, options=SILENT)
    rows = table.to_json()["rows"]
    assert [row["embeddings"] for row in rows] == ["A", "B", "D", "A, B", "A, D", "B, D", "A, B, D"]
    assert [row["paper"] for row in rows] == [17.7, 29.0, 19.7, 29.4, 26.3, 29.7, 30.0]
    whole = evaluate(loaded.ebseg, folder, shown=False)
    assert rows[-1]["miou_all_geometric"] == whole.miou_all
    assert rows[-1]["miou_new_geometric"] == whole.miou_new
    arithmetic = dataclasses.replace(loaded.ebseg.config.balance, mean="arithmetic")
    other = evaluate(loaded.ebseg, folder, balance=arithmetic, shown=False)
    assert rows[-1]["miou_trained_arithmetic"] == other.miou_trained
    assert all(row["miou_all_geometric"] == row["miou_all_arithmetic"] for row in rows[:3])
    assert "micro version 1 on 2 images of micro, val" in table.notes[0]
    assert "trained classes A 0.21, B 0.7, D 0.09; new classes A 0, B 0.7, D 0.3" in table.notes[0]


def test_table_4(loaded: LoadedCheckpoint, folder: SegmentationFolder) -> None:
    rows = balance_table(loaded, folder, options=SILENT).to_json()["rows"]
    assert [row["balancing"] for row in rows] == [
        "none: B alone",
        "A, B, D, geometric mean",
        "A, B, D, arithmetic mean",
        "geometric, all classes weighted as trained",
        "geometric, all classes weighted as new",
    ]
    paper = [(row["paper_trained"], row["paper_new"], row["paper"]) for row in rows]
    assert paper[:2] == [(39.5, 20.5, 29.0), (40.3, 21.6, 30.0)]
    whole = evaluate(loaded.ebseg, folder, shown=False)
    assert rows[1]["miou_trained"] == whole.miou_trained
    b_alone = evaluate(loaded.ebseg, folder, balance=restricted(BASE, "B"), shown=False)
    assert rows[0]["miou_new"] == b_alone.miou_new


# --- grids


class FakeTraining:
    """Leaves a ready checkpoint where the loop would leave its own, and remembers the runs."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.runs: list[tuple[TrainConfig, Path]] = []
        self.fail_at: int | None = None

    def __call__(self, config: TrainConfig, out: Path, *, device: str) -> Path:
        if self.fail_at == len(self.runs):
            raise TrainingError("step 3: the loss is not finite")
        self.runs.append((config, out))
        shutil.copytree(self.checkpoint, out / "checkpoint")
        return out


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, loaded: LoadedCheckpoint) -> FakeTraining:
    fake = FakeTraining(loaded.directory)
    monkeypatch.setattr(loop, "train", fake)
    return fake


def plain_table(scores: Sequence[GridScore]) -> list[Table]:
    rows = tuple((score.variant, score.seed) for score in scores)
    return [Table(title="Runs", columns=(("variant", "variant"), ("seed", "seed")), rows=rows)]


def small_grid(tmp_path: Path, **fields: Any) -> list[GridRun]:
    config = micro_run(tmp_path, val_split="val", **fields)
    return by_seed({"one": config, "two": dataclasses.replace(config, ssc="none")}, 2)


def test_a_grid_goes_seed_by_seed(
    tmp_path: Path, training: FakeTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    scores = run_grid(small_grid(tmp_path, seed=5), out, plain_table)
    assert [(score.variant, score.seed) for score in scores] == [
        ("one", 5),
        ("two", 5),
        ("one", 6),
        ("two", 6),
    ]
    assert [path for _, path in training.runs] == [
        out / "one" / "seed-5",
        out / "two" / "seed-5",
        out / "one" / "seed-6",
        out / "two" / "seed-6",
    ]
    assert [config.ssc for config, _ in training.runs] == ["official", "none"] * 2
    printed = capsys.readouterr().err
    assert "4 runs, 0 of them finished before" in printed
    assert "run 2 of 4: two, seed 5" in printed
    first = scores[0]
    checkpoint = load(out / "one" / "seed-5" / "checkpoint")
    folder = SegmentationFolder(tmp_path / "data", "val")
    assert first.miou_all == evaluate(checkpoint.ebseg, folder, shown=False).miou_all
    assert first.trained_parameters == trained_parameters(checkpoint.ebseg, False) > 0
    assert (out / "table.md").read_text() == as_markdown(plain_table(scores))


def test_a_stopped_grid_goes_on(
    tmp_path: Path, training: FakeTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    training.fail_at = 3
    with pytest.raises(TrainingError, match="not finite"):
        run_grid(small_grid(tmp_path), out, plain_table)
    assert (out / "table.md").read_text().count("one") == 2
    training.fail_at = None
    scores = run_grid(small_grid(tmp_path, workers=0, save_every=7), out, plain_table)
    assert len(training.runs) == 4
    assert len(scores) == 4
    assert "4 runs, 3 of them finished before" in capsys.readouterr().err
    assert run_grid(small_grid(tmp_path), out, plain_table) == scores
    assert len(training.runs) == 4


def test_runs_of_another_configuration_are_not_taken(tmp_path: Path, training: FakeTraining) -> None:
    out = tmp_path / "out"
    run_grid(small_grid(tmp_path)[:1], out, plain_table)
    with pytest.raises(TrainingError, match=r"seed-0 was trained with another learning_rate, steps; take an"):
        run_grid(small_grid(tmp_path, steps=9, learning_rate=1.0), out, plain_table)
    score = out / "one" / "seed-0" / "score.json"
    score.write_text('{"config": 3}')
    with pytest.raises(TrainingError, match=r"score\.json is damaged, remove it"):
        run_grid(small_grid(tmp_path), out, plain_table)


def test_configurations_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(TrainingError, match="cannot be read"):
        read_config(path)
    config = micro_run(tmp_path, val_split="val")
    path.write_text(json.dumps(config.to_dict()))
    assert read_config(path) == config
    path.write_text(json.dumps(dataclasses.replace(config, val_split=None).to_dict()))
    with pytest.raises(TrainingError, match="set val_split"):
        read_config(path)
    assert model_config(config) == micro_config()
    tiny = dataclasses.replace(config, init=None, variant="tiny")
    assert model_config(tiny) == VARIANTS["tiny"]
    with pytest.raises(TrainingError, match="no variant 'vast'"):
        model_config(dataclasses.replace(tiny, variant="vast"))
    with pytest.raises(TrainingError, match="is no checkpoint folder"):
        model_config(dataclasses.replace(config, init=str(tmp_path)))
    with pytest.raises(TrainingError, match="at least one seed"):
        by_seed({"one": config}, 0)


def test_a_trained_backbone_counts() -> None:
    ebseg = build(micro_config(), TrainingClasses.of(["a"]), seed=None)
    backbone = sum(x.numel() for x in ebseg.backbone.parameters() if not x.requires_grad)
    assert backbone > 0
    assert trained_parameters(ebseg, True) == trained_parameters(ebseg, False) + backbone


# --- Tables 5 to 7


def a_score(variant: str, seed: int, miou: float, new: float | None = 20.0) -> GridScore:
    return GridScore(
        variant=variant, seed=seed, miou_all=miou, miou_trained=40.0, miou_new=new, trained_parameters=590_000
    )


def test_ssc_runs(tmp_path: Path) -> None:
    config = micro_run(tmp_path, val_split="val")
    runs = ssc.runs(config, ssc.CHOSEN, 2, decoder_layers=6)
    assert len(runs) == 14
    found = {run.variant: run.config for run in runs if run.config.seed == 0}
    a, b = "supervised", "mask_attention"
    assert {name: (x.ssc, x.ssc_embeddings, x.ssc_stages) for name, x in found.items()} == {
        "none": ("none", (a,), 1),
        "a-last-1": ("official", (a,), 1),
        "a-last-1-cosine": ("cosine", (a,), 1),
        "a-last-3": ("official", (a,), 3),
        "a-all": ("official", (a,), 7),  # before the first layer and after each of the six
        "b-last-1": ("official", (b,), 1),
        "ab-last-1": ("official", (a, b), 1),
    }
    with pytest.raises(TrainingError, match="no SSC variant 'c-all'; known are none, a-all"):
        ssc.runs(config, ["none", "c-all"], 1, decoder_layers=6)


def test_table_5_has_the_papers_rows() -> None:
    scores = [a_score(name, seed, 30.0 + seed) for name in ssc.VARIANTS for seed in range(3)]
    rows = ssc.table_5(scores).to_json()["rows"]
    cells = [(row["embeddings"], row["layers"], row["form"], row["paper"]) for row in rows]
    assert cells == [
        ("none", "none", "none", 29.2),
        ("A", "all", "official", 29.0),
        ("A", "last 3", "official", 29.6),
        ("A", "last", "official", 30.0),
        ("A", "last", "cosine", None),
        ("B", "all", "official", 28.6),
        ("B", "last 3", "official", 28.8),
        ("B", "last", "official", 29.1),
        ("A and B", "all", "official", 28.8),
        ("A and B", "last 3", "official", 29.3),
        ("A and B", "last", "official", 29.7),
    ]
    assert rows[0]["miou_all"] == {"mean": 31.0, "least": 30.0, "greatest": 32.0, "runs": 3}
    assert len(ssc.table_5(scores[:3]).rows) == 1


def test_table_6_has_the_papers_rows() -> None:
    table = ssc.table_6([a_score("none", 0, 30.0), a_score("a-last-1", 0, 31.0, None)])
    lines = table.markdown().splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[4], lines[5])] == [
        ["without", "40.0", "20.0", "30.0", "40.6", "19.9", "29.2"],
        ["with", "40.0", "–", "31.0", "40.3", "21.6", "30.0"],
    ]
    assert "seeds 0." in lines[-1]


def test_backbone_starts(tmp_path: Path) -> None:
    config = micro_run(tmp_path, val_split="val")
    given = {"swin-t": "starts/t/1", "swin-b": "starts/b/1"}
    runs = backbones.runs(backbones.starts(config, given), 1)
    assert [(run.variant, run.config.init, run.config.train_backbone) for run in runs] == [
        ("swin-t-trained", "starts/t/1", True),
        ("swin-t", "starts/t/1", False),
        ("swin-b", "starts/b/1", False),
        ("sam", config.init, False),
    ]
    anew = dataclasses.replace(config, init=None, variant="tiny")
    runs = backbones.runs(backbones.starts(anew, {}), 2)
    assert [run.config.variant for run in runs[:4]] == ["tiny-swin-t", "tiny-swin-t", "tiny-swin-b", "tiny"]
    assert [model_config(run.config).swin is None for run in runs[:4]] == [False, False, False, True]
    with pytest.raises(TrainingError, match=r"weights for --swin-b as well"):
        backbones.starts(config, {"swin-t": "starts/t/1"})
    with pytest.raises(TrainingError, match="give no checkpoints"):
        backbones.starts(anew, given)


def test_table_7_has_the_papers_rows() -> None:
    rows = backbones.table_7([a_score(name, 0, 30.0) for name in backbones.ROWS]).to_json()["rows"]
    assert [(row["backbone"], row["frozen"], row["paper_parameters"], row["paper"]) for row in rows] == [
        ("Swin-T", "no", 50.2, 28.5),
        ("Swin-T", "yes", 24.5, 29.0),
        ("Swin-B", "yes", 24.9, 29.3),
        ("SAM", "yes", 26.6, 30.0),
    ]
    assert rows[0]["parameters"] == 590_000
    assert len(backbones.table_7([a_score("sam", 0, 1.0)]).rows) == 1


# --- tables


def test_spreads() -> None:
    assert Spread.of([]) is None
    assert Spread.of([None]) is None
    assert Spread.of([1.0, None, 4.0, 2.5]) == Spread(mean=2.5, least=1.0, greatest=4.0, runs=3)
    assert str(Spread.of([70.06])) == "70.1"
    assert str(Spread.of([69.0, 71.0])) == "70.0 (69.0 to 71.0)"
    scores = [a_score("one", 0, 1.0), a_score("one", 1, 2.0), a_score("two", 0, 9.0)]
    assert spread(scores, "one", "miou_all") == Spread(mean=1.5, least=1.0, greatest=2.0, runs=2)
    assert spread(scores, "three", "miou_all") is None


def test_markdown() -> None:
    table = Table(
        title="Beaches",
        columns=(("name", "name"), ("length", "length, km"), ("visitors", "visitors")),
        rows=(("long", 12.345, 1_000_000), ("short", None, 0)),
        notes=("Counted in May.",),
    )
    assert table.markdown().splitlines() == [
        "**Beaches**",
        "",
        "| name  | length, km |  visitors |",
        "| ----- | ---------: | --------: |",
        "| long  |       12.3 | 1,000,000 |",
        "| short |          – |         0 |",
        "",
        "Counted in May.",
    ]
    assert as_markdown([table, table]).count("Beaches") == 2
    assert table.to_json()["rows"][1] == {"name": "short", "length": None, "visitors": 0}
