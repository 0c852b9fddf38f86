"""Tensors of a released file to those of a variant, with an account of every one.

Taken are weights under their official names, also behind the prefixes of wrappers (`module.` of
DistributedDataParallel, `_orig_mod.` of torch.compile, `model.` of what holds the model). Copies and
constants are checked where the file has them and computed where it has not; so are the pixel means that
some versions of the official code save. Anything else is unknown, and refused unless it is ignored by name.
"""

import fnmatch
import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.network.build import build
from model.network.config import VARIANTS
from model.network.pictures import CLIP, IMAGENET
from model.released.account import Account, AccountEntry, Status
from model.released.misfits import misshapen
from model.released.official_names import CAUSAL_MASK, CLASS_WEIGHTS, COPIES, causal_mask, official_names
from model.storage.files import Progress, silent
from model.vocabulary.classes import TrainingClasses

ANYWHERE = ("module", "_orig_mod")  # parts of a name that wrappers put between others
IN_FRONT = "model"  # and one that they put before all others
PIXEL_TOLERANCE = 1e-3  # relative, of pixel means: they may have been saved in half precision
# Buffers that are no weights, with the values that this model normalises pictures with.
PIXEL_BUFFERS: dict[str, tuple[float, ...]] = {
    "pixel_mean": CLIP.mean,
    "pixel_std": CLIP.std,
    "sam_pixel_mean": IMAGENET.mean,
    "sam_pixel_std": IMAGENET.std,
}


def account_of(
    tensors: Mapping[str, Tensor],
    variant: str | None = None,
    *,
    others: Mapping[str, str] | None = None,
    training_classes: TrainingClasses | None = None,
    ignore: Sequence[str] = (),
    progress: Progress = silent,
) -> Account:
    """Fits the tensors of a released file to a variant; the values of those that fit are looked at as well.

    Args:
        tensors: by their names in the file.
        variant: "base", "large" or "tiny"; the one that the shapes tell when left out.
        others: {name: what it is} of what lies between the tensors and is none.
        training_classes: what the weights were trained on; COCO-Stuff's 171 classes when left out.
        ignore: patterns (`*`, `?`, `[...]`) of names of what EBSeg does not need and may be left out.
        progress: notified of the values that are looked at.

    Raises:
        CheckpointError: an unknown variant, none that fits at all, weights of another variant than the one
            named, or a pattern that matches nothing.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    classes = training_classes or TrainingClasses.coco_stuff()
    official = {name: official_name(name) for name in tensors}
    shapes = {official[name]: tuple(tensor.shape) for name, tensor in tensors.items()}
    variant = _variant(shapes, variant)
    return _Fitting(tensors, others or {}, official, variant, classes, ignore).account(progress)


def official_name(name: str) -> str:
    """A name without what wrappers put before it and between its parts."""
    parts = [part for part in name.split(".") if part not in ANYWHERE]
    while parts and parts[0] == IN_FRONT:
        parts = parts[1:]
    return ".".join(parts)


class _Fitting:
    """One file and one variant, while the account is made."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        others: Mapping[str, str],
        official: Mapping[str, str],
        variant: str,
        classes: TrainingClasses,
        ignore: Sequence[str],
    ):
        self._tensors = tensors
        self._others = others
        self._official = official
        self._variant = variant
        self._classes = classes
        self._ignore = ignore
        self._ours, self._weights = _wanted(variant)
        self._constants = _constants(variant, classes)
        self._places: dict[str, str] = {}  # official name -> the name in the file that is taken for it
        for name, wanted in official.items():
            known = wanted in self._weights or wanted in COPIES or wanted in self._constants
            if known and (wanted not in self._places or name == wanted):
                self._places[wanted] = name
        self._matched: set[str] = set()
        self._found: dict[str, Tensor] = {}

    def account(self, progress: Progress) -> Account:
        """Goes through the file, then through what is needed and was not there."""
        size, done = sum(tensor.nbytes for tensor in self._tensors.values()), 0
        entries: list[AccountEntry] = []
        for name, tensor in self._tensors.items():
            status, reason = self._fate(name, tensor)
            shape = tuple(tensor.shape)
            entries.append(
                AccountEntry(name=name, status=status, shape=shape, bytes=tensor.nbytes, reason=reason)
            )
            done += tensor.nbytes
            progress("checking the tensors", done, size)
        for name, kind in self._others.items():
            status, reason = self._not_needed(name, f"is {kind} and no tensor")
            entries.append(AccountEntry(name=name, status=status, shape=(), bytes=0, reason=reason))
        entries += self._absent()
        idle = [pattern for pattern in self._ignore if pattern not in self._matched]
        if idle:
            raise CheckpointError(
                f"--ignore {idle[0]} matches nothing that could be left out: patterns are compared with "
                "the whole names in the file, and no weight that EBSeg needs is ever left out"
            )
        tensors = {ours: self._found[name] for ours, name in self._ours.items() if name in self._found}
        return Account(
            variant=self._variant,
            entries=tuple(entries),
            training_classes=self._classes,
            tensors=tensors,
        )

    def _fate(self, name: str, tensor: Tensor) -> tuple[Status, str]:
        wanted = self._official[name]
        place = self._places.get(wanted)
        if place is None:
            return self._not_needed(name)
        if place != name:
            return self._not_needed(name, f"is {place} by another name")
        if wanted in self._weights:
            return self._weight(name, wanted, tensor)
        if self._is_ignored(name):
            return "ignored", ""
        if wanted in COPIES:
            return self._copy(wanted, tensor)
        return self._constant(wanted, tensor)

    def _not_needed(self, name: str, reason: str = "") -> tuple[Status, str]:
        return ("ignored" if self._is_ignored(name) else "unknown"), reason

    def _is_ignored(self, name: str) -> bool:
        matching = {pattern for pattern in self._ignore if fnmatch.fnmatchcase(name, pattern)}
        self._matched |= matching
        return bool(matching)

    def _weight(self, name: str, wanted: str, tensor: Tensor) -> tuple[Status, str]:
        if tuple(tensor.shape) != self._weights[wanted]:
            return "misshapen", misshapen(tensor.shape, self._weights[wanted])
        problem = _unusable(tensor)
        if problem:
            return "wrong", problem
        self._found[wanted] = tensor.detach().float()
        if not _is_finite(self._found[wanted]):
            return "wrong", "holds values that are not finite"
        return ("taken", "") if name == wanted else ("renamed", f"is {wanted}")

    def _copy(self, wanted: str, tensor: Tensor) -> tuple[Status, str]:
        """A tensor that the official code keeps twice; where it lacks the original, the copy stands in."""
        original = COPIES[wanted]
        place = self._places.get(original)
        if place is None:
            status, reason = self._weight(wanted, original, tensor)
            return (status, reason) if status != "renamed" else ("renamed", f"stands in for {original}")
        if tuple(tensor.shape) != self._weights[original]:
            return "misshapen", misshapen(tensor.shape, self._weights[original])
        if self._tensors[place].shape == tensor.shape and not torch.equal(
            tensor.float(), self._tensors[place].float()
        ):
            return "wrong", f"is not the copy of {place} that it should be"
        return "checked", f"is the copy of {place}"

    def _constant(self, wanted: str, tensor: Tensor) -> tuple[Status, str]:
        shape = tuple(self._constants[wanted].shape)
        if tuple(tensor.shape) != shape:
            reason = misshapen(tensor.shape, shape)
            if wanted == CLASS_WEIGHTS:
                reason += ": it was trained on other classes, name them with --training-classes"
            return "misshapen", reason
        if tensor.is_complex() or not _is_constant(wanted, tensor.detach().float(), self._constants[wanted]):
            return "wrong", f"is not {_CONSTANTS[wanted]}"
        return "checked", f"is {_CONSTANTS[wanted]}"

    def _absent(self) -> Iterator[AccountEntry]:
        for wanted, shape in self._weights.items():
            stands_in = any(copy in self._places for copy, original in COPIES.items() if original == wanted)
            if wanted not in self._places and not stands_in:
                yield AccountEntry(name=wanted, status="missing", shape=shape, bytes=0)
        for copy, original in COPIES.items():
            if copy not in self._places and original in self._places:
                reason = f"is the copy of {original}"
                yield AccountEntry(
                    name=copy, status="computed", shape=self._weights[original], bytes=0, reason=reason
                )
        for wanted in (CAUSAL_MASK, CLASS_WEIGHTS):
            if wanted not in self._places:
                shape, reason = tuple(self._constants[wanted].shape), f"is {_CONSTANTS[wanted]}"
                yield AccountEntry(name=wanted, status="computed", shape=shape, bytes=0, reason=reason)


_CONSTANTS = {
    CAUSAL_MASK: "the text tower's causal mask",
    CLASS_WEIGHTS: "the loss' weights: 1 for every class, less for no object",
    "pixel_mean": "the mean that CLIP's images are normalised with",
    "pixel_std": "the deviation that CLIP's images are normalised with",
    "sam_pixel_mean": "the mean that SAM's images are normalised with",
    "sam_pixel_std": "the deviation that SAM's images are normalised with",
}


@functools.lru_cache(maxsize=len(VARIANTS))
def _wanted(variant: str) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """{our name: official name} of a variant, and {official name: shape}; none depends on the classes."""
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=None)
    ours, state = official_names(ebseg), ebseg.state_dict()
    return ours, {official: tuple(state[name].shape) for name, official in ours.items()}


def _constants(variant: str, classes: TrainingClasses) -> dict[str, Tensor]:
    """What an official file may hold beside weights and copies; of `CLASS_WEIGHTS` the last one is free."""
    constants = {name: torch.tensor(values)[:, None, None] for name, values in PIXEL_BUFFERS.items()}
    constants[CAUSAL_MASK] = causal_mask(VARIANTS[variant].clip.context_length)
    constants[CLASS_WEIGHTS] = torch.ones(len(classes.classes) + 1)
    return constants


def _is_constant(name: str, found: Tensor, constant: Tensor) -> bool:
    if name == CLASS_WEIGHTS:
        return torch.equal(found[:-1], constant[:-1]) and 0 < float(found[-1]) <= 1
    if name in PIXEL_BUFFERS:
        return bool(((found - constant).abs() <= PIXEL_TOLERANCE * constant).all())
    return torch.equal(found, constant)


def _variant(shapes: Mapping[str, tuple[int, ...]], named: str | None) -> str:
    """The variant that most tensors have the shapes of.

    Raises:
        CheckpointError: none has any, or the named one is clearly another than the file's.
    """
    if named is not None and VARIANTS[named].sam is None:
        _wanted(named)  # which says why there is no released file of it
    fitting, needed = {}, {}
    for variant in (name for name, config in VARIANTS.items() if config.sam is not None):
        weights = _wanted(variant)[1]
        needed[variant] = len(weights)
        fitting[variant] = sum(shapes.get(name) == shape for name, shape in weights.items())
    best = max(fitting, key=lambda variant: fitting[variant] / needed[variant])
    if not fitting[best]:
        raise CheckpointError("it holds no weights of EBSeg: not one tensor has the name and shape of one")
    if named is None:
        return best
    if fitting[named] / needed[named] < fitting[best] / needed[best]:
        raise CheckpointError(
            f"these are weights of the variant {best}, not {named}: {fitting[best]} of {needed[best]} have "
            f"its shapes, and {fitting[named]} of {needed[named]} those of {named}"
        )
    return named


def _unusable(tensor: Tensor) -> str | None:
    if tensor.is_floating_point():
        return None
    return f"is {str(tensor.dtype).removeprefix('torch.')}, not floating point"


def _is_finite(tensor: Tensor) -> bool:
    # least and greatest, because both pass NaN on, and need no second copy of the tensor
    least, greatest = tensor.aminmax()
    return bool(least.isfinite() and greatest.isfinite())
