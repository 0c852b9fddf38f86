"""Tensors that do not fit a model, worded so that one message names them all: a count, and the first five."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.errors import CheckpointError

NAMED = 5  # of each kind


def check_tensors(state_dict: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Raises CheckpointError unless the names and shapes are the wanted ones; it names the first misfits."""
    problems = {
        "missing": [name for name in wanted if name not in state_dict],
        "unknown": [name for name in state_dict if name not in wanted],
        "misshapen": [
            f"{name} {misshapen(state_dict[name].shape, shape)}"
            for name, shape in wanted.items()
            if name in state_dict and state_dict[name].shape != shape
        ],
    }
    if any(problems.values()):
        raise CheckpointError(f"tensors do not fit the variant; {listed(problems)}")


def misshapen(found: Sequence[int], wanted: Sequence[int]) -> str:
    """What is wrong with a shape."""
    return f"is {list(found)} instead of {list(wanted)}"


def listed(problems: Mapping[str, Sequence[str]]) -> str:
    """{what: names of tensors} as one phrase: "2 missing: a, b; 7 unknown: c, d, e, f, g, ..."."""
    return "; ".join(
        f"{len(found)} {what}: {', '.join(found[:NAMED])}{', ...' if len(found) > NAMED else ''}"
        for what, found in problems.items()
        if found
    )
