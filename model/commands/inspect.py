"""`ebseg inspect`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command
from model.commands.output import mebibytes, progress_bars
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.confidence.card import Card
    from model.storage.checkpoint import LoadedCheckpoint

MOST_WORDS = 12  # of a card, in a table


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
        "image size": f"short side {config.short_side}, long side at most {config.long_side}",
        "CLIP's scale": f"{config.clip_scale:g}",
        "balance": config.balance.mean,
        **{
            f"  {kind}": f"supervised {part.supervised:g}, mask attention {part.mask_attention:g}, "
            f"frozen {part.frozen:g}"
            for kind, part in weights
        },
        "files": mebibytes(sum(entry.bytes for entry in manifest.files.values())),
        **{f"  {name}": mebibytes(entry.bytes) for name, entry in manifest.files.items()},
        "metrics": _listed(loaded.metrics),
        "training": f"{len(manifest.training)} settings, which --json prints"
        if manifest.training
        else "none",
        "next": f"ebseg serve --checkpoint {loaded.directory}",
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
    words = card.words if isinstance(card.words, str) else _some(card.words)
    threshold = "none" if card.threshold is None else f"{card.threshold:.3f}"
    return {
        "card": "",
        "  domain": card.domain,
        "  words": words,
        **{f"  trained on {source.name}": source.terms for source in card.training_data},
        **{f"  licence of {part.name}": part.license for part in card.parts},
        "  scores": _listed(card.scores),
        "  threshold": f"{threshold}, {card.threshold_note}",
        **({"  notes": card.notes} if card.notes else {}),
    }


def _some(words: Sequence[str]) -> str:
    """The first words of a card, and how many more there are."""
    more = len(words) - MOST_WORDS
    return ", ".join(words[:MOST_WORDS]) + (f" and {more} more, which --json prints" if more > 0 else "")


def _listed(figures: Mapping[str, Any]) -> str:
    """Figures in a row; those of every class would be no table any more."""
    short = {name: value for name, value in figures.items() if not isinstance(value, list | dict)}
    return ", ".join(f"{name} {_shown(value)}" for name, value in short.items()) or "none"


def _shown(figure: Any) -> str:
    return f"{figure:.2f}" if isinstance(figure, float) else str(figure)
