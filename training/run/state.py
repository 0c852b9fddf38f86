"""All that a run needs to go on exactly: one safetensors file, whose header carries the rest as JSON.

Tensors: `model/NAME` (every tensor of the model's state), `optimizer/NAME/KEY`, `ema/NAME` and
`random/torch`, `random/cuda`. Written beside its place and renamed into it, so that the last state stays
until the new one is complete.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.storage.files import replacing
from training.errors import TrainingError
from training.run.ema import Ema
from training.run.folder import STATE

_HEADER = "state"  # the key that carries the JSON
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """A saved state.

    Attributes:
        step: optimiser steps done.
        notes: what the run wants to remember beside it, JSON values.
        scaler: of the gradient scaler; empty without one.
        tensors: by the names that this module's head lists.
        randomness: states of Python's and numpy's generators, JSON values.
    """

    step: int
    notes: dict[str, Any]
    scaler: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    randomness: dict[str, Any] = field(default_factory=dict)

    def part(self, kind: str) -> dict[str, Tensor]:
        """Tensors of one kind ("model", "ema", ...), by name."""
        prefix = f"{kind}/"
        return {key.removeprefix(prefix): x for key, x in self.tensors.items() if key.startswith(prefix)}


def save_state(
    run: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    names: list[str],
    ema: Ema | None,
    scaler: dict[str, Any],
    notes: Mapping[str, Any],
) -> None:
    """Replaces the run's state.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        model, optimizer, ema: as they are.
        names: of the optimiser's parameters, in its order.
        scaler: state of the gradient scaler.
        notes: JSON values.

    Raises:
        OSError: the disk did not take it; the last state is still there.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.shadow.items()}
    tensors["random/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    header = {
        "schema": _SCHEMA,
        "step": step,
        "notes": dict(notes),
        "scaler": scaler,
        "randomness": {"python": random.getstate(), "numpy": _numpy_state()},
    }
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with replacing(run / STATE) as partial:
            safetensors.torch.save_file(plain, partial, metadata={_HEADER: json.dumps(header)})
    except SafetensorError as error:
        raise OSError(f"{run / STATE} cannot be written: {error}") from error


def read_state(run: Path) -> RunState | None:
    """The run's saved state, its tensors on the CPU; None if there is none.

    Raises:
        TrainingError: the file is none that `save_state` made, or is damaged.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["schema"] != _SCHEMA:
            raise TrainingError(f"{path} was saved by another version of ebseg; start afresh")
        return RunState(
            step=header["step"],
            notes=header["notes"],
            scaler=header["scaler"],
            tensors=tensors,
            randomness=header["randomness"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} is no saved state, or is damaged ({error}); remove it to start afresh"
        ) from error


def restore(
    state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer, names: list[str], ema: Ema | None
) -> None:
    """Puts a saved state in the place of everything that `save_state` saved but the scaler.

    Raises:
        TrainingError: it is of another model.
    """
    try:
        model.load_state_dict(state.part("model"), strict=True)
    except RuntimeError as error:
        raise TrainingError(f"the saved state is of another model: {error}") from None
    parts = state.part("optimizer")
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        own = {key.removeprefix(f"{name}/"): x for key, x in parts.items() if key.startswith(f"{name}/")}
        # the step count stays on the CPU, as the optimiser itself keeps it
        optimizer.state[parameter] = {
            key: x.clone() if key == "step" else x.to(parameter.device, copy=True) for key, x in own.items()
        }
    if ema is not None:
        ema.load(state.part("ema"))
    random.setstate(_tuples(state.randomness["python"]))
    kind, keys, *rest = state.randomness["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state.tensors["random/torch"])
    if "random/cuda" in state.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.tensors["random/cuda"])


def seed_everything(seed: int) -> None:
    """Seeds Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _numpy_state() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [kind, np.asarray(keys).tolist(), *rest]


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
