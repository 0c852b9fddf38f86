"""`ebseg export`."""

import argparse
import importlib.util
from pathlib import Path

from model.command import JSON_HELP, add_command, shape
from model.commands.output import notify, progress_bars, report
from model.errors import ModelError
from model.programs.formats import FORMATS


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "export",
        run,
        "write a checkpoint folder's weights for the official EBSeg code, or its network as a program",
        """
  ebseg export registry/ebseg-base/1 --official EBSeg_base.pth
  ebseg export registry/ebseg-base/1 --format torch-export --shape 640x640
  ebseg export registry/ebseg-base/1 --format onnx --shape 640x960 --out base.onnx
""",
    )
    parser.add_argument("directory", type=Path, metavar="CHECKPOINT", help="checkpoint folder")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--official", type=Path, metavar="FILE", help="torch file to make")
    made.add_argument(
        "--format",
        dest="kind",
        choices=tuple(FORMATS),
        help="program to make: predict for one image of a padded shape, without class names",
    )
    parser.add_argument(
        "--shape",
        type=shape,
        metavar="ROWSxCOLUMNS",
        help="of its padded images, multiples of 32 (default: a square of the checkpoint's short side)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="program's file (default: NAME-VERSION-ROWSxCOLUMNS.pt2 or .onnx)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg export`."""
    from model.storage.files import refuse_existing
    from model.storage.verify import verify

    if args.official is not None and (args.shape or args.out):
        raise ModelError("--shape and --out belong to --format; --official names its own file")
    if (path := args.official or args.out) is not None:
        refuse_existing(path)
    verify(args.directory, digests=False)  # before torch is imported, which takes seconds
    return _official(args) if args.official else _program(args)


def _official(args: argparse.Namespace) -> int:
    from model.official import to_official
    from model.released.torch_file import write_state_dict
    from model.storage.checkpoint import load

    with progress_bars() as progress:
        loaded = load(args.directory, progress=progress)
    tensors = to_official(loaded.ebseg)
    write_state_dict(args.official, tensors)
    report(
        args,
        loaded.manifest,
        f"wrote {len(tensors)} tensors to {args.official}",
        f"give the official code MODEL.WEIGHTS {args.official}",
    )
    return 0


def _program(args: argparse.Namespace) -> int:
    for package in FORMATS[args.kind].packages:
        if importlib.util.find_spec(package) is None:  # here, so that it is told before long work
            raise ModuleNotFoundError(name=package)

    from model.programs.writing import write_program
    from model.storage.checkpoint import load

    with progress_bars() as progress:
        loaded = load(args.directory, progress=progress)
    rows, columns = args.shape or (loaded.ebseg.config.short_side,) * 2
    manifest = loaded.manifest
    name = f"{manifest.name}-{manifest.version}-{rows}x{columns}{FORMATS[args.kind].suffix}"
    path = args.out or Path(name)
    error = write_program(loaded, args.kind, (rows, columns), path, notify)
    report(
        args,
        manifest,
        f"wrote {path}; it differs from the checkpoint by {error:.1g}",
        f"give it images, uint8 [1, 3, {rows}, {columns}], zeros beyond the image, "
        "and sizes, int64 [1, 2], the image's rows and columns",
    )
    return 0
