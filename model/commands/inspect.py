"""`ebseg inspect`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command
from model.commands.output import progress_bars
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.confidence.card import Card
    from model.storage.checkpoint import LoadedCheckpoint


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "inspect",
        run,
        "verify a checkpoint folder and print what is inside",
        """
  ebseg inspect registry/ebseg-base/1
  ebseg inspect base --json
  ebseg inspect
""",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="tiny",
        metavar="MODEL",
        help="checkpoint folder, or the name of a model that is here: tiny, base, large (default: tiny)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg inspect`."""
    from model.fetch.resolve import local_folder_of
    from model.storage.verify import verify

    directory = local_folder_of(args.model)
    if not isinstance(directory, Path):
        raise CheckpointError(f"{directory.directory} is not there: `ebseg pull {args.model}` makes it")
    verify(directory, digests=False)  # before torch is imported, which takes seconds

    from model.storage.checkpoint import load

    with progress_bars() as progress:
        loaded = load(directory, progress=progress)
    if args.json:
        print(json.dumps(_summary(loaded)))
    else:
        _print_table(loaded)
    return 0


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
        "licence": manifest.license or "not said",
        **_card_rows(manifest.card),
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
        **{f"  {name}": _shown(value) for name, value in loaded.metrics.items()},
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


def _card_rows(card: "Card | None") -> dict[str, object]:
    if card is None:
        return {"card": "none"}
    words = card.words if isinstance(card.words, str) else ", ".join(card.words)
    threshold = "none" if card.threshold is None else f"{card.threshold:.3f}"
    return {
        "card": "",
        "  domain": card.domain,
        "  words": words,
        **{f"  trained on {source.name}": source.terms for source in card.training_data},
        **{f"  licence of {part.name}": part.license for part in card.parts},
        **{f"  score {name}": _shown(value) for name, value in card.scores.items()},
        "  threshold": f"{threshold}, {card.threshold_note}",
        **{f"  calibration {name}": _shown(value) for name, value in card.calibration.items()},
        **(
            {}
            if card.confidence is None
            else {"  confidence": ", ".join(f"{value:.3f} at {share:g}" for share, value in card.confidence)}
        ),
        **({"  notes": card.notes} if card.notes else {}),
    }


def _shown(metric: Any) -> str:
    """A metric in a cell: scores of every class would be no table any more."""
    if isinstance(metric, list | dict):
        return f"{len(metric)} entries, which --json prints"
    return f"{metric:.2f}" if isinstance(metric, float) else str(metric)
