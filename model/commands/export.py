"""`ebseg export`."""

import argparse
from pathlib import Path

from model.command import JSON_HELP, add_command
from model.commands.output import progress_bars, report


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "export",
        run,
        "write a checkpoint folder's weights as a file that the official EBSeg code loads",
        """
  ebseg export registry/ebseg-base/1 --official EBSeg_base.pth
""",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--official", type=Path, metavar="FILE", required=True, help="torch file to make")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg export`."""
    from model.storage.files import refuse_existing
    from model.storage.verify import verify

    refuse_existing(args.official)
    verify(args.directory, digests=False)  # before torch is imported, which takes seconds

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
