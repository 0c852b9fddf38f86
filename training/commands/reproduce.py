"""`ebseg reproduce`: the paper's Table 1 beside what a pulled checkpoint scores here."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command
from model.released.known import BENCHMARKS
from training.commands.evaluate import add_process_options, device_of

if TYPE_CHECKING:
    from training.evaluation.reproduce import Reproduction

KEPT = "reproduced.json"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "reproduce",
        run,
        "score a released checkpoint on the paper's benchmarks, and compare with the paper",
        """
  ebseg reproduce data
  ebseg reproduce data --benchmarks ade20k-150,voc-20 --device cuda --processes 8
  ebseg reproduce data --checkpoint large --out reproduced-large.md --json

The exit code is 0 if every score is within 0.1 of the paper's, else 1. A second run goes on where the first
ended.""",
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help=f"folder in which `ebseg prepare` has made the benchmarks: {', '.join(BENCHMARKS)}",
    )
    what = parser.add_argument_group("what is scored")
    what.add_argument(
        "--benchmarks", metavar="LIST", help="names with commas between them (default: all five)"
    )
    what.add_argument(
        "--checkpoint",
        default="base",
        metavar="CHECKPOINT",
        help="checkpoint folder, or base or large for what `ebseg pull` has put in registry/ (default: base)",
    )
    out = parser.add_argument_group("what is written")
    out.add_argument("--out", type=Path, metavar="FILE", help="write a Markdown page of the results as well")
    out.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help=f"JSON file that keeps finished scores (default: {KEPT} in DATA)",
    )
    add_process_options(parser)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg reproduce`."""
    from model.storage.checkpoint import load
    from model.storage.files import replace_text
    from training.evaluation.benchmarks import chosen
    from training.evaluation.reproduce import reproduce

    names = BENCHMARKS if args.benchmarks is None else [name.strip() for name in args.benchmarks.split(",")]
    benchmarks = chosen(names)
    folder = _checkpoint(args.checkpoint)
    device = device_of(args)
    made = reproduce(
        load(folder, device=device),
        args.data,
        benchmarks,
        args.keep or args.data / KEPT,
        command=_command(args, folder),
        processes=args.processes,
    )
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(args.out, made.markdown())
    if args.json:
        print(json.dumps(made.to_json()))
    else:
        print(_table(made))
        page = f"send {args.out} along" if args.out is not None else "the same with --out FILE writes a page"
        print(f"next: {page}, with all that it takes to repeat this")
    return 0 if made.reproduced else 1


def _checkpoint(text: str) -> Path:
    """The folder of a released name in the registry here, or the folder that the text names.

    Raises:
        CheckpointError: the released model was not pulled yet.
    """
    from model.errors import CheckpointError
    from model.fetch.pull import REGISTRY
    from model.released.known import released_model

    model = released_model(text)
    if model is None:
        return Path(text)
    folder = REGISTRY / model.checkpoint / "1"
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not there: ebseg pull {model.name} gets it")
    return folder


def _command(args: argparse.Namespace, folder: Path) -> str:
    words = ["ebseg", "reproduce", str(args.data), "--checkpoint", str(folder)]
    if args.benchmarks is not None:
        words += ["--benchmarks", args.benchmarks]
    return shlex.join([*words, "--device", args.device, "--processes", str(args.processes)])


def _table(made: "Reproduction") -> str:
    setting = made.setting
    lines = [
        f"{made.model.title}, {setting['checkpoint']}, digest {setting['digest']}",
        f"{setting['dtype']} on {setting['device']}, short side {setting['short side']}",
        "",
        f"{'mIoU':<20}  paper   here  difference",
    ]
    for row in made.rows:
        ours = f"{row.score.miou:6.2f}" if row.score is not None else "     -"
        gap = f"{row.score.miou - row.paper:+10.2f}" if row.score is not None else " " * 10
        lines.append(f"{row.benchmark.name:<20}  {row.paper:5.1f} {ours}  {gap}  {row.agreement}")
    return "\n".join(lines)
