"""Class probabilities against the formulas as they are written down, and by hand."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from model import Balance, ModelError, Weights
from model.network.balance import ClassWords, class_probabilities

SCALE = 100.0  # CLIP's logit scale
GEOMETRIC = Balance.geometric(frozen_trained=0.09, frozen_new=0.3, mask_attention=0.7)
ARITHMETIC = Balance.arithmetic()
Formula = Callable[[Tensor, Tensor, Tensor, Tensor, list[bool]], Tensor]
EXACT = 1e-12  # of float64
MIXED = [True, False, True, False, False]


def unit(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def embeddings(queries: int = 6, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A has a learned length, B is unit, D is a mean of unit vectors."""
    return 4 * unit(queries, width, seed=1), unit(queries, width, seed=2), 0.6 * unit(queries, width, seed=3)


def rows(classes: int, width: int = 8) -> Tensor:
    """Text and background rows, close enough to each other that no probability is 0 or 1."""
    return 0.01 * SCALE * unit(classes + 1, width, seed=4)


def with_void(weight: Tensor, void: Tensor) -> Tensor:
    """softmax(log(w + e)) * (1 - void), void appended, softmax(log(. + e)); classes and void, [Q, K + 1]."""
    foreground = (weight + 1e-8).log().softmax(-1) * (1 - void)
    return (torch.cat([foreground, void], -1) + 1e-8).log().softmax(-1)


def geometric(a: Tensor, b: Tensor, d: Tensor, classifier: Tensor, trained: list[bool]) -> Tensor:
    """model.md's formulas with its letters: alpha, beta, gamma = 0.09, 0.3, 0.7."""
    alpha, beta, gamma = 0.09, 0.3, 0.7
    p_a, p_b, p_d = ((x @ classifier[:-1].T).softmax(-1) for x in (a, b, d))
    void = (a @ classifier.T).softmax(-1)[:, -1:]
    columns = []
    for k, known in enumerate(trained):
        share = alpha if known else beta
        columns.append(p_a[:, k] ** (1 - share - gamma) * p_d[:, k] ** share * p_b[:, k] ** gamma)
    return with_void(torch.stack(columns, -1), void)


def arithmetic(a: Tensor, b: Tensor, d: Tensor, classifier: Tensor, trained: list[bool]) -> Tensor:
    """Eq. 9-13: each class's logit comes from the embedding for its kind; then as above."""
    e_train = 0.2 * a + 0.7 * b + 0.1 * d
    e_new = 0.7 * b + 0.3 * d
    void = (a @ classifier.T).softmax(-1)[:, -1:]
    logits = [(e_train if known else e_new) @ classifier[k] for k, known in enumerate(trained)]
    return with_void(torch.stack(logits, -1).softmax(-1), void)


@pytest.mark.parametrize(
    "trained", [MIXED, [True] * 5, [False] * 5, [True], [False], [i % 3 == 0 for i in range(200)]]
)
@pytest.mark.parametrize(("balance", "formula"), [(GEOMETRIC, geometric), (ARITHMETIC, arithmetic)])
def test_equals_the_formulas(balance: Balance, formula: Formula, trained: list[bool]) -> None:
    a, b, d = embeddings()
    classifier = rows(len(trained))
    found = class_probabilities(a, b, d, classifier, torch.tensor(trained), balance)
    wanted = formula(a, b, d, classifier, trained)
    assert (found - wanted[:, :-1]).abs().max() <= EXACT
    rest = 1 - found.sum(-1)
    assert (rest - wanted[:, -1]).abs().max() <= EXACT
    assert 0.001 < rest.mean() < 0.999


def test_the_kind_of_a_class_matters() -> None:
    a, b, d = embeddings()
    classifier = rows(5)
    for balance in (GEOMETRIC, ARITHMETIC):
        found = [
            class_probabilities(a, b, d, classifier, torch.tensor(kinds), balance)
            for kinds in ([True] * 5, MIXED, [False] * 5)
        ]
        assert (found[0] - found[1]).abs().max() > 1e-3
        assert (found[1] - found[2]).abs().max() > 1e-3


def test_means_differ() -> None:
    a, b, d = embeddings()
    kinds = torch.tensor(MIXED)
    one, other = (class_probabilities(a, b, d, rows(5), kinds, x) for x in (GEOMETRIC, ARITHMETIC))
    assert (one - other).abs().max() > 1e-2


def test_arithmetic_mean_by_hand() -> None:
    """One query in the plane, a trained class along x, a new one along y, void between; no logit scale.

    A = (1, 0), B = (0, 1), D = (1, 1):
    E_train = 0.2 A + 0.7 B + 0.1 D = (0.3, 0.8), its logit on x: 0.3
    E_new = 0 A + 0.7 B + 0.3 D = (0.3, 1.0), its logit on y: 1.0
    """
    a, b, d = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    diagonal = math.sqrt(0.5)
    classifier = torch.tensor([[1.0, 0.0], [0.0, 1.0], [diagonal, diagonal]])
    void = math.exp(diagonal) / (math.exp(1) + math.exp(0) + math.exp(diagonal))
    first = math.exp(0.3) / (math.exp(0.3) + math.exp(1.0))
    wanted = [first * (1 - void), (1 - first) * (1 - void)]
    found = class_probabilities(a, b, d, classifier, torch.tensor([True, False]), ARITHMETIC)
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_geometric_mean_by_hand() -> None:
    """Two classes: the balanced odds are the product of the three odds, each to its share."""
    balance = Balance.geometric(frozen_trained=0.25, frozen_new=0.25, mask_attention=0.5)
    a, b, d = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    classifier = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-50.0, 0.0]])
    odds = math.exp(0.25 * 1 + 0.5 * -3 + 0.25 * (2 - 1))
    found = class_probabilities(a, b, d, classifier, torch.tensor([True, True]), balance)
    assert found[0].tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)], abs=1e-6)


def test_one_class_leaves_the_rest_to_void() -> None:
    a, b, d = embeddings()
    classifier = rows(1)
    found = class_probabilities(a, b, d, classifier, torch.tensor([False]), GEOMETRIC)
    void = (a @ classifier.T).softmax(-1)[:, 1]
    assert (found[:, 0] - (1 - void)).abs().max() <= 1e-6  # not exact: 1e-8 is added to probabilities


def test_certain_logits_stay_finite() -> None:
    """At CLIP's own scale probabilities underflow; what is added to the logarithms keeps them apart."""
    a, b, d = (10 * x / x.norm(dim=-1, keepdim=True) for x in embeddings())
    classifier = SCALE * unit(6, 8, seed=4)
    for balance, formula in ((GEOMETRIC, geometric), (ARITHMETIC, arithmetic)):
        found = class_probabilities(a, b, d, classifier, torch.tensor(MIXED), balance)
        wanted = formula(a, b, d, classifier, MIXED)[:, :-1]
        assert (found.double().sum(-1) <= 1 + 1e-6).all()
        assert wanted.min() < 1e-7
        assert ((found - wanted).abs() / wanted).max() <= 1e-6


def test_float32_is_near() -> None:
    """What the model hands over; above, float64 shows the formulas themselves."""
    a, b, d = (x.float() for x in embeddings())
    for balance, formula in ((GEOMETRIC, geometric), (ARITHMETIC, arithmetic)):
        found = class_probabilities(a, b, d, rows(5).float(), torch.tensor(MIXED), balance)
        assert found.dtype == torch.float32
        assert (found - formula(*embeddings(), rows(5), MIXED)[:, :-1]).abs().max() <= 1e-6


# --- weights


def test_weights_of_the_two_means() -> None:
    assert GEOMETRIC.trained == Weights(supervised=0.21, mask_attention=0.7, frozen=0.09)
    assert GEOMETRIC.new == Weights(supervised=0.0, mask_attention=0.7, frozen=0.3)
    assert ARITHMETIC.trained == Weights(supervised=0.2, mask_attention=0.7, frozen=0.1)
    assert ARITHMETIC.new == Weights(supervised=0.0, mask_attention=0.7, frozen=0.3)
    large = Balance.geometric(frozen_trained=0.12, frozen_new=0.4, mask_attention=0.6)
    assert large.trained == Weights(supervised=0.28, mask_attention=0.6, frozen=0.12)
    assert large.new == Weights(supervised=0.0, mask_attention=0.6, frozen=0.4)
    own = Balance.arithmetic(supervised_trained=0.5, supervised_new=0.1, mask_attention=0.25)
    assert own.trained == Weights(supervised=0.5, mask_attention=0.25, frozen=0.25)
    assert own.new == Weights(supervised=0.1, mask_attention=0.25, frozen=0.65)


@pytest.mark.parametrize(
    "shares",
    [
        (0.5, 0.5, 0.5),
        (0.2, 0.2, 0.2),
        (1.5, -0.5, 0.0),
        (-0.1, 0.6, 0.5),
        (math.nan, 0.5, 0.5),
        (0, 0, math.inf),
    ],
)
def test_weights_must_be_shares(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ModelError, match=r"0\.\.1 and add up to 1"):
        Weights(supervised=shares[0], mask_attention=shares[1], frozen=shares[2])


def test_impossible_balances() -> None:
    with pytest.raises(ModelError):
        Balance.geometric(frozen_trained=0.5, frozen_new=0.3, mask_attention=0.7)
    with pytest.raises(ModelError):
        Balance.arithmetic(supervised_trained=0.9)
    with pytest.raises(ModelError, match="harmonic"):
        dataclasses.replace(GEOMETRIC, mean="harmonic")  # type: ignore[arg-type]


# --- several words a class


@pytest.mark.parametrize("balance", [GEOMETRIC, ARITHMETIC])
@pytest.mark.parametrize("mode", ["best", "mean"])
def test_a_word_twice_changes_nothing(balance: Balance, mode: Literal["best", "mean"]) -> None:
    classifier = rows(5)
    doubled = classifier[[0, 0, 1, 2, 2, 2, 3, 4, 5]]
    words = ClassWords(classes=torch.tensor([0, 0, 1, 2, 2, 2, 3, 4]), count=5, mode=mode)
    trained = torch.tensor(MIXED)
    once = class_probabilities(*embeddings(), classifier, trained, balance)
    twice = class_probabilities(*embeddings(), doubled, trained, balance, words)
    assert (twice - once).abs().max() < EXACT


def test_the_best_word_or_their_mean_is_the_class() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, -2.0, 0.0, 1.0]])
    places = torch.tensor([0, 0, 1, 2, 2, 2])
    best = ClassWords(classes=places, count=3, mode="best").pooled(logits)
    assert best.tolist() == [[5.0, 3.0, 1.0]]
    mean = ClassWords(classes=places, count=3, mode="mean").pooled(logits)
    assert torch.allclose(mean, torch.tensor([[3.0, 3.0, -1 / 3]]))
