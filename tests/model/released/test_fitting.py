"""Every form that a released file comes in, and what the account says of each tensor."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ebseg
from model import CheckpointError, EBSeg
from model.official import to_official
from model.released.account import Account
from model.released.fitting import account_of
from model.released.importing import import_released, read_released
from model.released.official_names import CAUSAL_MASK, CLASS_WEIGHTS, COPIES
from model.storage.checkpoint import load
from tests.golden.weights import official_shapes

State = dict[str, Tensor]
TRAINER = {"iteration": 119_999, "optimizer": {"state": {0: torch.zeros(3)}}, "scheduler": OrderedDict(a=1)}
NUMPY_AUTHOR = {"__author__": "somebody", "matching_heuristics": True}


@pytest.fixture(scope="module")
def state(tiny: EBSeg) -> State:
    return to_official(tiny)


def renamed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


def arrays(state: State) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def means(scale: float = 1.0) -> State:
    """The pictures' normalisation, as versions of the official code save it."""
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    clip = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
    return {
        "pixel_mean": clip[:, None, None] * scale,
        "sam_pixel_mean": mean[:, None, None],
        "sam_pixel_std": deviation[:, None, None],
    }


FORMS: dict[str, tuple[Callable[[State], Any], dict[str, int]]] = {
    "as released": (lambda s: {"model": s}, {"checked": 5}),
    "with a trainer": (lambda s: {"model": s, **TRAINER}, {"checked": 5}),
    "a bare state dict": (lambda s: s, {"checked": 5}),
    "an OrderedDict": (lambda s: OrderedDict(s), {"checked": 5}),
    "under state_dict": (lambda s: {"state_dict": s, "epoch": 3}, {"checked": 5}),
    "wrapped twice": (lambda s: {"model": {"state_dict": s}}, {"checked": 5}),
    "DistributedDataParallel": (lambda s: {"model": renamed(s, "module.")}, {"renamed": 0, "checked": 5}),
    "compiled, in parallel, in a model": (lambda s: renamed(s, "model._orig_mod.module."), {"checked": 5}),
    "arrays": (lambda s: {"model": arrays(s), **NUMPY_AUTHOR}, {"checked": 5}),
    "parameters": (lambda s: {"model": {n: nn.Parameter(t) for n, t in s.items()}}, {"checked": 5}),
    "double precision": (lambda s: {"model": {n: t.double() for n, t in s.items()}}, {"checked": 5}),
    "no constants": (lambda s: without(s, CAUSAL_MASK, CLASS_WEIGHTS), {"checked": 3, "computed": 2}),
    "no copies": (lambda s: without(s, *COPIES), {"checked": 2, "computed": 3}),
    "the copies alone": (lambda s: without(s, *COPIES.values()), {"checked": 2, "renamed": 3}),
    "pixel means": (lambda s: {"model": s | means()}, {"checked": 8}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, tiny: EBSeg, state: State, tmp_path: Path) -> None:
    """All give the very weights that were written."""
    make, counts = FORMS[form]
    torch.save(make(state), tmp_path / "weights.pth")
    account = read_released(tmp_path / "weights.pth")
    assert (account.variant, account.problem) == ("tiny", None)
    found = {status: counted["tensors"] for status, counted in account.counts().items()}
    weights = len(tiny.state_dict())
    assert found["taken"] + found["renamed"] == weights
    if "module." in "".join(entry.name for entry in account.entries[:1]):
        assert found["renamed"] == weights
    else:
        assert found["renamed"] == counts.get("renamed", 0)
    assert {status: found[status] for status in ("checked", "computed")} == {
        status: counts.get(status, 0) for status in ("checked", "computed")
    }
    loaded, wanted = account.ebseg().state_dict(), tiny.state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(state: State, dtype: torch.dtype) -> None:
    """Constants and copies are what they should be up to its rounding."""
    half = {name: tensor.to(dtype) for name, tensor in (state | means()).items()}
    if dtype == torch.bfloat16:  # too coarse for the pixel means
        half = without(half, *means())
    account = account_of(half)
    assert account.problem is None
    weights = account.ebseg().state_dict()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert torch.equal(weights["background"], state["ov_classifier.bg_embed"].to(dtype).float())


# --- what is refused, and what may be left out

BAD: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (
        lambda s: without(s, "backbone.pos_embed"),
        "1 missing: backbone.pos_embed",
    ),
    "both copies missing": (
        lambda s: without(s, "clip_rec_head.proj", "clip_visual_extractor.proj"),
        "1 missing: clip_rec_head.proj",
    ),
    "misshapen": (
        lambda s: s | {"ov_classifier.bg_embed": torch.zeros(1, 95)},
        "1 misshapen: ov_classifier.bg_embed is [1, 95] instead of [1, 96]",
    ),
    "unknown": (
        lambda s: s | {f"ema.{i}": torch.zeros(1) for i in range(7)},
        "7 unknown: ema.0, ema.1, ema.2, ema.3, ema.4, ... (--ignore PATTERN leaves unknown ones out)",
    ),
    "twice": (
        lambda s: s | {"module.backbone.pos_embed": s["backbone.pos_embed"]},
        "1 unknown: module.backbone.pos_embed is backbone.pos_embed by another name",
    ),
    "whole numbers": (
        lambda s: s | {"ov_classifier.bg_embed": torch.zeros(1, 96, dtype=torch.int64)},
        "1 wrong: ov_classifier.bg_embed is int64, not floating point",
    ),
    "not finite in float32": (
        lambda s: s | {"ov_classifier.bg_embed": torch.full((1, 96), 1e300, dtype=torch.float64)},
        "1 wrong: ov_classifier.bg_embed holds values that are not finite",
    ),
    "class weights": (
        lambda s: s | {CLASS_WEIGHTS: torch.zeros(172)},
        f"1 wrong: {CLASS_WEIGHTS} is not the loss' weights",
    ),
    "other classes": (
        lambda s: s | {CLASS_WEIGHTS: torch.ones(151)},
        "is [151] instead of [172]: it was trained on other classes, name them with --training-classes",
    ),
    "pixel means": (
        lambda s: s | means(1 / 255),
        "1 wrong: pixel_mean is not the mean that CLIP's images are normalised with",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str, state: State) -> None:
    make, reason = BAD[case]
    account = account_of(make(state), "tiny")
    assert account.problem is not None
    assert reason in account.problem
    with pytest.raises(CheckpointError):
        account.ebseg()


def test_left_out_by_name(state: State) -> None:
    more = state | {"ema.a": torch.zeros(1), "ema.b": torch.zeros(2), CLASS_WEIGHTS: torch.zeros(3)}
    account = account_of(more, others={"ema.step": "of type int"}, ignore=["ema.*", "criterion.empty_weight"])
    assert account.problem is None
    assert sorted(entry.name for entry in account.of("ignored")) == [
        CLASS_WEIGHTS,
        "ema.a",
        "ema.b",
        "ema.step",
    ]
    assert "1 unknown: ema.step is of type int and no tensor" in str(
        account_of(state, others={"ema.step": "of type int"}).problem
    )


@pytest.mark.parametrize("pattern", ["nothing.*", "backbone.pos_embed", "ema"])
def test_a_pattern_that_leaves_nothing_out(state: State, pattern: str) -> None:
    with pytest.raises(CheckpointError, match=r"matches nothing that could be left out"):
        account_of(state | {"ema.a": torch.zeros(1)}, ignore=["ema.*", pattern])


# --- which variant


def shapes_of(variant: str) -> State:
    """Zeros under the released names, of the released shapes, in the memory of one number."""
    zeros = {name: torch.zeros(()).expand(shape) for name, shape in official_shapes(variant).items()}
    weights = torch.ones(172)
    weights[-1] = 0.1
    context = zeros[CAUSAL_MASK].shape[0]
    return zeros | {
        CLASS_WEIGHTS: weights,
        CAUSAL_MASK: torch.full((context, context), float("-inf")).triu(1),
    }


@pytest.mark.parametrize("variant", ["base", "large"])
def test_the_shapes_tell_the_variant(variant: str) -> None:
    account = account_of(renamed(shapes_of(variant), "module."))
    assert (account.variant, account.problem) == (variant, None)
    assert len(account.of("checked")) == 5
    assert sum(p.numel() for p in account.ebseg().parameters()) > 250_000_000
    other = {"base": "large", "large": "base"}[variant]
    with pytest.raises(CheckpointError, match=f"these are weights of the variant {variant}, not {other}"):
        account_of(shapes_of(variant), other)


def test_a_damaged_file_of_another_variant() -> None:
    few = dict(list(shapes_of("large").items())[:900])
    with pytest.raises(CheckpointError, match="these are weights of the variant large, not base"):
        account_of(few, "base")
    assert account_of(few).variant == "large"


@pytest.mark.parametrize("tensors", [{}, {"a": torch.zeros(2)}])
def test_no_weights_of_ebseg(tensors: State) -> None:
    with pytest.raises(CheckpointError, match="holds no weights of EBSeg"):
        account_of(tensors)


def test_variants_that_were_never_released(state: State) -> None:
    with pytest.raises(CheckpointError, match="the variant tiny-swin-t has not"):
        account_of(state, "tiny-swin-t")


# --- the command, and the folder


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = ebseg.main(["import", *map(str, words)])
    printed = capfd.readouterr()
    return code, printed.out, printed.err


def test_dry_run(state: State, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": without(state, CLASS_WEIGHTS) | {"ema.a": torch.zeros(5)}}, path)
    code, out, err = run(capfd, path, "--dry-run", "--ignore", "ema.*")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert "computed 1 0 copies and constants that the file has not" in lines
    assert "ignored 1 20 left out by --ignore" in lines
    assert "ema.a [5]" in lines
    assert lines[-1] == "would be imported as variant tiny"

    code, out, err = run(capfd, path, "--dry-run", "--json")
    printed = json.loads(out)
    assert code == 2
    assert err.startswith(f"ebseg: error: {path}: tensors do not fit the variant tiny; 1 unknown: ema.a")
    assert printed["fits"] is False
    assert printed["counts"]["unknown"] == {"tensors": 1, "bytes": 20}
    assert {"name": "ema.a", "status": "unknown", "shape": [5]} in printed["tensors"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]


def test_out_or_dry_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert "one of the arguments --out --dry-run is required" in run(capfd, "x.pth")[2]
    assert "not allowed with" in run(capfd, "x.pth", "--dry-run", "--out", "a/1")[2]


def test_export_and_import_again_is_the_same_version(
    state: State, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(renamed(without(state, *COPIES), "module."), tmp_path / "weights.pth")
    assert run(capfd, tmp_path / "weights.pth", "--out", tmp_path / "a" / "1")[0] == 0
    words = ["export", str(tmp_path / "a" / "1"), "--official", str(tmp_path / "again.pth")]
    assert ebseg.main(words) == 0
    capfd.readouterr()
    assert run(capfd, tmp_path / "again.pth", "--out", tmp_path / "b" / "1")[0] == 0
    first, second = (load(tmp_path / name / "1").manifest for name in ("a", "b"))
    assert first.digest == second.digest


def test_a_model_that_computes_something_else_never_appears(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "weights.pth")
    monkeypatch.setattr("model.storage.golden.TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match="golden image's outputs are off"):
        import_released(tmp_path / "weights.pth", tmp_path / "m" / "1", name="m", version=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]


def test_the_account_is_of_the_file(state: State) -> None:
    account: Account = account_of(state)
    counts = account.counts()
    in_file = ("taken", "checked")
    assert sum(counts[status]["bytes"] for status in in_file) == sum(t.nbytes for t in state.values())
    assert [entry.name for entry in account.entries] == list(state)
