"""`ebseg reproduce`, whole, on miniature benchmarks that `ebseg prepare` has made."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ebseg
import training.evaluation.benchmarks
import training.evaluation.reproduce
from model import TrainingClasses
from model.network.build import build
from model.released import known
from model.released.known import RELEASED
from model.storage.checkpoint import Provenance, save
from tests.training.data.prepare import miniature
from tests.training.run.runs import micro_config
from training.data.prepare.convert import prepare
from training.evaluation.benchmarks import BENCHMARKS
from training.evaluation.evaluate import evaluate_checkpoint

ROWS: miniature.Rows = [[1, 2, 20], [1, 2, 2]]
TWO = ("ade20k-150", "voc-20")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model that says that it is EBSeg-B, and two of the five benchmarks."""
    root = tmp_path_factory.mktemp("places")
    config = dataclasses.replace(micro_config(), variant="base")
    model = build(config, TrainingClasses.coco_stuff(), seed=1)
    save(model, root / "ebseg-base" / "1", Provenance(name="ebseg-base", version=1, untrained=False))
    miniature.voc(root / "downloads", {"val": {"2007_000032": ROWS, "2007_000033": ROWS}})
    miniature.ade20k_benchmark(root / "downloads", {"validation": {"ADE_val_00000001": ROWS}})
    prepare("voc", root / "downloads", root / "data" / "voc", splits=["val"], shown=False)
    prepare("ade20k-150", root / "downloads", root / "data" / "ade20k-150", splits=["val"], shown=False)
    return root / "ebseg-base" / "1", root / "data"


@pytest.fixture
def command(places: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, str, str]:
        checkpoint, data = places
        own = ["--checkpoint", checkpoint, "--keep", tmp_path / "kept.json"]
        code = ebseg.main(["reproduce", str(data), *map(str, own), *map(str, words)])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


def evaluations(monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> list[str]:
    """Folders that are evaluated from now on; the one of number `fails_at` is interrupted."""
    done: list[str] = []

    def watched(loaded: Any, folder: Any, **options: Any) -> Any:
        if len(done) == fails_at:
            raise KeyboardInterrupt
        done.append(folder.root.name)
        return evaluate_checkpoint(loaded, folder, **options)

    monkeypatch.setattr(training.evaluation.reproduce, "evaluate_checkpoint", watched)
    return done


def whole(monkeypatch: pytest.MonkeyPatch, scores: dict[str, float]) -> None:
    """As if the miniatures were the benchmarks, and these the paper's scores."""
    sizes = {"ade20k-150": 1, "voc-20": 2}
    small = {name: dataclasses.replace(BENCHMARKS[name], pictures=sizes[name]) for name in TWO}
    monkeypatch.setattr(training.evaluation.benchmarks, "BENCHMARKS", small)
    paper: Any = dataclasses.replace(RELEASED["base"], miou=scores)  # type: ignore[arg-type]
    monkeypatch.setattr(training.evaluation.reproduce, "RELEASED", {"base": paper})


def test_what_is_missing_is_named_with_the_command_that_makes_it(
    command: Command, places: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, err = command("--out", tmp_path / "page.md")
    assert code == 1
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()[4:-1]}
    assert list(lines) == list(BENCHMARKS)
    where = places[1]
    assert lines["ade20k-847"] == (
        f"ade20k-847 11.1 - not there: ebseg prepare ade20k-847 downloads {where}/ade20k-847 --splits val"
    )
    assert lines["ade20k-150"].startswith("ade20k-150 30.0 ")
    assert lines["ade20k-150"].endswith("1 of 2,000 images: not the benchmark")
    assert lines["voc-20"].endswith("2 of 1,449 images: not the benchmark")
    assert "evaluating: 1 of 1" in err
    assert "| VOC (voc-20) | 94.6 |" in (tmp_path / "page.md").read_text()


def test_within_the_papers_digit_or_not(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole(monkeypatch, dict.fromkeys(TWO, 0.0))
    code, out, _ = command("--benchmarks", ",".join(TWO), "--json")
    rows = {row["benchmark"]: row for row in json.loads(out)["benchmarks"]}
    found = {name: round(row["miou"], 1) for name, row in rows.items()}

    whole(monkeypatch, {name: score + 0.1 for name, score in found.items()})
    code, out, _ = command("--benchmarks", ",".join(TWO), "--out", tmp_path / "page.md")
    assert code == 0
    assert [line.rsplit("  ", 1)[1] for line in out.splitlines()[4:-1]] == ["within 0.1"] * 2
    page = (tmp_path / "page.md").read_text()
    assert page.count("| yes |") == 2
    for needed in (
        "weights sha256",
        "templates",
        "versions: torch",
        "short side",
        "dtype",
        "device",
        "command",
    ):
        assert f"| {needed}" in page

    whole(monkeypatch, {"ade20k-150": found["ade20k-150"], "voc-20": found["voc-20"] - 0.2})
    code, out, _ = command("--benchmarks", ",".join(TWO), "--json")
    assert code == 1
    printed = json.loads(out)
    assert [row["verdict"] for row in printed["benchmarks"]] == ["within 0.1", "not within 0.1"]
    assert printed["reproduced"] is False
    assert len(printed["setting"]["templates"]) == 14
    assert len(printed["benchmarks"][0]["data_digest"]) == 64


def test_goes_on_after_an_interruption(
    command: Command, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluations(monkeypatch, fails_at=1)
    assert command("--benchmarks", ",".join(TWO))[0] == 130
    assert first == ["ade20k-150"]
    monkeypatch.undo()
    second = evaluations(monkeypatch)
    _, out, _ = command("--benchmarks", ",".join(TWO), "--json")
    assert second == ["voc"]
    _, again, _ = command("--benchmarks", ",".join(TWO), "--json")
    assert second == ["voc"]
    assert json.loads(again)["benchmarks"] == json.loads(out)["benchmarks"]

    labels = places[1] / "ade20k-150" / "classes.json"
    content = json.loads(labels.read_text())
    before = labels.read_text()
    labels.write_text(json.dumps(content | {"title": "another"}))
    try:
        command("--benchmarks", "ade20k-150")
    finally:
        labels.write_text(before)
    assert second == ["voc", "ade20k-150"]  # other data, so it was scored again


def test_what_a_user_gets_wrong(
    command: Command, places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, data = places

    def refused(*words: object, code: int = 2) -> str:
        found, out, err = command(*words)
        assert (found, out) == (code, "")
        assert err.startswith("ebseg: error: ")
        assert err.count("\n") == 1
        return err

    assert "no benchmark 'voc'; known are ade20k-847, " in refused("--benchmarks", "voc")
    assert "name each benchmark once" in refused("--benchmarks", "voc-20,voc-20")
    monkeypatch.chdir(tmp_path)
    assert "registry/ebseg-large/1 is not there: ebseg pull large" in refused("--checkpoint", "large")
    packaged = Path(ebseg.__file__).parent / "model" / "pretrained" / "ebseg-tiny" / "1"
    assert "variant tiny, and the paper has scores of base and large" in refused("--checkpoint", packaged)
    (tmp_path / "kept.json").write_text("[]")
    assert "kept.json holds no scores" in refused()
    assert "kept.json" in refused("--keep", tmp_path / "kept.json" / "below-a-file.json")

    wrong = tmp_path / "data"
    (wrong / "voc-20").parent.mkdir()
    (data / "ade20k-150").rename(wrong / "voc-20")
    try:
        code = ebseg.main(["reproduce", str(wrong), "--checkpoint", str(checkpoint)])
    finally:
        (wrong / "voc-20").rename(data / "ade20k-150")
    assert code == 2
    assert not (wrong / "reproduced.json").exists()
    assert ebseg.main(["reproduce", str(tmp_path / "none"), "--checkpoint", str(checkpoint)]) == 2


def test_untrained_weights_have_nothing_to_reproduce(
    places: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(micro_config(), variant="base")
    model = build(config, TrainingClasses.coco_stuff(), seed=1)
    save(model, tmp_path / "ebseg-base" / "2", Provenance(name="ebseg-base", version=2, untrained=True))
    words = ["reproduce", str(places[1]), "--checkpoint", str(tmp_path / "ebseg-base" / "2")]
    assert ebseg.main(words) == 2
    assert "is untrained: there is nothing to reproduce" in capfd.readouterr().err


def test_names_are_those_of_the_table() -> None:
    assert known.BENCHMARKS == tuple(BENCHMARKS) == tuple(RELEASED["base"].miou)
