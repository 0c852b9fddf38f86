"""`BatchSegmenter`: the same rows in every form, an error in its own row, bits of `ebseg segment`."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
import torch

from service.batch.examples import example
from service.batch.rows import COLUMNS
from service.batch.segmenter import BatchSegmenter
from service.errors import UsageError
from service.scheduling.torch_engine import TorchEngine
from service.segmentation.colors import class_colors
from service.segmentation.render import label_png
from tests.service.batch.pictures import write_pictures
from tests.service.cli_calls import run
from tests.service.fakes import encoded, picture

REQUEST = {"classes": ["house", {"name": "boat", "synonyms": ["ship"]}, {"name": "sky", "ignore": True}]}


@pytest.fixture(scope="module")
def segmenter() -> BatchSegmenter:
    return BatchSegmenter(request=REQUEST, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    write_pictures(made, 10, broken=5)
    return made


def paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_rows_are_those_of_the_command(segmenter: BatchSegmenter, folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in paths(folder):
        (flat / path.name).write_bytes(path.read_bytes())
    rows = segmenter([{"path": str(path)} for path in sorted(flat.iterdir())])
    assert (
        run("segment", flat, "--classes", "house, boat, sky", "--out", tmp_path / "masks", "--device", "cpu")
        == 1
    )
    plain = BatchSegmenter(request={"classes": ["house", "boat", "sky"]}, device="cpu")
    for row in plain([{"path": str(path)} for path in sorted(flat.iterdir())]):
        mask = tmp_path / "masks" / Path(row["id"]).name
        assert (row["error"] is None) == mask.exists()
        if row["error"] is None:
            assert row["label_map"] == mask.read_bytes()
    assert sum(row["error"] is not None for row in rows) == 2


def test_broken_rows_cost_nothing_but_themselves(segmenter: BatchSegmenter, folder: Path) -> None:
    good = encoded(picture(40, 30))
    rows: list[dict[str, Any]] = [
        {"id": "good", "bytes": good},
        {"id": "broken", "bytes": good[:60]},
        {"id": "missing", "path": str(folder / "no.png")},
        {"id": "text", "bytes": "not bytes"},
        {"id": "nothing"},
        {"id": "void", "bytes": b""},
        {"id": "again", "bytes": good},
        {"path": str(paths(folder)[0])},
    ]
    made = segmenter(rows)
    assert [row["id"] for row in made] == [*(row["id"] for row in rows[:-1]), rows[-1]["path"]]
    assert [row["error"] is None for row in made] == [True, False, False, False, False, False, True, True]
    assert made[0]["label_map"] == made[6]["label_map"]
    assert (made[0]["width"], made[0]["height"], made[0]["classes"]) == (30, 40, ["house", "boat"])
    assert sum(made[0]["areas"]) <= 30 * 40
    assert all(list(row) == list(COLUMNS) for row in made)
    for row in made[1:6]:
        assert all(row[name] is None for name in COLUMNS if name not in ("id", "error"))
        assert len(row["error"].splitlines()) == 1
    assert "no.png cannot be read: No such file" in made[2]["error"]
    assert "neither `path` nor `bytes`" in made[4]["error"]


def test_forms_of_batches(segmenter: BatchSegmenter, folder: Path) -> None:
    rows = [{"id": path.name, "path": str(path)} for path in paths(folder)]
    expected = segmenter(rows)
    columns = {name: np.array([row[name] for row in rows], object) for name in ("id", "path")}
    by_column = segmenter(columns)
    frame = segmenter(pandas.DataFrame(rows))
    table = segmenter(pyarrow.Table.from_pylist(rows))
    (mapped,) = segmenter.map_in_pandas(iter([pandas.DataFrame(rows)]))
    assert table.to_pylist() == expected
    for name in COLUMNS:
        wanted = [row[name] for row in expected]
        assert list(by_column[name]) == wanted
        for made in (frame, mapped):
            missing = [value is None for value in wanted]
            assert [value is None or value != value for value in made[name]] == missing
            assert [value for value in made[name] if value == value and value is not None] == [
                value for value in wanted if value is not None
            ]
    assert segmenter([]) == []
    assert list(segmenter({"id": [], "path": []})["id"]) == []
    with pytest.raises(UsageError, match="different lengths"):
        segmenter({"id": [1], "path": []})
    with pytest.raises(UsageError, match="a list of mappings"):
        segmenter(7)


def test_a_pickled_one_loads_its_own_model(segmenter: BatchSegmenter) -> None:
    row = {"id": 1, "bytes": encoded(picture(20, 30))}
    (expected,) = segmenter([row])
    content = pickle.dumps(segmenter)
    assert len(content) < 10_000
    assert pickle.loads(content)([row]) == [expected]


def test_batches_of_one_shape_and_results_in_order(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Whatever waits for company, rows come back in order, and few are in memory."""
    sizes: list[int] = []
    predict = TorchEngine.predict

    def watched(self: TorchEngine, prepared: Any) -> Any:
        assert len({one.shape for one in prepared}) == 1
        sizes.append(len(prepared))
        return predict(self, prepared)

    monkeypatch.setattr(TorchEngine, "predict", watched)
    batched = BatchSegmenter(request=REQUEST, device="cpu", batch_size=3)
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for path in [path for path in paths(folder) if path.stat().st_size] * 4:
            taken += 1
            yield {"path": str(path)}

    made, ahead = [], 0
    for row in batched.segment(rows()):
        made.append(row)
        ahead = max(ahead, taken - len(made))
    assert [row["id"] for row in made] == [str(path) for path in paths(folder)] * 4
    assert max(sizes) == 3
    assert sum(sizes) == sum(row["error"] is None for row in made)
    assert len(sizes) <= sum(sizes) / 2
    assert ahead <= 4 * 3 + 2 * 2 + 2 * 2 + 2


def test_memory_that_does_not_hold_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = TorchEngine.predict

    def tight(self: TorchEngine, prepared: Any) -> Any:
        if len(prepared) > 1 or prepared[0].shape[0] > prepared[0].shape[1]:
            raise torch.OutOfMemoryError("no memory")
        return predict(self, prepared)

    monkeypatch.setattr(TorchEngine, "predict", tight)
    batched = BatchSegmenter(request=REQUEST, device="cpu", batch_size=4)
    wide, tall = encoded(picture(20, 60)), encoded(picture(60, 20))
    made = batched([{"bytes": content} for content in (wide, wide, tall, wide, wide)])
    assert [row["error"] for row in made] == [None, None, "no memory", None, None]


def test_two_threads_or_two_loops(segmenter: BatchSegmenter, folder: Path) -> None:
    """A caller that stops halfway keeps nobody from going on."""
    rows = [{"path": str(path)} for path in paths(folder)]
    expected = segmenter(rows)
    first, second = segmenter.segment(rows), segmenter.segment(rows)
    taken = [(next(first), next(second)) for _ in rows]
    assert [one for one, _ in taken] == [two for _, two in taken] == expected
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(segmenter, [rows, rows])) == [expected, expected]


def test_a_balance_of_the_request() -> None:
    """It is that of the service, whose engine has it as `to_balance` makes it."""
    shares = {"supervised": 1.0, "mask_attention": 0.0, "frozen": 0.0}
    other = {"supervised": 0.0, "mask_attention": 0.0, "frozen": 1.0}
    rows = [{"bytes": encoded(picture(60, 80))}]
    classes = ["house", "boat", "sky", "tree", "road"]
    made = {}
    for name, balance in (
        ("none", None),
        ("own", {"mean": "geometric"}),
        ("supervised", {"mean": "geometric", "trained": shares, "new": shares}),
        ("frozen", {"mean": "geometric", "trained": other, "new": other}),
    ):
        segmenter = BatchSegmenter(request={"classes": classes, "balance": balance}, device="cpu")
        (row,) = segmenter(rows)
        assert row["error"] is None
        made[name] = (row["label_map"], tuple(row["confidence"]))
    assert made["none"] == made["own"]
    assert len(set(made.values())) == 3


def test_examples_leave_out_what_cannot_be_read(segmenter: BatchSegmenter, tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    items = [{"id": path.name, "path": str(path)} for path in paths(tmp_path)]
    rows = segmenter(items)
    assert example(items, rows, max_pixels=10_000).title == items[0]["id"]  # type: ignore[union-attr]
    Path(items[0]["path"]).unlink()
    Path(items[1]["path"]).write_bytes(b"no picture")
    assert example(items, rows, max_pixels=10_000).title == items[2]["id"]  # type: ignore[union-attr]
    assert example(items, rows, max_pixels=1) is None


def test_examples_of_more_classes_than_a_palette_has() -> None:
    names = [f"class {index}" for index in range(300)]
    labels = np.arange(400, dtype=np.uint16).reshape(20, 20).clip(0, 300)
    item = {"id": "a", "bytes": encoded(picture(20, 20))}
    rows: list[dict[str, Any]] = [
        {
            "id": "a",
            "error": None,
            "classes": names,
            "label_map": label_png(labels, names, class_colors([None] * 300)),
        }
    ]
    assert example([item], rows, max_pixels=1000) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["labels"]}, "outputs are any of label_map, statistics, got labels"),
        ({"outputs": []}, "got none"),
        ({"threads": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"request": {"classes": []}}, "class list is empty"),
        ({"request": {}}, "classes or vocabulary"),
        ({"request": {"vocabulary": "no-such-list"}}, "no built-in vocabulary"),
        ({"request": {"classes": ["a"], "threshold": 1}}, "threshold"),
        ({"request": {"classes": ["a"], "outputs": ["png"]}}, "outputs: leave it out"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        BatchSegmenter(**{"request": REQUEST, **options})
