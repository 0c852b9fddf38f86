"""What a run will take, before it runs: memory and time, and what makes it fit into a GPU's memory.

The network runs once on tensors without content, so that every size is the run's own and nothing is computed.
What autograd keeps for the backward pass is counted, tensor by tensor.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from model.bench.engine import MATRIX_SIDE, limit_dtype, matrix_product
from model.bench.gpu_card import data_sheet_peak
from model.network.ebseg import EBSeg
from model.network.sam_encoder import SamEncoder
from training.config import TrainConfig
from training.data.mixture import Mixture
from training.errors import TrainingError
from training.run.distributed import Processes
from training.run.lora import active
from training.run.loss_module import AMP_TYPES, start_model
from training.run.pace import GIB, PEAK_DTYPES, TIMES_FORWARD
from training.run.parts import prepare

# Over what is counted: what comes and goes within an operation, and the loss. Two pictures of 320 pixels in
# EBSeg-B, float32, are counted as 2.6 GiB beside the weights; a step on a CPU took 4.3, with Python's own.
SLACK = 1.5
CONTEXT = round(0.6 * GIB)  # of CUDA and its libraries, on a GPU
USED = 0.95  # of a GPU's memory, at most: the allocator leaves gaps
# Share of the peak that a step reaches: of a data sheet, assumed; of a CPU's own matrix products, measured.
OF_SHEET, OF_PRODUCTS = 0.3, 0.75
_BYTES = 4  # of a weight; a trained one has a gradient and two moments beside it
_PRODUCTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run takes on each of its devices.

    Attributes:
        accumulate, activation_checkpointing: of the run's configuration.
        part: pictures that go through the network together.
        weights: bytes of all weights and, under autocast, of their copies.
        training: bytes of gradients, moments and averages.
        picture: bytes that autograd keeps for a picture.
        expected: bytes at the peak, all in all.
        step_flops: floating point operations of a step, of all processes.
        rate: of a device, floating point operations a second; None where nothing tells it.
        rate_note: where that is from.
        steps, processes: of the run.
    """

    accumulate: int
    activation_checkpointing: bool
    part: int
    weights: int
    training: int
    picture: int
    expected: int
    step_flops: float
    rate: float | None
    rate_note: str
    steps: int
    processes: int

    @property
    def seconds(self) -> float | None:
        """Of the whole run, without evaluations and without waits for data."""
        return None if self.rate is None else self.steps * self.step_flops / (self.rate * self.processes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self) | {"seconds": self.seconds}

    def text(self) -> str:
        """For people."""
        time = f"not known: {self.rate_note}"
        if self.seconds is not None and self.rate is not None:
            hours, minutes = divmod(round(self.seconds / 60), 60)
            rate = f"{self.processes} x {self.rate / 1e12:.3g} TFLOP/s, {self.rate_note}"
            time = f"{hours} h {minutes} min, on {rate}"
        twice = "computed twice" if self.activation_checkpointing else "kept"
        parts = f"{self.accumulate} part{'s' * (self.accumulate > 1)}"
        return "\n".join(
            (
                f"images    {self.part} at a time, a step in {parts}; SAM's blocks are {twice}",
                f"memory    {self.expected / GIB:.1f} GiB: weights {self.weights / GIB:.1f}, gradients and "
                f"moments {self.training / GIB:.1f}, each image {self.picture / GIB:.1f}, and a share for "
                "what comes and goes; computed",
                f"time      {time}; {self.steps} steps of {self.step_flops / 1e12:.3g} TFLOP",
            )
        )


def planned(config: TrainConfig, group: Processes, gib: float | None) -> tuple[TrainConfig, Forecast]:
    """A run's configuration, fitted into `gib` if that is given, and what it takes; reads data and weights.

    Raises:
        TrainingError, DatasetError, CheckpointError: the run could not begin.
    """
    ebseg, _ = start_model(config, Mixture.of(config).training_classes())
    prepare(ebseg, config)
    ebseg.train()
    if gib is not None:
        config = fitted(ebseg, config, group.count, gib)
    return config, forecast(ebseg, config, group.count, group.device)


def fitted(ebseg: EBSeg, config: TrainConfig, processes: int, gib: float) -> TrainConfig:
    """The configuration with what makes it fit into a GPU: as few parts as may be, computed twice if need be.

    The loss and the weights stay the same but for rounding.

    Args:
        ebseg: set up for the run, see `parts.prepare`.
        config: of the run; its `accumulate` and `activation_checkpointing` are chosen anew.
        processes: each with a GPU of its own.
        gib: memory of each, GiB.

    Raises:
        TrainingError: not even one picture fits.
    """
    own = config.batch // processes
    ways = (False, True) if isinstance(ebseg.backbone, SamEncoder) else (False,)
    for recompute in ways:
        (weights, training), picture = memory_of(ebseg, config, recompute)
        room = gib * GIB * USED - CONTEXT - weights - SLACK * training
        for parts in range(1, own + 1):
            if own % parts == 0 and own // parts * picture * SLACK <= room:
                return dataclasses.replace(config, accumulate=parts, activation_checkpointing=recompute)
    needed = (weights + SLACK * (training + picture) + CONTEXT) / USED / GIB
    raise TrainingError(
        f"{gib:g} GiB are too little: one image of {config.crop} pixels takes {needed:.1f} GiB; take a "
        "smaller crop, or freeze parts of the model with --rates"
    )


def forecast(ebseg: EBSeg, config: TrainConfig, processes: int, device: torch.device) -> Forecast:
    """What a run takes on a device of that kind; see `Forecast`."""
    (weights, training), picture = memory_of(ebseg, config, config.activation_checkpointing)
    part = config.batch // processes // config.accumulate
    cuda = device.type == "cuda"
    flops, blocks = flops_of(ebseg, config)
    step = TIMES_FORWARD * flops + (blocks if config.activation_checkpointing else 0)
    rate, note = _rate(config, device)
    return Forecast(
        accumulate=config.accumulate,
        activation_checkpointing=config.activation_checkpointing,
        part=part,
        weights=weights,
        training=training,
        picture=picture,
        expected=weights + round(SLACK * (training + part * picture)) + (CONTEXT if cuda else 0),
        step_flops=config.batch * step,
        rate=rate,
        rate_note=note,
        steps=config.steps,
        processes=processes,
    )


def memory_of(ebseg: EBSeg, config: TrainConfig, recompute: bool) -> tuple[tuple[int, int], int]:
    """Bytes of the weights, of what training keeps beside them, and of what autograd keeps for a picture."""
    parameters = list(ebseg.parameters())
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    half = config.amp != "off"
    weights = sum(one.numel() for one in parameters) * (_BYTES + (2 if half else 0))
    training = trained * _BYTES * (4 if config.ema else 3)
    network = _Network(ebseg, config)
    own = {_storage(one) for one in network.weights.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with _recomputing(ebseg.backbone, recompute), hooks:
        outputs = network.run()
    del outputs
    return (weights, training), sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def flops_of(ebseg: EBSeg, config: TrainConfig) -> tuple[float, float]:
    """Floating point operations of one picture forward: of all, and of SAM's encoder."""
    trained = [parameter for parameter in ebseg.parameters() if parameter.requires_grad]
    ebseg.requires_grad_(False)  # counting stumbles over what could have gradients
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            _Network(ebseg, config).run()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    by_module = counter.get_flop_counts()
    backbone = next(by_module[name] for name in by_module if name.endswith("ebseg.backbone"))
    return float(counter.get_total_flops()), float(sum(backbone.values()))


def _storage(tensor: Tensor) -> int:
    """What tells storages apart as long as they live."""
    return int(tensor.untyped_storage()._cdata)


class _Network(nn.Module):
    """All stages of one picture, on weights without content that take the real ones' places meanwhile.

    Attributes:
        weights: by name.
    """

    def __init__(self, ebseg: EBSeg, config: TrainConfig):
        super().__init__()
        self.ebseg, self._config = ebseg, config
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.weights = {
            name: self._mode.from_tensor(one.detach()).requires_grad_(one.requires_grad)
            for name, one in (*self.named_parameters(), *self.named_buffers())
        }

    def forward(self, image: Tensor) -> Any:
        """As a step of the run does it, in its number type."""
        amp = AMP_TYPES.get(self._config.amp)
        with torch.autocast(image.device.type, amp, enabled=amp is not None), active(self.ebseg):
            return self.ebseg.stages(image)

    def run(self) -> Any:
        """What comes out, without content."""
        side = self._config.crop
        with self._mode:
            image = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.ebseg.device)
            return torch.func.functional_call(self, self.weights, (image,))


@contextmanager
def _recomputing(backbone: nn.Module, recompute: bool) -> Iterator[None]:
    """SAM's blocks are computed twice, or not, for a while."""
    if not isinstance(backbone, SamEncoder):
        yield
        return
    before, backbone.recompute = backbone.recompute, recompute
    try:
        yield
    finally:
        backbone.recompute = before


def _rate(config: TrainConfig, device: torch.device) -> tuple[float | None, str]:
    """Operations a second that a step may reach on this machine's device, and where that is from."""
    dtype = PEAK_DTYPES[config.amp]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = data_sheet_peak(name, dtype)
        if peak is None:
            return None, f"no data sheet of {name} is known here"
        return OF_SHEET * peak, f"{OF_SHEET:.0%} of the data sheet of {name}, which is assumed"
    product = matrix_product(limit_dtype(AMP_TYPES.get(config.amp) or torch.float32, lambda text: None))
    seconds = []
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - began)
    rate = 2 * MATRIX_SIDE**3 / statistics.median(seconds)
    return OF_PRODUCTS * rate, f"{OF_PRODUCTS:.0%} of this processor's matrix products, measured now"
