"""The network of `predict` for one padded shape as a file that runs without this package.

Inputs are `images`, uint8 [1, 3, rows, columns] of the shape, zeros beyond the picture, and `sizes`, int64
[1, 2], the picture's own rows and columns; outputs are those of `EBSeg.forward`, by the names of `OUTPUTS`.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from model.errors import ModelError
from model.network.ebseg import EBSeg
from model.storage.golden import OUTPUTS

INPUTS = ("images", "sizes")
MOST_ONNX_BYTES = 2 << 30  # what a Protocol Buffers message holds
ABOUT = "ebseg.json"  # in a torch.export package: where the program comes from


def program_of(ebseg: EBSeg, shape: tuple[int, int]) -> ExportedProgram:
    """The network of `predict` for one picture of a padded shape, without the text tower, in float32.

    Args:
        ebseg: the model, on a CPU; its weights are shared, not copied.
        shape: rows and columns, multiples of the stride.
    """
    network = copy.copy(ebseg)
    network._modules = {name: part for name, part in ebseg._modules.items() if name != "clip_text"}
    images = torch.zeros(1, 3, *shape, dtype=torch.uint8)
    with torch.no_grad():
        return torch.export.export(network, (images, torch.tensor([shape])))


def write_torch_export(program: ExportedProgram, path: Path, about: str) -> None:
    """Writes what `torch.export.load` reads.

    Raises:
        OSError: the disk did not take it.
    """
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={ABOUT: about})


def write_onnx(program: ExportedProgram, path: Path, about: str) -> None:
    """Writes an ONNX model, all in one file.

    Raises:
        ModelError: it is larger than such a file can be.
        OSError: the disk did not take it.
    """
    table = torch.export.default_decompositions()
    table[torch.ops.aten.embedding_bag.padding_idx] = _summed_rows
    table[torch.ops.aten.adaptive_max_pool2d.default] = _largest_of_cells
    from onnxscript import optimizer

    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            program.run_decompositions(table),
            dynamo=True,
            verbose=False,
            optimize=False,  # its rules take 1e-8 for 0, and then an empty mask gives NaN
            input_names=INPUTS,
            output_names=OUTPUTS,
        )
        assert made is not None
        optimizer.fold_constants(made.model)  # OpenVINO does not take all that can be folded
    size = sum(one.const_value.nbytes for one in made.model.graph.initializers.values() if one.const_value)
    if size >= MOST_ONNX_BYTES:
        raise ModelError(
            f"the tensors take {size} bytes, and an ONNX file holds {MOST_ONNX_BYTES}: take torch-export"
        )
    made.model.metadata_props[ABOUT] = about
    made.save(path, external_data=False)


def _summed_rows(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `embedding_bag` computes for bags of equal size, by operators that ONNX has.

    Its own translation is a loop over the bags, of which deformable attention has tens of thousands.
    """
    rows = weight[indices.long()].view(offsets.shape[0], -1, weight.shape[1])
    summed = (per_sample_weights.view(offsets.shape[0], 1, -1) @ rows)[:, 0]
    none = offsets.new_zeros(0)  # of the outputs that only a backward pass reads
    return summed, none, none, none


def _largest_of_cells(x: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """What `adaptive_max_pool2d` computes, which ONNX has only where cells are of equal size."""
    for dim, cells in zip((-2, -1), size, strict=True):
        cell, length = torch.arange(cells), x.shape[dim]
        first, last = cell * length // cells, -(-(cell + 1) * length // cells) - 1
        widest = max(-(-(i + 1) * length // cells) - i * length // cells for i in range(cells))
        places = (first[:, None] + torch.arange(widest)).minimum(last[:, None])
        x = x.index_select(dim, places.flatten()).unflatten(dim, (cells, widest)).amax(dim)
    return x, x.new_zeros(x.shape, dtype=torch.int64)  # where they were, which nothing reads


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter's optimizer says of each node that it leaves as it is."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


WRITERS: Mapping[str, Any] = {"torch-export": write_torch_export, "onnx": write_onnx}
