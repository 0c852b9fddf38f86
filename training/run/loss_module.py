"""The model in training: from a batch to its loss, and who is to blame when that is no number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.network.build import build
from model.network.config import VARIANTS, EBSegConfig
from model.network.copies import copies_of, upload
from model.network.ebseg import EBSeg
from model.network.predictions import StagePredictions
from model.storage.checkpoint import load
from model.vocabulary.classes import TrainingClasses
from training.config import TrainConfig
from training.data.class_lists import with_added
from training.data.samples import TrainingSample, loss_generators
from training.errors import TrainingError
from training.losses.criterion import BatchTotals, EBSegLoss
from training.losses.matcher import Target
from training.run.lora import active

ENCODERS = ("backbone.", "clip_image.", "clip_text.", "mask_attention.")  # the rest is the decoder
AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class LossModule(nn.Module):
    """A model with its loss; what DistributedDataParallel wraps.

    Args:
        ebseg: the model.
        text: unit text embeddings of the training classes, [K, C].
        config: of the run: loss, number type, compilation.
    """

    def __init__(self, ebseg: EBSeg, text: Tensor, config: TrainConfig):
        super().__init__()
        self.ebseg = ebseg
        self.text = text
        self.loss = EBSegLoss(
            ssc=None if config.ssc == "none" else config.ssc,
            ssc_embeddings=config.ssc_embeddings,
            ssc_stages=config.ssc_stages,
            points=config.points,
        )
        self._amp = AMP_TYPES.get(config.amp)
        self._stages: Callable[[Tensor], list[StagePredictions]] = ebseg.stages
        if config.compile:
            self._stages = torch.compile(ebseg.stages)

    def autocast(self) -> torch.autocast:
        """A context in which the model computes in the run's number type."""
        return torch.autocast(self.ebseg.device.type, self._amp, enabled=self._amp is not None)

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Target],
        generators: Sequence[torch.Generator],
        totals: BatchTotals,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms, see `EBSegLoss`; the model in the run's number type, the loss in float32."""
        with self.autocast(), active(self.ebseg):
            stages = self._stages(images)
        result = self.loss(
            stages,
            self.ebseg.classifier(self.text),
            self.text,
            targets,
            totals=totals,
            generators=generators,
        )
        return result.total, {name: term.detach() for name, term in result.terms.items()}


def start_model(config: TrainConfig, classes: TrainingClasses) -> tuple[EBSeg, str | None]:
    """The model that a run begins with, and the digest of the checkpoint that it comes from.

    Its training classes are those of the checkpoint's decoder and those of the data; of the data alone
    where nothing of a trained decoder is taken over, or the run is to forget.

    Args:
        config: of the run.
        classes: that the data shows.

    Raises:
        TrainingError: there is no such variant.
        CheckpointError: the checkpoint cannot be used.
    """
    if config.init is None:
        if config.variant not in VARIANTS:
            raise TrainingError(f"there is no variant {config.variant!r}; known are {', '.join(VARIANTS)}")
        return build(VARIANTS[config.variant], classes, seed=config.seed), None
    loaded = load(config.init)
    ebseg = build(loaded.ebseg.config, classes, seed=config.seed)
    weights = loaded.ebseg.state_dict()
    if config.fresh_decoder:
        weights = {name: value for name, value in weights.items() if name.startswith(ENCODERS)}
    ebseg.load_state_dict(weights, strict=not config.fresh_decoder)
    if not (config.fresh_decoder or config.forget or loaded.manifest.untrained):
        ebseg.training_classes = with_added(loaded.ebseg.training_classes, classes)
    return ebseg, loaded.manifest.digest


def empty_model(notes: Mapping[str, Any]) -> EBSeg:
    """A model to load a saved state into.

    Args:
        notes: of the state. One of an earlier release names no classes but those of its data.
    """
    trained = TrainingClasses.from_json(notes.get("trained", notes["classes"]))
    return build(EBSegConfig.from_dict(notes["model"]), trained, seed=0)


def non_finite_samples(loss_module: LossModule, samples: Sequence[TrainingSample], seed: int) -> list[str]:
    """Which samples' loss or gradient is not finite when each is taken alone, and where, in words."""
    device = loss_module.ebseg.device
    names, parameters = zip(
        *((name, x) for name, x in loss_module.ebseg.named_parameters() if x.requires_grad), strict=True
    )
    queries = loss_module.ebseg.config.transformer_decoder.queries
    found = []
    for sample in samples:
        target = on_device(sample.target, device)
        masks = len(target.labels)
        total, terms = loss_module(
            upload(sample.picture[None], device),
            [target],
            loss_generators([sample], seed, device),
            BatchTotals(pictures=1, masks=max(1, masks), matched=min(masks, queries)),
        )
        wrong = [name for name, term in terms.items() if not term.isfinite()]
        if wrong:
            found.append(f"{sample.name} ({', '.join(wrong[:4])})")
            continue
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        bad = [n for n, x in zip(names, gradients, strict=True) if x is not None and not x.isfinite().all()]
        if bad:
            found.append(f"{sample.name} (gradient of {', '.join(bad[:4])})")
    return found


def on_device(target: Target, device: torch.device) -> Target:
    """A target where the model is."""
    labels, masks = copies_of(device).upload([target.labels, target.masks])
    return Target(labels=labels, masks=masks)
