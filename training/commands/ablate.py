"""`ebseg ablate`: the paper's Tables 3 to 7 on any data set, beside the paper's figures."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count
from model.commands.output import notify
from training.commands.evaluate import (
    add_process_options,
    add_set_options,
    device_of,
    opened,
    options,
    refuse_missing,
)

if TYPE_CHECKING:
    from model.storage.checkpoint import LoadedCheckpoint
    from training.ablate.grid import GridRun, GridScore
    from training.ablate.tables import Table


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its four own commands."""
    parser = add_command(
        commands,
        "ablate",
        None,
        "compute the paper's ablation tables",
        """
  ebseg ablate embeddings registry/ebseg-tiny/1 data/storybook
  ebseg ablate ssc run.json --seeds 3 --out runs/ssc
""",
    )
    tables = parser.add_subparsers(title="tables", metavar="TABLE", required=True)
    one = add_command(
        tables,
        "embeddings",
        embeddings,
        "Table 3: mIoU of every subset of the embeddings A, B and D, in one pass",
        """
  ebseg ablate embeddings registry/ebseg-tiny/1 data/storybook
  ebseg ablate embeddings registry/ebseg-base/1 data/ade20k-150 --processes 4 --json
""",
    )
    _add_table_options(one)
    one.add_argument("--json", action="store_true", help=JSON_HELP)
    one = add_command(
        tables,
        "balance",
        balance,
        "Table 4: mIoU of trained and new classes without and with balancing, in one pass",
        """
  ebseg ablate balance registry/ebseg-tiny/1 data/storybook
  ebseg ablate balance runs/seed-0 data/storybook --also runs/seed-1 runs/seed-2
""",
    )
    _add_table_options(one)
    one.add_argument("--json", action="store_true", help=JSON_HELP)
    one = add_command(
        tables,
        "ssc",
        ssc,
        "Tables 5 and 6: train with the SSC loss on other embeddings and layers, or without it, and compare",
        """
  ebseg ablate ssc run.json --seeds 3 --out runs/ssc
  ebseg ablate ssc run.json --variants none a-last-1 --out runs/ssc --json
""",
    )
    _add_grid_options(one).add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help="none, or EMBEDDINGS-LAYERS: a, b or ab, and last-1, last-3 or all, as in ab-last-3; or "
        "a-last-1-cosine (default: none a-last-1 a-last-1-cosine a-last-3 a-all b-last-1 ab-last-1)",
    )
    one = add_command(
        tables,
        "backbones",
        backbones,
        "Table 7: train with SAM, Swin-T (frozen and trained) and Swin-B as image backbone, and compare",
        """
  ebseg ablate backbones run.json --seeds 3 --out runs/backbones
  ebseg ablate backbones run.json --swin-t starts/swin-t/1 --swin-b starts/swin-b/1 --out runs/backbones
""",
    )
    trained = _add_grid_options(one)
    for name in ("swin-t", "swin-b"):
        trained.add_argument(
            f"--{name}",
            metavar="CHECKPOINT",
            help="checkpoint folder that its runs start from, where the configuration has init",
        )


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    add_set_options(parser)
    parser.add_argument(
        "--also",
        type=Path,
        nargs="+",
        default=[],
        metavar="CHECKPOINT",
        help="further trainings of the same: every score is then mean, least and greatest of all",
    )


def _also(args: argparse.Namespace) -> "list[LoadedCheckpoint]":
    """The trainings of `--also`."""
    from model.storage.checkpoint import load
    from training.run.folder import in_run

    return [load(in_run(path), device=device_of(args)) for path in args.also]


def _add_grid_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Adds what both grids have; the section of what is trained, for what only one of them has."""
    parser.add_argument(
        "config",
        type=Path,
        metavar="RUN_CONFIG",
        help="JSON file of a training's configuration, val_split set",
    )
    runs = parser.add_argument_group("what is trained")
    runs.add_argument(
        "--seeds", type=count, default=3, metavar="N", help="trainings of each variant (default: 3)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for runs and tables; the same command again goes on where it was stopped",
    )
    add_process_options(parser)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return runs


def embeddings(args: argparse.Namespace) -> int:
    """`ebseg ablate embeddings`."""
    refuse_missing(args)
    from training.ablate.subsets import embeddings_table

    how = options(args)
    loaded, folder = opened(args)
    also = _also(args)
    tables = [embeddings_table(loaded, folder, also=also, processes=args.processes, options=how)]
    others = "".join(f" {one}" for one in args.also)
    next_one = f"ebseg ablate balance {args.checkpoint} {args.data}{' --also' + others if others else ''}"
    _report(args, tables, next_one)
    return 0


def balance(args: argparse.Namespace) -> int:
    """`ebseg ablate balance`."""
    refuse_missing(args)
    from training.ablate.subsets import balance_table

    how = options(args)
    loaded, folder = opened(args)
    also = _also(args)
    tables = [balance_table(loaded, folder, also=also, processes=args.processes, options=how)]
    _report(args, tables, f"ebseg evaluate {args.checkpoint} {args.data} --pictures DIR")
    return 0


def ssc(args: argparse.Namespace) -> int:
    """`ebseg ablate ssc`."""
    from training.ablate import ssc as tables
    from training.ablate.grid import model_config, read_config

    config = read_config(args.config)
    layers = model_config(config).transformer_decoder.layers
    runs = tables.runs(config, args.variants or tables.CHOSEN, args.seeds, layers)
    return _grid(args, runs, lambda scores: [tables.table_5(scores), tables.table_6(scores)])


def backbones(args: argparse.Namespace) -> int:
    """`ebseg ablate backbones`."""
    from training.ablate import backbones as tables
    from training.ablate.grid import read_config

    given = {name: getattr(args, name.replace("-", "_")) for name in tables.SWINS}
    configs = tables.starts(read_config(args.config), {k: v for k, v in given.items() if v is not None})
    return _grid(args, tables.runs(configs, args.seeds), lambda scores: [tables.table_7(scores)])


def _grid(
    args: argparse.Namespace,
    runs: "Sequence[GridRun]",
    tables: "Callable[[Sequence[GridScore]], list[Table]]",
) -> int:
    from training.ablate.grid import TABLE, run_grid

    device = device_of(args)
    scores = run_grid(runs, args.out, tables, processes=args.processes, device=device)
    then = f"{args.out / TABLE} has the table; ebseg publish {args.out}/VARIANT/seed-N registry/NAME"
    _report(args, tables(scores), then, scores)
    return 0


def _report(
    args: argparse.Namespace, tables: "Sequence[Table]", then: str, scores: "Sequence[GridScore]" = ()
) -> None:
    import dataclasses

    from training.ablate.tables import as_markdown

    if args.json:
        content = {"tables": [table.to_json() for table in tables]}
        runs = {"runs": [dataclasses.asdict(score) for score in scores]} if scores else {}
        print(json.dumps(content | runs))
    else:
        print(as_markdown(tables), end="")
        notify(f"next: {then}")  # not into the Markdown
