"""How the three embeddings of a query are balanced into class probabilities.

The paper (section 3.5) mixes the fully supervised embedding A, the mask attention embedding B and the
frozen embedding D with other weights for trained than for new classes. Its Eq. 9-10 take arithmetic
means of the embeddings; the released code takes geometric means of the class probabilities. The two
use the letters alpha, beta and gamma for different things, so here each weight carries the name of
the embedding it belongs to.

Shapes: B pictures, Q queries, C joint width, K classes, P words: the classes' names and further prompts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.errors import ModelError

Mean = Literal["geometric", "arithmetic"]
EPSILON = 1e-8  # of the released code's log(w + 1e-8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Shares of the three embeddings; they add up to one."""

    supervised: float
    mask_attention: float
    frozen: float

    def __post_init__(self) -> None:
        shares = (self.supervised, self.mask_attention, self.frozen)
        if any(not 0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ModelError(f"balance weights must lie in 0..1 and add up to 1, got {shares}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Balancing of embeddings: which mean, and the weights for trained and for new classes."""

    mean: Mean
    trained: Weights
    new: Weights

    def __post_init__(self) -> None:
        if self.mean not in ("geometric", "arithmetic"):
            raise ModelError(f'balance mean must be "geometric" or "arithmetic", got {self.mean!r}')

    @classmethod
    def geometric(cls, *, frozen_trained: float, frozen_new: float, mask_attention: float) -> "Balance":
        """The released code's form, by its three numbers (there: alpha, beta, gamma)."""
        return cls(
            mean="geometric",
            trained=_rest_supervised(mask_attention, frozen_trained),
            new=_rest_supervised(mask_attention, frozen_new),
        )

    @classmethod
    def arithmetic(
        cls, *, supervised_trained: float = 0.2, supervised_new: float = 0.0, mask_attention: float = 0.7
    ) -> "Balance":
        """The paper's form, Eq. 9-10 with its defaults (there: alpha, gamma, beta)."""
        return cls(
            mean="arithmetic",
            trained=_rest_frozen(supervised_trained, mask_attention),
            new=_rest_frozen(supervised_new, mask_attention),
        )


def _rest_supervised(mask_attention: float, frozen: float) -> Weights:
    rest = round(1 - mask_attention - frozen, 9)
    return Weights(supervised=rest, mask_attention=mask_attention, frozen=frozen)


def _rest_frozen(supervised: float, mask_attention: float) -> Weights:
    rest = round(1 - supervised - mask_attention, 9)
    return Weights(supervised=supervised, mask_attention=mask_attention, frozen=rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassWords:
    """Which words are of which class, where classes have several.

    Attributes:
        classes: the class of each word, int64 [P], from 0 to K - 1.
        count: K.
        mode: a class's logit is that of its "best" word, or the "mean" of all.
    """

    classes: Tensor
    count: int
    mode: Literal["best", "mean"]

    def pooled(self, logits: Tensor) -> Tensor:
        """Logits of words [Q, P] to logits of classes [Q, K]."""
        start = logits.new_zeros(len(logits), self.count)
        reduce = "amax" if self.mode == "best" else "mean"
        place = self.classes.expand(len(logits), -1)
        return start.scatter_reduce(1, place, logits, reduce, include_self=False)


def class_probabilities(
    supervised: Tensor,
    mask_attention: Tensor,
    frozen: Tensor,
    classifier: Tensor,
    trained: Tensor,
    balance: Balance,
    words: ClassWords | None = None,
) -> Tensor:
    """Probability of each class for each query, what is left of one being "no class".

    Args:
        supervised, mask_attention, frozen: embeddings A, B and D of one picture, [Q, C].
        classifier: unit text rows and, last, the unit background row, times CLIP's logit scale, [P + 1, C].
        trained: which classes count as trained, bool [K].
        balance: the mean and its weights.
        words: which rows of the classifier are of one class; None if each is a class, and P is K.

    Returns:
        [Q, K]. A row sums to less than one; the rest is the probability of "no class".
    """
    text = classifier[:-1]
    supervised_logits = supervised @ classifier.T  # the background column goes into void only
    if words is not None:
        by_class = words.pooled(supervised_logits[:, :-1])
        supervised_logits = torch.cat([by_class, supervised_logits[:, -1:]], 1)

    def class_logits(embeddings: Tensor) -> Tensor:
        by_word = embeddings @ text.T
        return by_word if words is None else words.pooled(by_word)

    if balance.mean == "geometric":
        p_a = supervised_logits[:, :-1].softmax(-1)
        p_b = class_logits(mask_attention).softmax(-1)
        p_d = class_logits(frozen).softmax(-1)

        def product(weights: Weights) -> Tensor:
            return p_a**weights.supervised * p_b**weights.mask_attention * p_d**weights.frozen

        weight = torch.where(trained, product(balance.trained), product(balance.new))
    else:

        def logits(weights: Weights) -> Tensor:  # Eq. 9 and 11, or 10 and 12
            mixed = (
                weights.supervised * supervised
                + weights.mask_attention * mask_attention
                + weights.frozen * frozen
            )
            return class_logits(mixed)

        weight = torch.where(trained, logits(balance.trained), logits(balance.new)).softmax(-1)  # Eq. 13
    weight = weight + EPSILON
    void = supervised_logits.softmax(-1)[:, -1:]
    # softmax(log x) is x over its sum, so the released code's two log-softmax steps are two divisions
    foreground = weight / weight.sum(-1, keepdim=True) * (1 - void) + EPSILON
    return foreground / (foreground.sum(-1, keepdim=True) + void + EPSILON)
