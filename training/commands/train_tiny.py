"""`ebseg train-tiny`: the whole way to EBSeg-tiny, from nothing."""

import argparse
import json
from pathlib import Path
from typing import get_args

from model.command import JSON_HELP, add_command, seed
from training.config import Score

EXAMPLES = """
  ebseg train-tiny out/tiny
  ebseg train-tiny out/quick --share 0.01
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `ebseg train-tiny`."""
    parser = add_command(
        commands,
        "train-tiny",
        run,
        "draw Storybook, pretrain CLIP and SAM on it, and train EBSeg-tiny",
        EXAMPLES,
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder for everything; goes on where it stopped"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of data, weights and order (default: 0)"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, metavar="X", help="of the steps and pictures, 0..1 (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg train-tiny`."""
    import sys

    from training.recipes.tiny import Recipe, train_tiny
    from training.run.folder import RUN_METRICS

    def notify(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    folder = train_tiny(args.out, Recipe(seed=args.seed).shrunk(args.share), notify)
    metrics = json.loads((folder / RUN_METRICS).read_text(encoding="utf-8"))
    scores = {name: metrics[name] for name in get_args(Score)}
    if args.json:
        print(json.dumps({"run": str(folder)} | scores))
    else:
        print(
            f"{folder}: "
            + ", ".join(f"{name} {value:.1f}" for name, value in scores.items() if value is not None)
        )
        print(f"next: ebseg publish {folder} registry/ebseg-tiny")
    return 0
