"""Benchmark of batches on a device: how near `predict` comes to what the card can do.

Where a card's work is asked for faster than it is done, seconds are those of the card: the host waits for it
before and after each timing. Figures of launches are operations that torch was asked for, about one kernel
each. Not yet run on a GPU.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.bench.engine import MATRIX_SIDE, Progress
from model.bench.gpu_card import CheckedDevice, data_sheet_peak
from model.network.copies import copies_of
from model.network.ebseg import EBSeg

WARM_UPS = 3


class OperationCounter(TorchDispatchMode):
    """Counts the operations that torch is asked for, about one kernel each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def bench_batches(
    ebseg: EBSeg,
    picture: Tensor,
    batches: list[int],
    *,
    flops: float,
    dtype: str,
    compiled: bool,
    card: CheckedDevice | None,
    runs: int,
    progress: Progress,
) -> dict[str, Any]:
    """Batches of one picture, each size by itself.

    Args:
        ebseg: where it is to run, in its number type.
        picture: uint8 [3, rows, columns], on the host.
        batches: numbers of pictures.
        flops: of one picture.
        dtype: that the products' rate is measured in.
        compiled: whether `torch.compile` makes the network first, for each number of pictures.
        card: the device; None on a CPU.
        runs: timed ones of each.
        progress: told about the steps.

    Returns:
        JSON values: `matmul_flops_per_second` of the device, `data_sheet_flops_per_second` of its card, and
        `batches`, a list with figures of each size: `fraction_of_limit` is the arithmetic over what the
        measured product allows in that time, `fraction_of_data_sheet` over what the card's sheet promises.
        `overlap` is the share of an upload that is hidden behind computing. None is what cannot be told.
    """
    rate = _product_rate(ebseg.device, dtype, card, runs)
    described = {} if card is None else card.describe()
    peak = data_sheet_peak(str(described.get("name", "")), dtype)
    network: Callable[..., Any] = torch.compile(ebseg, fullgraph=True, dynamic=False) if compiled else ebseg
    found = []
    for count in batches:
        progress(f"batches of {count}")
        found.append(_of_size(network, picture, count, card, runs, counted=not compiled))
        seconds = found[-1]["seconds_median"]
        found[-1] |= {
            "pictures_per_second": count / seconds,
            "fraction_of_limit": count * flops / rate / seconds,
            "fraction_of_data_sheet": None if peak is None else count * flops / peak / seconds,
        }
    return {
        "device": str(ebseg.device),
        "card": described or None,
        "compiled": compiled,
        "device_matmul_flops_per_second": rate,
        "data_sheet_flops_per_second": peak,
        "batches": found,
    }


@torch.inference_mode()
def _of_size(
    network: Callable[..., Any],
    picture: Tensor,
    count: int,
    card: CheckedDevice | None,
    runs: int,
    *,
    counted: bool,
) -> dict[str, Any]:
    device = torch.device("cpu") if card is None else card.device
    sent = picture[None].repeat(count, 1, 1, 1)
    copies = copies_of(device)
    (there,) = copies.upload([sent])
    for _ in range(WARM_UPS):
        network(there)
    seconds = _seconds(lambda: network(there), card, runs)
    operations: int | None = None
    if counted:
        with OperationCounter() as counting:
            network(there)
        operations = counting.count
    waits = watts = overlap = memory = None
    if card is not None:
        with card.waits() as seen:
            network(there)
        waits = len(seen)
        watts, memory = card.watts(), card.memory()["peak_bytes"]
        upload_s = statistics.median(_seconds(lambda: copies.upload([sent]), card, runs))

        def both() -> None:  # the next batch's upload beside this one's computing
            network(there)
            copies.upload([sent])

        longer = statistics.median(_seconds(both, card, runs)) - statistics.median(seconds)
        overlap = min(1.0, max(0.0, 1 - longer / upload_s))
    return {
        "batch": count,
        "seconds": seconds,
        "seconds_median": statistics.median(seconds),
        "launches_per_picture": None if operations is None else operations / count,
        "waits_per_picture": None if waits is None else waits / count,
        "overlap": overlap,
        "peak_bytes": memory,
        "watts": watts,
    }


def _product_rate(device: torch.device, dtype: str, card: CheckedDevice | None, runs: int) -> float:
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(getattr(torch, dtype)).to(device)
    for _ in range(WARM_UPS):
        matrix @ matrix
    return float(2 * MATRIX_SIDE**3 / statistics.median(_seconds(lambda: matrix @ matrix, card, runs)))


def _seconds(run: Callable[[], object], card: CheckedDevice | None, runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        if card is not None:
            card.settle()
        began = time.perf_counter()
        run()
        if card is not None:
            card.settle()
        found.append(time.perf_counter() - began)
    return found
