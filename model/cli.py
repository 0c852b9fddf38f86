"""The model's own commands: import, inspect, init, export.

Modules that load torch are imported by the commands, not by this file: `ebseg --help` has to be quick.
Commands raise domain errors; `ebseg.main` turns them into one line and an exit code.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command, seed
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.checkpoint import LoadedCheckpoint
    from model.files import Progress
    from model.manifest import Manifest

# the keys of model.config.VARIANTS, which needs torch
VARIANTS = ("tiny", "base", "large", "tiny-swin-t", "tiny-swin-b", "base-swin-t", "base-swin-b")
OUT_HELP = "folder to make, ending in NAME/VERSION as in registry/ebseg-base/1"

_LOG = logging.getLogger(__name__)


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands; each parsed namespace carries its function as `run`."""
    parser = add_command(
        subparsers,
        "import",
        import_released,
        "turn a released EBSeg checkpoint into a versioned checkpoint folder",
        """
  ebseg import EBSeg_base.pth --variant base --out registry/ebseg-base/1
  ebseg import EBSeg_large.pth --variant large --out registry/ebseg-large/1 --json
""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help='torch file that holds {"model": state_dict}')
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="configuration of the weights")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=OUT_HELP)
    parser.add_argument(
        "--training-classes",
        type=Path,
        metavar="FILE",
        help="JSON file of the classes that the weights were trained on (default: COCO-Stuff's 171)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_command(
        subparsers,
        "inspect",
        inspect,
        "verify a checkpoint folder and print what is inside",
        """
  ebseg inspect registry/ebseg-base/1
  ebseg inspect registry/ebseg-base/1 --json
  ebseg inspect
""",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="checkpoint folder (default: the EBSeg-tiny that comes with ebseg)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_command(
        subparsers,
        "init",
        init,
        "make an untrained checkpoint folder, for tests and measurements",
        """
  ebseg init --variant tiny --out registry/ebseg-tiny/1
  ebseg init --variant base --seed 7 --out registry/ebseg-base/1
""",
    )
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="configuration to build")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the weights (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=OUT_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_command(
        subparsers,
        "export",
        export,
        "write a checkpoint folder's weights as a file that the official EBSeg code loads",
        """
  ebseg export registry/ebseg-base/1 --official EBSeg_base.pth
""",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--official", type=Path, metavar="FILE", required=True, help="torch file to make")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def import_released(args: argparse.Namespace) -> int:
    """`ebseg import`."""
    name, version = name_and_version(args.out)
    from model.checkpoint import save
    from model.files import refuse_taken, sha256
    from model.manifest import json_object
    from model.official import load_official
    from model.torch_file import read_state_dict
    from model.vocabulary import TrainingClasses

    refuse_taken(args.out)
    classes = None
    if args.training_classes is not None:
        try:
            text = args.training_classes.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{args.training_classes} cannot be read: {error.strerror or error}"
            ) from None
        classes = TrainingClasses.from_json(json_object(text, str(args.training_classes)))
    state_dict = read_state_dict(args.file)
    try:
        ebseg = load_official(state_dict, args.variant, training_classes=classes)
    except CheckpointError as error:
        raise CheckpointError(f"{args.file}: {error}") from None
    with _progress() as progress:
        notes = {"imported_from": args.file.name, "sha256": sha256(args.file, progress)}
        manifest = save(
            ebseg, args.out, name=name, version=version, untrained=False, notes=notes, progress=progress
        )
    _report(args, manifest, f"imported {args.file} as {args.out}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    """`ebseg inspect`."""
    from model.checkpoint import load
    from model.packaged import packaged_checkpoint

    directory = args.directory or packaged_checkpoint()
    with _progress() as progress:
        loaded = load(directory, progress=progress)
    if args.json:
        print(json.dumps(_summary(loaded)))
    else:
        _print_table(loaded)
    return 0


def init(args: argparse.Namespace) -> int:
    """`ebseg init`."""
    name, version = name_and_version(args.out)
    from model import config
    from model.build import build
    from model.checkpoint import save
    from model.files import refuse_taken
    from model.vocabulary import TrainingClasses

    refuse_taken(args.out)
    ebseg = build(config.VARIANTS[args.variant], TrainingClasses.coco_stuff(), seed=args.seed)
    with _progress() as progress:
        notes = {"initialised_with_seed": args.seed}
        manifest = save(
            ebseg, args.out, name=name, version=version, untrained=True, notes=notes, progress=progress
        )
    _LOG.warning("%s version %d is untrained: its masks mean nothing", name, version)
    _report(args, manifest, f"made {args.out}, untrained")
    return 0


def export(args: argparse.Namespace) -> int:
    """`ebseg export`."""
    from model.checkpoint import load
    from model.official import to_official
    from model.torch_file import refuse_existing, write_state_dict

    refuse_existing(args.official)
    with _progress() as progress:
        loaded = load(args.directory, progress=progress)
    tensors = to_official(loaded.ebseg)
    write_state_dict(args.official, tensors)
    _report(args, loaded.manifest, f"wrote {len(tensors)} tensors to {args.official}")
    return 0


def name_and_version(directory: Path) -> tuple[str, int]:
    """What `.../NAME/NUMBER` says.

    Raises:
        CheckpointError: the path does not end so.
    """
    from model.manifest import check_name

    path = directory.absolute()
    if not (path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name):
        raise CheckpointError(
            f"--out must end in a name and a version number, as in registry/ebseg-base/1; got {directory}"
        )
    check_name(path.parent.name, int(path.name))
    return path.parent.name, int(path.name)


def _report(args: argparse.Namespace, manifest: "Manifest", line: str) -> None:
    if args.json:
        print(manifest.to_json())
    else:
        print(f"{line}\ndigest {manifest.digest}")


def _summary(loaded: "LoadedCheckpoint") -> dict[str, Any]:
    """What `ebseg inspect` tells, as JSON values."""
    config, parameters = loaded.ebseg.config, list(loaded.ebseg.parameters())
    return loaded.manifest.to_dict() | {
        "directory": str(loaded.directory),
        "parameters": {
            "total": sum(parameter.numel() for parameter in parameters),
            "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        },
        "training_classes": len(loaded.ebseg.training_classes.classes),
        "metrics": loaded.metrics,
        "config": config.to_dict(),
    }


def _print_table(loaded: "LoadedCheckpoint") -> None:
    from rich.console import Console
    from rich.table import Table

    manifest, config, summary = loaded.manifest, loaded.ebseg.config, _summary(loaded)
    weights = (("trained classes", config.balance.trained), ("new classes", config.balance.new))
    rows: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "variant": manifest.variant,
        "state": "untrained: its masks mean nothing" if manifest.untrained else "trained",
        "digest": manifest.digest,
        "text digest": manifest.text_digest,
        "parent": manifest.parent or "none",
        "created": manifest.created,
        "folder": loaded.directory,
        "parameters": "{total:,}, of them trained {trained:,}".format(**summary["parameters"]),
        "training classes": summary["training_classes"],
        "picture size": f"short side {config.short_side}, long side at most {config.long_side}",
        "CLIP's scale": f"{config.clip_scale:g}",
        "balance": config.balance.mean,
        **{
            f"  {kind}": f"supervised {part.supervised:g}, mask attention {part.mask_attention:g}, "
            f"frozen {part.frozen:g}"
            for kind, part in weights
        },
        "files": f"{sum(entry.bytes for entry in manifest.files.values()):,} bytes",
        **{f"  {name}": f"{entry.bytes:,} bytes" for name, entry in manifest.files.items()},
        "metrics": "" if loaded.metrics else "none",
        **{f"  {name}": _told(value) for name, value in loaded.metrics.items()},
        "notes": "" if manifest.training else "none",
        **{f"  {name}": value for name, value in manifest.training.items()},
    }
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120  # a file or pipe has no edge; digests stay in one piece
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        table.add_row(key, str(value))
    console.print(table)


def _told(metric: Any) -> str:
    """A metric in a cell: scores of every class would be no table any more."""
    if isinstance(metric, list | dict):
        return f"{len(metric)} entries, which --json prints"
    return f"{metric:.2f}" if isinstance(metric, float) else str(metric)


@contextmanager
def _progress() -> Iterator["Progress"]:
    """A bar on standard error while it is a terminal, nothing otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done)

        yield advance
