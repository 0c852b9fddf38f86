"""The training loop: batches, loss, gradients, steps; what is logged, saved and evaluated on the way.

A run has a folder. It holds config.json, data.json, log.jsonl, tensorboard/ and state.safetensors, from
which the run goes on; at each evaluation and at the end checkpoint/ and, with a validation split,
metrics.json and evaluations.jsonl; last/ as well where checkpoint/ is the best.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.network.copies import download, upload
from model.network.device import AUTO
from model.network.ebseg import EBSeg
from training.config import TrainConfig
from training.data.samples import Samples, TrainingSample, loss_generators
from training.errors import TrainingError
from training.evaluation.confusion_counts import evaluating
from training.losses.criterion import BatchTotals
from training.progress import progress
from training.run import state as run_state
from training.run.artifacts import step_of_newest, write_artifacts
from training.run.beginning import Splits, begin, fitting
from training.run.curves import Curves, make_panels, sums_by_kind
from training.run.distributed import Processes, processes
from training.run.ema import Ema
from training.run.evaluations import Evaluations
from training.run.folder import Resume, alone_in
from training.run.loggers import open_loggers
from training.run.lora import active, merged
from training.run.loss_module import LossModule, empty_model, non_finite_samples, on_device, start_model
from training.run.optim import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from training.run.pace import Pace, peak_share
from training.run.parts import prepare
from training.run.signals import StopRequest, stop_signals

LEAST_SCALE = 1.0  # of float16's gradients; below it they overflow for another reason than the scale


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: Resume = "auto",
    max_steps: int | None = None,
    model: EBSeg | None = None,
    device: str = AUTO,
    gpu_memory: float | None = None,
) -> Path:
    """Trains, or goes on with, the run of a folder; under torchrun, on all GPUs.

    SIGTERM and SIGINT end it after the step at hand, with everything saved.

    Args:
        config: of the run.
        out: the run's folder.
        resume: "auto" goes on where the folder's state is; "never" removes what an earlier run left there.
        max_steps: take no more than so many steps now; the state is saved, and a later call goes on.
        model: train this one; `variant` and `init` only label the run then.
        device: torch's name, or "auto" for a GPU if there is one; no part of the run.
        gpu_memory: of each GPU, GiB: how a step is parted is chosen by it, when the run begins.

    Returns:
        The run's folder; once all steps are done its `checkpoint` is a model's version folder.

    Raises:
        TrainingError: the folder belongs to another run, or a loss or gradient is no finite number.
        DatasetError: a file of the data set is wrong.
        CheckpointError: `init` cannot be used.
        SystemExit: a signal ended it; the code is 128 plus the signal's number.
    """
    folder = Path(out)
    with stop_signals() as stop_request, processes(device) as group:
        if gpu_memory is not None:
            config = fitting(config, folder, group, resume, gpu_memory)
        slots = group.slots(config.batch, config.accumulate)
        splits = Splits.of(config)
        with alone_in(folder) if group.first else nullcontext():
            begin(config, folder, group, splits, resume)
            run = _Run(config, folder, group, model, splits)
            run.go(slots, stop_request, config.steps if max_steps is None else run.step + max_steps)
    if stop_request.signal:
        raise SystemExit(128 + stop_request.signal)
    return folder


class _Run:
    """A run in progress: everything that a step changes."""

    def __init__(
        self, config: TrainConfig, folder: Path, group: Processes, model: EBSeg | None, splits: Splits
    ):
        self.config, self.folder, self.group = config, folder, group
        self.data, self.validation = splits
        self.classes = self.data.training_classes()
        run_state.seed_everything(config.seed)
        state = run_state.read_state(folder)
        self.parent: str | None = None
        if state is not None:
            if state.notes["classes"] != self.classes.to_json():
                places = " and ".join(path for path, _ in config.sources())
                raise TrainingError(f"{places} has other classes than when the run of {folder} began")
            self.parent = state.notes["parent"]
            model = model or empty_model(state.notes)
        elif model is None:
            model, self.parent = start_model(config, self.classes)
        else:
            model.training_classes = self.classes
        prepare(model, config)
        self.ebseg = model.to(group.device).train()
        self.optimizer, self.names = build_optimizer(self.ebseg, config)
        trained = {name: self.ebseg.get_parameter(name) for name in self.names}
        self.ema = Ema(trained, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=config.amp == "float16")
        self.step = 0
        if state is not None:
            run_state.restore(state, self.ebseg, self.optimizer, self.names, self.ema)
            self.scaler.load_state_dict(state.scaler)
            self.step = state.step
        if len(set(group.gathered(self.step))) > 1:
            raise TrainingError(
                f"{folder} must be one folder that all machines share: the run's state is there"
            )
        if self.step > config.steps:
            raise TrainingError(
                f"{folder} has done {self.step} steps, more than the {config.steps} asked for"
            )
        with torch.no_grad():
            text = self.ebseg.encode_text([item.name for item in self.classes.classes])
        self.loss_module = LossModule(self.ebseg, text, config)
        self.wrapped: nn.Module = self.loss_module
        if group.count > 1:
            self.wrapped = DistributedDataParallel(self.loss_module, forward_sync_buffers=False)

    def go(self, slots: slice, stop_request: StopRequest, end: int) -> None:
        """Takes the steps up to `end`, or to the end of the run."""
        config, first = self.config, self.group.first
        end = min(end, config.steps)
        loggers = open_loggers(config, self.folder, self.step) if first else []
        curves = Curves(self.folder, self.step, loggers) if first else None
        shown = progress("training", config.steps, self.step, shown=first, unit="steps")
        order = Samples(self.data, config, self._factors(), self._wide())
        loading = order.batches(self.step, slots)
        try:
            if self._evaluation_due() and self._first_says(step_of_newest(self.folder, config) != self.step):
                self._write_artifacts(curves)  # a run that was cut off while it evaluated
            if self._is_over():
                return
            with shown as bar, loading as batches:
                pace = Pace(config.batch, self.group.device, self._peak_share())
                while self.step < end:
                    with pace.waiting():
                        samples = next(batches)
                    terms, values, stopping = self._take_step(samples, stop_request)
                    pace.step()
                    if self._due(config.log_every) or self.step == end:
                        figures = pace.figures()
                        if curves is not None:
                            curves.log(self.step, terms, values | figures)
                    bar.advance(1, loss=values["loss"], **{"images/s": pace.rate})
                    with pace.away():
                        if self._between_steps(stopping, end, stop_request, curves):
                            return
        finally:
            if curves is not None:
                curves.close()

    def _between_steps(
        self, stopping: bool, end: int, stop_request: StopRequest, curves: Curves | None
    ) -> bool:
        """Saves, shows and evaluates if that is due; whether the run ends here."""
        # before an evaluation too: none is of a step that a run which goes on would take again
        if stopping or self.step == end or self._due(self.config.save_every) or self._evaluation_due():
            self._save()
        if stopping:
            stop_request.signal = max(self.group.gathered(stop_request.signal))
            return True
        if curves is not None and self.config.pictures_every and self._due(self.config.pictures_every):
            self._show(curves)
        if self._evaluation_due():
            self._write_artifacts(curves)
            return self._is_over()
        return False

    def _peak_share(self) -> float | None:
        """See `pace.peak_share`; all processes are alike."""
        with active(self.ebseg), self.loss_module.autocast():
            return peak_share(self.ebseg, self.config, self.group.count)

    def _factors(self) -> NDArray[np.float64] | None:
        """How often each picture comes; the first process looks, for all."""
        factors = self.data.factors(self.config.repeat_rare) if self.group.first else None
        found: NDArray[np.float64] | None = self.group.gathered(factors)[0]
        return found

    def _wide(self) -> NDArray[np.bool_] | None:
        """Which pictures are wider than high, where batches are to hold one kind."""
        wide = self.data.wide() if self.config.group_by_shape and self.group.first else None
        found: NDArray[np.bool_] | None = self.group.gathered(wide)[0]
        return found

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        return self.step == self.config.steps or bool(every and self.step and self._due(every))

    def _first_says(self, value: bool) -> bool:
        """What the first process found, for all: the others may look later, when a file has changed."""
        return bool(self.group.gathered(value)[0])

    def _is_over(self) -> bool:
        """Whether the run ends here because it has stopped becoming better."""
        return self._first_says(Evaluations(self.folder, self.step).is_over(self.config))

    def _take_step(
        self, samples: list[TrainingSample], stop_request: StopRequest
    ) -> tuple[dict[str, float], dict[str, float], bool]:
        """One optimiser step: the loss's terms, numbers to log, and whether a process wishes to stop."""
        config = self.config
        rate = learning_rate(config, self.step)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        names, means = self._gradients(samples, stop_request)
        self.scaler.unscale_(self.optimizer)
        gradient = clip_gradients(self.optimizer, config.clip_norm)
        (fetched,) = download([torch.cat([means, gradient.to(means)[None]])])  # all numbers in one copy
        *values, stopping, norm = fetched.tolist()
        terms = dict(zip(names, values, strict=True))
        loss = sum(terms.values())
        if not torch.tensor(loss).isfinite():
            kinds = [
                name for name, value in sums_by_kind(terms).items() if not torch.tensor(value).isfinite()
            ]
            raise self._failure(f"the loss is not finite ({', '.join(kinds)})", samples)
        if not math.isfinite(norm):
            # float16's scaler skips such a step and lowers its scale
            hopeless = not self.scaler.is_enabled() or self.scaler.get_scale() < LEAST_SCALE
            if hopeless:
                raise self._failure("the gradient is not finite", samples)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        return terms, {"loss": loss, "learning_rate": rate, "gradient_norm": norm}, stopping > 0

    def _gradients(
        self, samples: list[TrainingSample], stop_request: StopRequest
    ) -> tuple[list[str], Tensor]:
        """Gradient of the whole batch's loss, part by part; scaled as the scaler has it.

        Returns:
            The terms' names; on the device, their means over the processes, and that of the wishes to stop.
        """
        device = self.group.device
        targets = [on_device(sample.target, device) for sample in samples]
        queries = self.ebseg.config.transformer_decoder.queries
        totals = BatchTotals.of(targets, queries, device, self.config.class_loss == "process")
        size = len(samples) // self.config.accumulate
        summed: dict[str, Tensor] = {}
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            images = upload(torch.stack([sample.picture for sample in part]), device)
            generators = loss_generators(part, self.config.seed, device)
            with self._until_last(start + size == len(samples)):
                total, terms = self.wrapped(images, targets[start : start + size], generators, totals)
                self.scaler.scale(total).backward()
            summed = {name: summed.get(name, 0) + value for name, value in terms.items()}
        stop_requested = torch.full((), float(stop_request.signal > 0), device=device)
        return list(summed), self.group.mean(torch.stack([*summed.values(), stop_requested]))

    def _until_last(self, last: bool) -> Any:
        """Several processes add their gradients up once a step, with the last part."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def _failure(self, what: str, samples: Sequence[TrainingSample]) -> TrainingError:
        """The error for a step that cannot be taken; the weights and the saved state stay as they are."""
        reports = self.group.gathered(non_finite_samples(self.loss_module, samples, self.config.seed))
        pictures = self.group.gathered([sample.name for sample in samples])
        blamed = [text for some in reports for text in some]
        everyone = [name for some in pictures for name in some]
        blame = f"taken alone, these fail: {'; '.join(blamed)}" if blamed else "taken alone, none fails"
        return TrainingError(
            f"step {self.step + 1}: {what}; {blame}. Images of the batch: {', '.join(everyone)}. "
            f"The last saved state is unharmed; look at the images, or lower learning_rate"
        )

    def _save(self) -> None:
        if self.group.first:
            run_state.save_state(
                self.folder,
                step=self.step,
                model=self.ebseg,
                optimizer=self.optimizer,
                names=self.names,
                ema=self.ema,
                scaler=self.scaler.state_dict(),
                notes={
                    "parent": self.parent,
                    "model": self.ebseg.config.to_dict(),
                    "classes": self.classes.to_json(),
                    "trained": self.ebseg.training_classes.to_json(),
                },
            )

    def _show(self, curves: Curves) -> None:
        data = self.validation or self.data
        averaged = self.ema.applied() if self.ema is not None else nullcontext()
        with evaluating(self.ebseg), averaged, merged(self.ebseg):
            panels = make_panels(self.ebseg, data, data.vocabulary(), self.config.evaluate_short_side)
        curves.pictures(self.step, panels)

    def _write_artifacts(self, curves: Curves | None) -> None:
        scores = write_artifacts(
            self.folder,
            step=self.step,
            group=self.group,
            ebseg=self.ebseg,
            ema=self.ema,
            config=self.config,
            data=self.data,
            validation=self.validation,
            parent=self.parent,
        )
        if curves is not None:
            curves.scores(self.step, scores)
        self.group.wait()
