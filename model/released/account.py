"""The account of a released file: what became of each of its tensors, and of each that EBSeg needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from model.errors import CheckpointError
from model.network.build import build
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.released.misfits import listed
from model.vocabulary.classes import TrainingClasses

Status = Literal[
    "taken", "renamed", "computed", "checked", "ignored", "missing", "misshapen", "wrong", "unknown"
]
FINE: tuple[Status, ...] = ("taken", "renamed", "computed", "checked", "ignored")
MISFITS: tuple[Status, ...] = ("missing", "misshapen", "wrong", "unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountEntry:
    """One tensor of the file, or one that EBSeg needs and the file has not.

    Attributes:
        name: in the file, or the official one of what it has not.
        status: what became of it.
        shape: in the file; of what it has not, the shape that is needed.
        bytes: in the file, 0 of what it has not.
        reason: what is to be said of it, may be empty.
    """

    name: str
    status: Status
    shape: tuple[int, ...]
    bytes: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What became of a file.

    Attributes:
        variant: the configuration that the weights were fitted to.
        entries: in the file's order, then what it has not.
        training_classes: what the weights were trained on.
        tensors: ours by name, float32; all of them if `problem` is None.
    """

    variant: str
    entries: tuple[AccountEntry, ...]
    training_classes: TrainingClasses
    tensors: Mapping[str, Tensor]

    def of(self, status: Status) -> list[AccountEntry]:
        """The entries that ended so."""
        return [entry for entry in self.entries if entry.status == status]

    @property
    def problem(self) -> str | None:
        """Why there is no model in the file, in one sentence; None if there is."""
        misfits: dict[str, list[str]] = {
            status: [_line(entry) for entry in self.of(status)] for status in MISFITS
        }
        if not any(misfits.values()):
            return None
        hint = " (--ignore PATTERN leaves unknown ones out)" if misfits["unknown"] else ""
        return f"tensors do not fit the variant {self.variant}; {listed(misfits)}{hint}"

    def counts(self) -> dict[str, dict[str, int]]:
        """{status: {"tensors": how many, "bytes": of the file}}, for every status."""
        found = {status: self.of(status) for status in (*FINE, *MISFITS)}
        return {
            status: {"tensors": len(entries), "bytes": sum(entry.bytes for entry in entries)}
            for status, entries in found.items()
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, without the tensors; the names of what is not simply taken."""
        named = [entry for entry in self.entries if entry.status not in ("taken", "renamed")]
        return {
            "variant": self.variant,
            "fits": self.problem is None,
            "problem": self.problem,
            "counts": self.counts(),
            "tensors": [
                {"name": entry.name, "status": entry.status, "shape": list(entry.shape)}
                | ({"reason": entry.reason} if entry.reason else {})
                for entry in named
            ],
        }

    def ebseg(self) -> EBSeg:
        """The model, in evaluation mode; its weights stay mapped from the file where that holds float32.

        Raises:
            CheckpointError: the file does not fit; the message counts all misfits and names the first.
        """
        if self.problem is not None:
            raise CheckpointError(self.problem)
        ebseg = build(VARIANTS[self.variant], self.training_classes, seed=None)
        trained = {name for name, parameter in ebseg.named_parameters() if parameter.requires_grad}
        ebseg.load_state_dict(dict(self.tensors), strict=True, assign=True)
        for name, parameter in ebseg.named_parameters():
            parameter.requires_grad_(name in trained)
        return ebseg


def _line(entry: AccountEntry) -> str:
    return f"{entry.name} {entry.reason}".rstrip()
