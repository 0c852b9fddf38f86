"""The training loss by hand, by gradients, and against the official code's on a fixed set of points."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from model.network.predictions import StagePredictions
from model.official import load_official, official_names
from tests.golden import weights
from training.losses import criterion
from training.losses.criterion import BatchTotals, EBSegLoss, LossWeights, Target, ssc_loss
from training.losses.matcher import Match, MatchingCosts, assign, pair_costs, sample_points

CORNERS = torch.tensor(
    [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
)  # cell centres of a 2 x 2 map
LEFT = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
SURE = 20.0


def halves() -> Target:
    """Class 1 on the left half, class 0 on the right, of a picture of 8 x 8 pixels."""
    left = torch.zeros(8, 8, dtype=torch.bool)
    left[:, :4] = True
    return Target(labels=torch.tensor([1, 0]), masks=torch.stack([left, ~left]))


def stage(mask_logits: Tensor, supervised: Tensor, mask_attention: Tensor | None = None) -> StagePredictions:
    other = supervised if mask_attention is None else mask_attention
    return StagePredictions(mask_logits=mask_logits, supervised=supervised, mask_attention=other)


def perfect(scale: float = SURE) -> tuple[StagePredictions, Tensor]:
    """Three queries: right half, nothing, left half; and a classifier of two classes and a background."""
    masks = scale * torch.stack([1 - 2 * LEFT, -torch.ones(2, 2), 2 * LEFT - 1])
    embeddings = torch.eye(3)[[0, 2, 1]]
    return stage(masks[None], embeddings[None]), scale * torch.eye(3)


def matched(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor, costs: MatchingCosts
) -> Match:
    (pair,) = assign([pair_costs(class_logits, mask_logits, labels, masks, CORNERS, costs)])
    return pair


# --- points and matching


def test_points_are_cell_centres() -> None:
    maps = torch.arange(4.0).view(1, 2, 2)
    assert sample_points(maps, CORNERS).tolist() == [[0, 1, 2, 3]]
    between = sample_points(maps, torch.tensor([[[0.5, 0.5], [0.25, 0.5]]]))
    assert between.tolist() == [[1.5, 1.0]]


def test_queries_go_to_the_masks_that_they_show() -> None:
    predictions, classifier = perfect()
    masks = torch.stack([LEFT, 1 - LEFT])
    logits = predictions.supervised[0] @ classifier.T
    found = matched(logits, predictions.mask_logits[0], torch.tensor([1, 0]), masks, MatchingCosts())
    assert [index.tolist() for index in found] == [[0, 2], [1, 0]]


def test_costs_by_hand() -> None:
    """Two queries that differ in one cost only: the cheaper one is taken."""
    masks, labels = LEFT[None], torch.tensor([0])
    same = torch.zeros(2, 2, 2)
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert matched(logits, same, labels, masks, MatchingCosts())[0].tolist() == [1]
    better = torch.stack([2 * LEFT - 1, torch.zeros(2, 2)])
    assert matched(torch.zeros(2, 2), better, labels, masks, MatchingCosts())[0].tolist() == [0]
    only_classes = MatchingCosts(classes=1, mask=0, dice=0)
    assert matched(logits, better, labels, masks, only_classes)[0].tolist() == [1]


# --- terms


def test_terms_by_hand() -> None:
    """Queries that say nothing at all: every term is known."""
    quiet = stage(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 3))
    result = EBSegLoss(ssc=None)([quiet], torch.eye(3), torch.eye(3)[:2], [halves()], points=CORNERS)
    terms = {name: value.item() for name, value in result.terms.items()}
    assert terms["class_supervised/0"] == pytest.approx(1.5 * math.log(3))
    assert terms["class_mask_attention/0"] == pytest.approx(1.5 * math.log(3))
    assert terms["mask/0"] == pytest.approx(5 * math.log(2))
    # each mask: 1 - (2 * 0.5 * 2 + 1) / (4 * 0.5 + 2 + 1)
    assert terms["dice/0"] == pytest.approx(5 * (1 - 3 / 5))
    assert result.total.item() == pytest.approx(sum(terms.values()))


def test_unmatched_queries_weigh_a_tenth() -> None:
    """One matched query that is right and one unmatched that is wrong, by the weighted mean."""
    target = Target(labels=torch.tensor([0]), masks=torch.ones(1, 8, 8, dtype=torch.bool))
    both_say_class_0 = stage(torch.ones(1, 2, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    result = EBSegLoss(ssc=None)([both_say_class_0], torch.eye(2), torch.eye(2)[:1], [target], points=CORNERS)
    right, wrong = -math.log(math.e / (math.e + 1)), -math.log(1 / (math.e + 1))
    assert result.terms["class_supervised/0"].item() == pytest.approx(1.5 * (right + 0.1 * wrong) / 1.1)


def test_nothing_is_left_where_all_is_right() -> None:
    predictions, classifier = perfect()
    loss = EBSegLoss(ssc="cosine")
    result = loss([predictions] * 3, classifier, torch.eye(3)[:2], [halves()], points=CORNERS)
    assert set(result.terms) == {
        f"{kind}/{number}"
        for number in range(3)
        for kind in ("class_supervised", "class_mask_attention", "mask", "dice")
    } | {"ssc/2"}
    assert result.total.item() < 1e-5
    assert len(result.matches) == 3


def test_ssc_by_hand() -> None:
    """Two matched queries at right angles, of length 2; their classes' texts have a cosine of 0.6."""
    embeddings = torch.tensor([[[2.0, 0.0], [9.0, 9.0], [0.0, 2.0]]])
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    pairs = [(torch.tensor([0, 2]), torch.tensor([1, 0]))]
    targets = [halves()]
    official = ssc_loss(embeddings, text, pairs, targets, "official")
    assert official.item() == pytest.approx(((4 - 1) ** 2 * 2 + 0.6**2 * 2) / 4)
    cosine = ssc_loss(embeddings, text, pairs, targets, "cosine")
    assert cosine.item() == pytest.approx(0.6**2 * 2 / 4)


def test_ssc_where_it_is_asked_for() -> None:
    predictions, classifier = perfect()
    loss = EBSegLoss(ssc_embeddings=("supervised", "mask_attention"), ssc_stages=2, points=64)
    terms = loss([predictions] * 3, classifier, torch.eye(3)[:2], [halves()]).terms
    found = {name for name in terms if name.startswith("ssc")}
    assert found == {"ssc/1", "ssc/2", "ssc_mask_attention/1", "ssc_mask_attention/2"}


def test_a_picture_without_masks() -> None:
    empty = Target(labels=torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, 8, 8, dtype=torch.bool))
    masks = torch.randn(1, 3, 2, 2, requires_grad=True)
    result = EBSegLoss(points=16)([stage(masks, torch.eye(3)[None])], torch.eye(3), torch.eye(3)[:2], [empty])
    assert result.terms["mask/0"] == result.terms["dice/0"] == result.terms["ssc/0"] == 0
    assert result.total.isfinite()
    result.total.backward()
    assert masks.grad is not None
    assert masks.grad.abs().max() == 0


def test_the_padding_belongs_to_no_mask() -> None:
    """A picture of 8 x 5 pixels on a padded one of 8 x 8: the right part is outside of every mask."""
    whole = Target(labels=torch.tensor([0]), masks=torch.ones(1, 8, 5, dtype=torch.bool))
    all_over = stage(torch.full((1, 1, 2, 2), SURE), torch.tensor([[[1.0, 0.0]]]))
    points = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    result = EBSegLoss(ssc=None)([all_over], torch.eye(2), torch.eye(2)[:1], [whole], points=points)
    assert result.terms["mask/0"].item() == pytest.approx(5 * SURE / 2)


def test_uncertain_points_are_preferred() -> None:
    """A map that is unsure in its left tenth: three quarters of the points have to lie there."""
    logits = torch.full((1, 1, 40), SURE)
    logits[..., :4] = 0
    torch.manual_seed(0)
    chosen = EBSegLoss(points=1000, oversample=10.0)._uncertain_points(logits, [1], [None])
    assert chosen.shape == (1, 1000, 2)
    assert (chosen[..., 0] < 0.1).float().mean().item() == pytest.approx(0.775, abs=0.03)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_hidden(value: float) -> None:
    """Even in the mask of a query that is matched with nothing."""
    predictions, classifier = perfect()
    predictions.mask_logits[0, 1, 0, 0] = value
    result = EBSegLoss()([predictions], classifier, torch.eye(3)[:2], [halves()], points=CORNERS)
    assert not result.total.isfinite()
    assert [name for name, term in result.terms.items() if not term.isfinite()] == ["mask/0"]


def test_class_losses_are_means_over_the_batch_or_over_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the other process has three times as many masks: twice as many on average."""
    monkeypatch.setattr(
        criterion, "_mean_over_processes", lambda values, device: [values[0], *(2 * x for x in values[1:])]
    )
    targets, text = [halves()], torch.eye(3)[:2]
    generator = torch.Generator().manual_seed(0)
    predictions = stage(
        torch.randn(1, 4, 2, 2, generator=generator), torch.randn(1, 4, 3, generator=generator)
    )
    of_batch = BatchTotals.of(targets, 4, torch.device("cpu"))
    own = BatchTotals.of(targets, 4, torch.device("cpu"), by_process=True)
    assert (of_batch.masks, of_batch.matched) == (own.masks, 2 * own.matched) == (4, 4)
    found = [
        EBSegLoss()([predictions], torch.eye(3), text, targets, points=CORNERS, totals=totals).terms
        for totals in (of_batch, own)
    ]
    assert found[0]["mask/0"] == found[1]["mask/0"]
    # 4 matched queries of 4 in the batch, on average; 2 matched and 2 that weigh a tenth in this process
    assert found[1]["class_supervised/0"] == pytest.approx(float(found[0]["class_supervised/0"]) * 4 / 2.2)


def test_parts_and_totals() -> None:
    """Two pictures alone, given the batch's totals, add up to both together; so do their random points."""
    generator = torch.Generator().manual_seed(0)
    both = stage(torch.randn(2, 3, 2, 2, generator=generator), torch.randn(2, 3, 3, generator=generator))
    one = Target(labels=torch.tensor([0]), masks=torch.ones(1, 8, 8, dtype=torch.bool))
    targets, text = [halves(), one], torch.eye(3)[:2]
    totals = BatchTotals.of(targets, 3, torch.device("cpu"))
    assert (totals.pictures, totals.masks, totals.matched) == (2, 3, 3)

    def seeds(pictures: range) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(7 + b) for b in pictures]

    loss = EBSegLoss(points=16)
    whole = loss([both], torch.eye(3), text, targets, generators=seeds(range(2))).terms
    parts = []
    for b in range(2):
        part = stage(both.mask_logits[b : b + 1], both.supervised[b : b + 1])
        own = seeds(range(b, b + 1))
        found = loss([part], torch.eye(3), text, targets[b : b + 1], totals=totals, generators=own)
        parts.append(found.terms)
    for name, value in whole.items():
        assert (parts[0][name] + parts[1][name]).item() == pytest.approx(value.item(), rel=1e-5), name


def test_weights_scale_their_terms() -> None:
    quiet = stage(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 3))
    arguments = ([quiet], torch.eye(3), torch.eye(3)[:2], [halves()], CORNERS)
    once = EBSegLoss()(*arguments).terms
    own = LossWeights(classes=3.0, mask=1.0, dice=10.0, ssc=5.0)
    other = EBSegLoss(weights=own)(*arguments).terms
    for name, factor in (("class_supervised", 2), ("mask", 0.2), ("dice", 2), ("ssc", 0.5)):
        assert other[f"{name}/0"].item() == pytest.approx(factor * once[f"{name}/0"].item())


def test_gradients() -> None:
    """Of everything that the loss is taken of, in float64, at fixed points and so at a fixed matching."""
    generator = torch.Generator().manual_seed(3)
    leaves = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 3, 2, 2), (1, 3, 4), (1, 3, 4), (3, 4))
    ]
    text = F.normalize(torch.randn(2, 4, generator=generator, dtype=torch.float64), dim=-1)

    def total(masks: Tensor, a: Tensor, b: Tensor, classifier: Tensor) -> Tensor:
        embeddings = stage(masks.float(), a.float(), b.float())
        return EBSegLoss()([embeddings], classifier.float(), text.float(), [halves()], CORNERS).total

    result = torch.autograd.grad(total(*leaves), leaves)
    for leaf, gradient in zip(leaves, result, strict=True):
        step = torch.randn(leaf.shape, generator=generator, dtype=torch.float64) * 1e-2
        ends = [total(*(x + sign * step if x is leaf else x for x in leaves)) for sign in (1, -1)]
        assert (ends[0] - ends[1]).item() / 2 == pytest.approx((gradient * step).sum().item(), rel=2e-2)


# --- the official code's loss


def test_losses_and_gradients_are_the_official_ones() -> None:
    with safe_open(weights.FOLDER / "train_base_256x320.safetensors", "pt") as file:
        golden, facts = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    height, width = int(facts["image_h"]), int(facts["image_w"])
    labels = torch.tensor(json.loads(facts["labels"]))
    ebseg = load_official(weights.official_state_dict("base"), "base").train()
    stages = ebseg.stages(weights.picture(height, width, float(facts["phase"]))[None])
    with torch.no_grad():
        text = ebseg.encode_text(json.loads(facts["classes"]))
    target = Target(labels=labels, masks=sectors(height, width, len(labels)))
    cells = (torch.arange(112) + 0.5) / 112
    points = torch.cartesian_prod(cells, cells).flip(1)
    result = EBSegLoss()(stages, ebseg.classifier(text), text, [target], points=points)
    result.total.backward()

    names = {"loss_ce": "class_supervised", "1_loss_ce": "class_mask_attention"}
    names |= {"loss_mask": "mask", "loss_dice": "dice"}
    for number in range(10):
        queries, chosen = result.matches[number][0]
        assert queries.tolist() == golden[f"matched_queries.{number}"].tolist()
        assert chosen.tolist() == golden[f"matched_targets.{number}"].tolist()
        for official, name in names.items():
            wanted = golden[f"loss.{official}" + ("" if number == 9 else f"_{number}")].item()
            assert result.terms[f"{name}/{number}"].item() == pytest.approx(wanted, rel=1e-4)
    assert result.terms["ssc/9"].item() == pytest.approx(golden["loss.mse_ssc_loss_1"].item(), rel=1e-4)
    assert result.total.item() == pytest.approx(golden["total"].item(), rel=1e-4)
    ours = {official: name for name, official in official_names(ebseg).items()}
    for official in ("ov_classifier.bg_embed", "sem_seg_head.predictor.logit_scale"):
        gradient, wanted_gradient = ebseg.get_parameter(ours[official]).grad, golden[f"grad.{official}"]
        assert gradient is not None
        difference = (gradient.view(wanted_gradient.shape) - wanted_gradient).abs().max()
        assert difference <= 2e-3 * wanted_gradient.abs().max()
    gradient = ebseg.get_parameter(ours["backbone.pos_embed"]).grad
    assert gradient is not None
    wanted_gradient = golden["grad.backbone.pos_embed"]
    assert (gradient[0, ::8, ::8, ::64] - wanted_gradient).abs().max() <= 2e-3 * wanted_gradient.abs().max()
    norm = torch.stack([p.grad.norm() for p in ebseg.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(float(facts["gradient_norm"]), rel=2e-3)


def sectors(height: int, width: int, count: int) -> Tensor:
    """Ground truth of the golden case: sectors of equal angle around the centre, bool [count, H, W]."""
    y = (torch.arange(height) - height / 2).double()[:, None].expand(height, width)
    x = (torch.arange(width) - width / 2).double()[None].expand(height, width)
    turn = (torch.atan2(y, x) + math.pi) / (2 * math.pi)
    sector = (turn * count).long().clamp(max=count - 1)
    return torch.stack([sector == i for i in range(count)])
