"""The training loss: mask and class losses of all decoder stages, and the SSC loss (section 3.4).

Shapes: B pictures, Q queries, C joint width, K classes, k ground-truth masks of one picture, P points,
m matched pairs of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.network.kernels import smallest
from model.network.pictures import pad_to
from model.network.predictions import StagePredictions
from training.losses.matcher import Match, MatchingCosts, Target, assign, pair_costs, sample_points

__all__ = ["BatchTotals", "EBSegLoss", "LossResult", "LossWeights", "SscForm", "Target"]

SscForm = Literal["official", "cosine"]
Embeddings = Literal["supervised", "mask_attention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the terms; the released code's."""

    classes: float = 2.0 * 0.75  # of A's and of B's cross entropy alike
    mask: float = 5.0
    dice: float = 5.0
    ssc: float = 10.0  # lambda of Eq. 7
    no_object: float = 0.1  # of unmatched queries within the cross entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class LossResult:
    """The loss and what it is made of.

    Attributes:
        total: sum of the terms, at least 0, with gradients.
        terms: terms times their weights, scalars of at least 0: "class_supervised/S",
            "class_mask_attention/S", "mask/S", "dice/S" and "ssc/S" for a stage S; for the SSC loss of B,
            "ssc_mask_attention/S".
        matches: of each stage, of each picture.
    """

    total: Tensor
    terms: dict[str, Tensor]
    matches: list[list[Match]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTotals:
    """What the terms of a whole batch are divided by, where the loss is computed part by part.

    With several processes these are means over them: so the mean of the processes' losses, each the sum
    of its parts' losses, is the loss of the whole batch.

    Attributes:
        pictures: how many.
        masks: of all pictures, at least one.
        matched: queries that get a mask; each picture matches as many as it has masks or queries.
    """

    pictures: float
    masks: float
    matched: float

    @classmethod
    def of(
        cls,
        targets: Sequence[Target],
        queries: int,
        device: torch.device,
        by_process: bool = False,
    ) -> "BatchTotals":
        """Totals of a process's targets and, where there are several processes, of all of theirs.

        Args:
            targets: all of this process's batch.
            queries: of the model.
            device: of the model; the processes' counts are added up there.
            by_process: keep this process's own number of matched queries: the class losses are means over
                each process's queries then, and the mean of those, as in the official code.
        """
        counts = [len(target.labels) for target in targets]
        own = [len(counts), sum(counts), sum(min(queries, count) for count in counts)]
        pictures, masks, matched = _mean_over_processes([float(value) for value in own], device)
        matched = float(own[2]) if by_process else matched
        return cls(pictures=pictures, masks=max(1.0, masks), matched=matched)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """The truth of a batch, and what the loss of every stage takes from it.

    Attributes:
        targets: one a picture.
        masks: of each picture, padded as the network pads it, float [k, H, W].
        points: where masks are compared, [P, 2]; None draws them.
        generators: of each picture's random points; None is torch's own.
        totals: what the terms are divided by.
    """

    targets: Sequence[Target]
    masks: list[Tensor]
    points: Tensor | None
    generators: Sequence[torch.Generator | None]
    totals: BatchTotals


class EBSegLoss:
    """Loss of a batch.

    Args:
        ssc: form of the SSC loss, or None for none: "official" compares products of embeddings as they
            are, "cosine" cosines as in Eq. 5; both take the mean squared difference.
        ssc_embeddings: which embeddings it holds for (Table 5).
        ssc_stages: for how many of the last stages (Table 5).
        points: at how many points masks are compared.
        oversample: how many times as many are tried for the most uncertain ones.
        uncertain: share of the points, 0..1, that are the most uncertain; the rest is random.
        weights: of the terms.
        costs: of the matching.
    """

    def __init__(
        self,
        *,
        ssc: SscForm | None = "official",
        ssc_embeddings: tuple[Embeddings, ...] = ("supervised",),
        ssc_stages: int = 1,
        points: int = 12_544,
        oversample: float = 3.0,
        uncertain: float = 0.75,
        weights: LossWeights | None = None,
        costs: MatchingCosts | None = None,
    ):
        self.ssc = ssc
        self.ssc_embeddings = ssc_embeddings
        self.ssc_stages = ssc_stages
        self.points = points
        self.oversample = oversample
        self.uncertain = uncertain
        self.weights = weights or LossWeights()
        self.costs = costs or MatchingCosts()

    def __call__(
        self,
        stages: Sequence[StagePredictions],
        classifier: Tensor,
        text: Tensor,
        targets: Sequence[Target],
        points: Tensor | None = None,
        *,
        totals: BatchTotals | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> LossResult:
        """Computes the loss.

        Args:
            stages: of `EBSeg.stages`.
            classifier: of `EBSeg.classifier`, [K + 1, C].
            text: unit text embeddings of the training classes, [K, C].
            targets: one a picture.
            points: use these instead of random ones, for matching and for the mask losses, [P, 2].
            totals: of the batch that these pictures are a part of; left out, they are all of it.
            generators: one a picture, of its random points, on the model's device; left out, they are
                torch's own. With them a picture's points do not depend on its company.
        """
        size = stages[0].mask_logits.shape[-2:]
        if totals is None:
            totals = BatchTotals.of(targets, stages[0].mask_logits.shape[1], classifier.device)
        batch = _Batch(
            targets=targets,
            masks=[pad_to(target.masks.float(), (4 * size[0], 4 * size[1])) for target in targets],
            points=points,
            generators=generators or [None] * len(targets),
            totals=totals,
        )
        terms: dict[str, Tensor] = {}
        logits_by_stage = [stage.supervised.float() @ classifier.T for stage in stages]
        matches = self._match(logits_by_stage, stages, batch)
        for number, (stage, logits, pairs) in enumerate(zip(stages, logits_by_stage, matches, strict=True)):
            own = self._class_terms(logits, stage.mask_attention.float() @ classifier.T, pairs, batch)
            own |= self._mask_terms(stage.mask_logits, pairs, batch)
            if number >= len(stages) - self.ssc_stages:
                own |= self._ssc_terms(stage, text, pairs, batch)
            terms |= {f"{name}/{number}": term for name, term in own.items()}
        return LossResult(total=torch.stack(list(terms.values())).sum(), terms=terms, matches=matches)

    def _match(
        self, logits_by_stage: Sequence[Tensor], stages: Sequence[StagePredictions], batch: "_Batch"
    ) -> list[list[Match]]:
        """Which queries of each picture learn which of its masks, at each stage."""
        costs = []
        for logits_BQK, stage in zip(logits_by_stage, stages, strict=True):
            for b, (target, generator) in enumerate(zip(batch.targets, batch.generators, strict=True)):
                points = batch.points
                if points is None:
                    points = _random((self.points, 2), logits_BQK.device, generator)
                truth = target.labels, batch.masks[b]
                costs.append(pair_costs(logits_BQK[b], stage.mask_logits[b], *truth, points, self.costs))
        pairs, pictures = assign(costs), len(batch.targets)
        return [pairs[i * pictures : (i + 1) * pictures] for i in range(len(stages))]

    def _class_terms(
        self, supervised_BQK: Tensor, mask_attention_BQK: Tensor, pairs: list[Match], batch: "_Batch"
    ) -> dict[str, Tensor]:
        """Cross entropy of A's and of B's logits."""
        wanted = _class_targets(supervised_BQK, pairs, batch.targets)
        return {
            "class_supervised": self._class_loss(supervised_BQK, wanted, batch.totals),
            "class_mask_attention": self._class_loss(mask_attention_BQK, wanted, batch.totals),
        }

    def _mask_terms(self, mask_logits: Tensor, pairs: list[Match], batch: "_Batch") -> dict[str, Tensor]:
        """Binary cross entropy and dice of the matched masks."""
        mask, dice = self._mask_losses(mask_logits, batch.masks, pairs, batch.points, batch.generators)
        # an unmatched query's mask is in no term, and must not hide that it is no number
        sound = mask_logits.isfinite().all()
        return {
            "mask": torch.where(sound, self.weights.mask * mask / batch.totals.masks, torch.nan),
            "dice": self.weights.dice * dice / batch.totals.masks,
        }

    def _ssc_terms(
        self, stage: StagePredictions, text: Tensor, pairs: list[Match], batch: "_Batch"
    ) -> dict[str, Tensor]:
        """Semantic structure consistency of each kind of embedding that it holds for."""
        if self.ssc is None:
            return {}
        terms = {}
        for name in self.ssc_embeddings:
            embeddings = stage.supervised if name == "supervised" else stage.mask_attention
            loss = ssc_loss(embeddings.float(), text, pairs, batch.targets, self.ssc, batch.totals.pictures)
            terms["ssc" if name == "supervised" else f"ssc_{name}"] = self.weights.ssc * loss
        return terms

    def _class_loss(self, logits_BQK: Tensor, wanted_BQ: Tensor, totals: BatchTotals) -> Tensor:
        """Weighted mean over the batch's queries."""
        weight = logits_BQK.new_ones(logits_BQK.shape[-1])
        weight[-1] = self.weights.no_object
        summed = F.cross_entropy(logits_BQK.transpose(1, 2), wanted_BQ, weight, reduction="sum")
        unmatched = totals.pictures * logits_BQK.shape[1] - totals.matched
        return self.weights.classes * summed / (totals.matched + self.weights.no_object * unmatched)

    def _mask_losses(
        self,
        mask_logits: Tensor,
        masks: list[Tensor],
        pairs: list[Match],
        points: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> tuple[Tensor, Tensor]:
        """Sums over matched pairs of binary cross entropy (mean over points) and of dice (0..1 a pair)."""
        predicted = torch.cat([mask_logits[b, queries] for b, (queries, _) in enumerate(pairs)]).float()
        wanted = torch.cat([masks[b][chosen] for b, (_, chosen) in enumerate(pairs)])
        if not len(predicted):
            return mask_logits.sum() * 0, mask_logits.sum() * 0
        with torch.no_grad():
            if points is None:
                counts = [len(queries) for queries, _ in pairs]
                places = self._uncertain_points(predicted, counts, generators)
            else:
                places = points
            labels = sample_points(wanted, places)
        logits = sample_points(predicted, places)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
        inside = logits.sigmoid()
        overlap = 2 * (inside * labels).sum(1)
        dice = 1 - (overlap + 1) / (inside.sum(1) + labels.sum(1) + 1)
        return cross_entropy.sum(), dice.sum()

    def _uncertain_points(
        self, logits_mHW: Tensor, counts: Sequence[int], generators: Sequence[torch.Generator | None]
    ) -> Tensor:
        """Points where the masks are least sure, and some random ones, [m, P, 2] (PointRend's way).

        Args:
            logits_mHW: of all pictures' matched queries.
            counts: how many are of each picture.
            generators: of each picture.
        """
        most = int(self.points * self.uncertain)

        def random(points: int) -> Tensor:
            parts = zip(counts, generators, strict=True)
            return torch.cat([_random((count, points, 2), logits_mHW.device, own) for count, own in parts])

        tried = random(int(self.points * self.oversample))
        sure = sample_points(logits_mHW, tried).abs()
        least_sure = smallest(sure, most)
        chosen = tried.gather(1, least_sure[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, random(self.points - most)], 1)


def ssc_loss(
    embeddings_BQC: Tensor,
    text: Tensor,
    pairs: list[Match],
    targets: Sequence[Target],
    form: SscForm,
    pictures: float | None = None,
) -> Tensor:
    """Semantic structure consistency (Eq. 4-6), mean over pictures; one without masks counts as 0.

    The matched queries' similarities to each other are held against their classes' text similarities.
    `pictures` is the number that the mean is taken over, where these are a part of the batch.
    """
    losses = [embeddings_BQC.sum() * 0]
    for embeddings, (queries, chosen), target in zip(embeddings_BQC, pairs, targets, strict=True):
        if len(queries):
            own = embeddings[queries]
            own = F.normalize(own, dim=-1) if form == "cosine" else own
            words = F.normalize(text[target.labels[chosen]], dim=-1)
            losses.append(F.mse_loss(own @ own.T, words @ words.T))
    return torch.stack(losses).sum() / (pictures or len(embeddings_BQC))


def _class_targets(logits_BQK: Tensor, pairs: list[Match], targets: Sequence[Target]) -> Tensor:
    """Class of each query, "no object" where it is not matched, int64 [B, Q]."""
    wanted = torch.full(logits_BQK.shape[:2], logits_BQK.shape[-1] - 1, device=logits_BQK.device)
    for b, ((queries, chosen), target) in enumerate(zip(pairs, targets, strict=True)):
        wanted[b, queries] = target.labels[chosen]
    return wanted


def _random(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, device=device, generator=generator)


def _mean_over_processes(values: list[float], device: torch.device) -> list[float]:
    """Each value's mean over the processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    means: list[float] = (total / dist.get_world_size()).tolist()
    return means
