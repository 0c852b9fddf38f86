"""`make gpu-check`: runs the checks on the GPU of this machine, and prints one JSON object.

Exit codes: 0 all passed, 1 some failed, 2 there is no GPU here.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from model.bench.gpu_card import CheckedDevice, card_here
from model.storage.packaged import packaged_checkpoint
from training.gpu_check.checks import Subject, run_checks

NO_CARD = (
    "there is no GPU here that torch can use: run this on a machine with one, with a driver and a torch for "
    "CUDA (`make setup TORCH=cuda`)"
)


def main(
    arguments: Sequence[str] | None = None, find_card: Callable[[], CheckedDevice | None] = card_here
) -> int:
    """Runs them; the report goes to standard output, what is going on to standard error."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu_check", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="version folder (default: EBSeg-tiny)")
    parser.add_argument("--side", type=int, default=640, help="of the images, pixels (default: 640)")
    parser.add_argument("--batches", default="1,8", help="images predicted together (default: 1,8)")
    parser.add_argument("--soak", type=float, default=60.0, metavar="SECONDS", help="(default: 60)")
    args = parser.parse_args(arguments)
    card = find_card()
    if card is None:
        print(NO_CARD, file=sys.stderr)
        return 2
    subject = Subject.of(
        card,
        args.checkpoint or packaged_checkpoint(),
        side=args.side,
        batches=[int(size) for size in args.batches.split(",")],
        soak_s=args.soak,
    )
    report = run_checks(subject, lambda name: print(f"checking: {name}", file=sys.stderr, flush=True))
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
