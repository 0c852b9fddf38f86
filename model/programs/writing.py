"""Writes a checkpoint's network as a program; the file is kept if it computes what the checkpoint does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from model.errors import CheckpointError, PictureError
from model.network.ebseg import EBSeg
from model.network.pictures import STRIDE, pad_to, padded_size
from model.programs.making import WRITERS, program_of
from model.programs.runtimes import Program, onnxruntime_program, torch_export_program
from model.storage.checkpoint import LoadedCheckpoint, check_golden
from model.storage.files import refuse_existing, replacing
from model.storage.golden import image, largest_error
from model.storage.manifest import to_json

CLOSENESS = 1e-4  # relative, of every output
RUNTIMES: Mapping[str, Callable[[Path], Program]] = {
    "torch-export": torch_export_program,
    "onnx": onnxruntime_program,
}
# A pixel that another order of sums carries over a mask's threshold moves outputs by more than `CLOSENESS`.
# That is rare, and belongs to a picture; what is wrong with a program shows on each.
PICTURES = 3


def write_program(
    loaded: LoadedCheckpoint, kind: str, shape: tuple[int, int], path: Path, notify: Callable[[str], None]
) -> float:
    """Writes the program; the file appears whole and checked, or not at all.

    The checkpoint's network has to give its golden tensors here, and the program, read from the file by its
    own runtime, what the network gives for a picture of the shape.

    Args:
        loaded: the checkpoint, on a CPU.
        kind: a key of `WRITERS`.
        shape: rows and columns, multiples of the stride.
        path: of the file, which is not there yet.
        notify: told of the steps.

    Returns:
        The largest relative error of an output.

    Raises:
        CheckpointError: the checkpoint or the program computes something else, or the file exists.
        PictureError: no pictures are padded to such a shape.
        ModelError: the format cannot hold the program.
        OSError: the disk did not take it.
    """
    refuse_existing(path)
    check_shape(shape, loaded.ebseg.config.long_side)
    notify("comparing the checkpoint with its golden image")
    check_golden(loaded)
    ebseg = loaded.ebseg.float()
    manifest = loaded.manifest
    about = {"name": manifest.name, "version": manifest.version, "digest": manifest.digest, "shape": [*shape]}
    notify("making the program")
    program = program_of(ebseg, shape)
    with replacing(path) as partial:
        WRITERS[kind](program, partial, to_json(about))
        notify("comparing the program with the checkpoint")
        error = compare_program(RUNTIMES[kind](partial), ebseg, shape)
        if not error <= CLOSENESS:
            raise CheckpointError(
                f"the program's outputs are off by {error:.2g}, more than the {CLOSENESS:g} allowed, and it "
                f"was not kept: {kind} computes something else here"
            )
        refuse_existing(path)
    return error


def check_shape(shape: tuple[int, int], longest: int) -> None:
    """Raises PictureError unless the sides are multiples of the stride, and at most the longest, pixels."""
    if padded_size(shape) != shape or max(shape) > longest:
        raise PictureError(
            f"--shape takes rows and columns that are multiples of {STRIDE}, and here at most {longest}: "
            f"got {shape[0]}x{shape[1]}"
        )


def compare_program(program: Program, ebseg: EBSeg, shape: tuple[int, int]) -> float:
    """The largest relative error of an output, for the best of up to `PICTURES` pictures; see there."""
    errors: list[float] = []
    while len(errors) < PICTURES and not (errors and min(errors) <= CLOSENESS):
        # smaller than the shape, each by other amounts: how much is padding is an input, too
        size = (shape[0] - 3 - 2 * len(errors), shape[1] - 5 - 3 * len(errors))
        images, sizes = pad_to(image(*size), shape)[None], torch.tensor([size])
        with torch.no_grad():
            wanted = ebseg(images, sizes)
        errors.append(largest_error(program(images, sizes), wanted))
    return min(errors)
