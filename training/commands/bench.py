"""`ebseg bench train`: the seconds and memory of a training step, beside what the machine can do."""

import argparse

from model.command import add_command, add_device, count
from model.commands.bench import WORK, add_json, print_step, report
from model.commands.places import VARIANTS

EXAMPLES = """
  ebseg bench train --variant base --size 320 --batch 2 --dtype float32
  ebseg bench train --variant tiny --size 192 --batch 8 --steps 20
"""


def add_benchmark(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `train` to the benchmarks."""
    parser = add_command(
        benches,
        "train",
        run,
        "a training step, against three times the forward pass at the machine's matrix-product rate",
        EXAMPLES,
    )
    network = parser.add_argument_group("the model")
    network.add_argument(
        "--variant", choices=VARIANTS, default="base", help="untrained weights of it (default: base)"
    )
    work = parser.add_argument_group(WORK)
    work.add_argument(
        "--size",
        type=count,
        default=320,
        metavar="N",
        help="side of the square images, pixels (default: 320)",
    )
    work.add_argument("--batch", type=count, default=2, metavar="B", help="images (default: 2)")
    work.add_argument(
        "--masks", type=count, default=12, metavar="K", help="masks of each image (default: 12)"
    )
    work.add_argument(
        "--points", type=count, default=12_544, metavar="P", help="of the mask losses (default: 12544)"
    )
    network.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the model; bfloat16 by autocast (default: float32)",
    )
    work.add_argument(
        "--steps", type=count, default=5, metavar="N", help="timed steps after the warm-up (default: 5)"
    )
    add_device(network)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """`ebseg bench train`."""
    from training.bench import bench_train

    found = bench_train(
        variant=args.variant,
        size=args.size,
        batch=args.batch,
        masks=args.masks,
        points=args.points,
        dtype=args.dtype,
        device=args.device,
        steps=args.steps,
        progress=print_step,
    )
    report(args, found, "ebseg train RUN --data DATA --dry-run says what a run will take")
    return 0
