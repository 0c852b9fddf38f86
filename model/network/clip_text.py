"""CLIP's text tower: class names through prompt templates to unit embeddings.

The tower is causal and only the end token is read, so a prompt needs no more context than its own
length, and the tokens that all prompts of a template begin with ("a photo of a ...") are computed
once, not once a class. Shape suffixes: T tokens of all prompts, n prompts of a group, m tokens of each
beside the shared p, C channels, h heads, D channels of a head.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.copies import upload
from model.network.kernels import TOKENS_AT_ONCE
from model.network.layers import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Prompts of equal length that share their first tokens.

    Attributes:
        prompts: positions of the prompts in the list that was asked for.
        shared: the tokens that all of the template's prompts begin with.
        own: the remaining tokens, n rows of m.
    """

    prompts: list[int]
    shared: tuple[int, ...]
    own: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.own))


class ClipTextEncoder(nn.Module):
    """CLIP's text transformer.

    Args:
        token_embedding, positional_embedding, blocks, ln_final, text_projection, logit_scale: parts of
            an open_clip `CLIP`; the projection is [C, joint width].
        tokenizer: open_clip's.
    """

    def __init__(
        self,
        *,
        token_embedding: nn.Embedding,
        positional_embedding: nn.Parameter,
        blocks: nn.ModuleList,
        ln_final: nn.Module,
        text_projection: nn.Parameter,
        logit_scale: nn.Parameter,
        tokenizer: Any,
    ):
        super().__init__()
        self.token_embedding = token_embedding
        self.positional_embedding = positional_embedding
        self.blocks = blocks
        self.ln_final = ln_final
        self.text_projection = text_projection
        self.logit_scale = logit_scale
        self.tokenizer = tokenizer

    def encode(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Embeds class names: the means of `mean_embeddings`, made unit again, [K, joint width]."""
        return F.normalize(self.mean_embeddings(names, templates), dim=-1)

    @torch.no_grad()
    def mean_embeddings(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Each prompt's embedding is made unit, and the templates' mean is taken.

        Args:
            names: K class names, used as given.
            templates: prompts holding "{}" for the name.

        Returns:
            [K, joint width].
        """
        at_once = TOKENS_AT_ONCE.on(self.text_projection.device)
        groups: list[_Group] = []
        for i, template in enumerate(templates):
            prompts = [self._tokens(template.replace("{}", name)) for name in names]
            groups.extend(_group(prompts, i * len(names), at_once))
        embeddings = self.text_projection.new_empty(
            len(templates) * len(names), self.text_projection.shape[1]
        )
        for batch in _batches(groups, at_once):
            order = list(itertools.chain.from_iterable(group.prompts for group in batch))
            positions = upload(torch.tensor(order), embeddings.device)
            embeddings[positions] = F.normalize(self._embed(batch), dim=-1)
        return embeddings.view(len(templates), len(names), -1).mean(0)

    def _tokens(self, prompt: str) -> list[int]:
        """Start, text and end token, cut to the context length."""
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        text = self.tokenizer.encode(prompt)[: self.positional_embedding.shape[0] - 2]
        if end in text:  # the tower reads the first end token, wherever it comes from
            text = text[: text.index(end)]
        return [start, *text, end]

    def _embed(self, groups: list[_Group]) -> Tensor:
        """Runs the tower over all tokens of the groups at once; only attention goes group by group.

        Returns:
            Embeddings of the groups' prompts in their order, [prompts, joint width].
        """
        prefixes = list(dict.fromkeys(group.shared for group in groups))
        x_TC = self._lookup(
            [(shared, 0) for shared in prefixes]
            + [(own, len(group.shared)) for group in groups for own in group.own]
        )
        lengths = [len(shared) for shared in prefixes] + [group.tokens for group in groups]
        prefix_of = [prefixes.index(group.shared) for group in groups]
        shapes = [(len(group.own), len(group.own[0])) for group in groups]
        block: Block
        for i, block in enumerate(self.blocks):
            attention = block.attn
            projected = F.linear(block.ln_1(x_TC), attention.in_proj_weight, attention.in_proj_bias)
            parts = projected.split(lengths)
            mixed = [
                _attend_causally(part[None], None, attention.num_heads) for part in parts[: len(prefixes)]
            ]
            for part, (rows, columns), prefix in zip(parts[len(prefixes) :], shapes, prefix_of, strict=True):
                own = part.view(rows, columns, -1)
                mixed.append(_attend_causally(own, parts[prefix], attention.num_heads))
            if i + 1 == len(self.blocks):  # the end tokens are all that is read
                ends = [out[:, -1] for out in mixed[len(prefixes) :]]
                starts = x_TC.split(lengths)[len(prefixes) :]
                x_TC = torch.cat([x.view(*s, -1)[:, -1] for x, s in zip(starts, shapes, strict=True)])
                x_TC = x_TC + attention.out_proj(torch.cat(ends))
            else:
                x_TC = x_TC + attention.out_proj(torch.cat([out.flatten(0, 1) for out in mixed]))
            x_TC = x_TC + block.mlp(block.ln_2(x_TC))
        out: Tensor = self.ln_final(x_TC) @ self.text_projection
        return out

    def _lookup(self, rows: Sequence[tuple[Sequence[int], int]]) -> Tensor:
        """Token plus position embeddings of rows of tokens and each one's first position, flat, [T, C]."""
        tokens = [token for row, _ in rows for token in row]
        places = [place for row, first in rows for place in range(first, first + len(row))]
        both = upload(torch.tensor([tokens, places]), self.positional_embedding.device)
        embedded: Tensor = self.token_embedding(both[0]) + self.positional_embedding[both[1]]
        return embedded


def _group(prompts: list[list[int]], first: int, at_once: int) -> list[_Group]:
    """Groups one template's prompts by length behind the tokens that they all share.

    Args:
        prompts: tokens of each.
        first: position of the first one in the list that was asked for.
        at_once: tokens that a group may have.
    """
    shortest = min(map(len, prompts)) - 1  # the end token is never shared
    shared = 0
    while shared < shortest and all(prompt[shared] == prompts[0][shared] for prompt in prompts):
        shared += 1
    by_length: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    groups = []
    for length, members in sorted(by_length.items()):
        most = max(1, at_once // (length - shared))
        for start in range(0, len(members), most):
            some = members[start : start + most]
            groups.append(
                _Group(
                    prompts=[first + i for i in some],
                    shared=tuple(prompts[0][:shared]),
                    own=[prompts[i][shared:] for i in some],
                )
            )
    return groups


def _batches(groups: list[_Group], at_once: int) -> list[list[_Group]]:
    """Consecutive groups of at most `at_once` tokens together."""
    batches: list[list[_Group]] = [[]]
    room = at_once
    for group in groups:
        if group.tokens > room and batches[-1]:
            batches.append([])
            room = at_once
        batches[-1].append(group)
        room -= group.tokens
    return batches


def _attend_causally(own: Tensor, shared: Tensor | None, heads: int) -> Tensor:
    """Causal attention of rows behind the tokens that they share.

    Args:
        own: packed queries, keys and values, [n, m, 3 * C].
        shared: the same of the shared tokens, [p, 3 * C], or None.

    Returns:
        [n, m, C].
    """
    q, k, v = own.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if shared is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    _, shared_k, shared_v = shared.unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
    rows, columns, before = own.shape[0], own.shape[1], shared.shape[0]
    k = torch.cat([shared_k.expand(rows, -1, -1, -1), k], 2)
    v = torch.cat([shared_v.expand(rows, -1, -1, -1), v], 2)
    seen = torch.ones(columns, before + columns, dtype=torch.bool, device=own.device).tril(before)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
