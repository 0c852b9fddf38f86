"""`ebseg train-tiny`: the whole way to EBSeg-tiny, from nothing."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from model.command import JSON_HELP, add_command, count, seed
from training.commands.storybook import add_families
from training.config import Score

if TYPE_CHECKING:
    from training.recipes.recipe import Recipe

EXAMPLES = """
  ebseg train-tiny out/tiny
  ebseg train-tiny out/quick --share 0.01
  ebseg train-tiny out/families --families --clip-steps 6000 --encoders-only
"""
# Of the recipe, instead of its own.
COUNTS = {
    "clip-scenes": "scenes with captions",
    "clip-steps": "steps of CLIP's pretraining",
    "sam-steps": "steps of SAM's pretraining",
    "scenes": "scenes with masks to train on",
    "val": "held-out scenes",
    "steps": "steps of the segmenter's training",
}


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
        "--share", type=float, default=1.0, metavar="X", help="of the steps and images, 0..1 (default: 1)"
    )
    add_families(parser)
    much = parser.add_argument_group("how much of each part")
    for option, what in COUNTS.items():
        much.add_argument(f"--{option}", type=count, metavar="N", help=f"{what} (default: the recipe's)")
    much.add_argument(
        "--encoders-only",
        action="store_true",
        help="end before the segmenter is trained; OUT/run.json has its settings, for ebseg ablate",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg train-tiny`."""
    import sys

    from training.recipes.tiny import make_encoders, train_tiny
    from training.run.folder import RUN_METRICS

    def notify(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    recipe = _recipe(args)
    if args.encoders_only:
        make_encoders(args.out, recipe, notify)
        settings = args.out / "run.json"
        if args.json:
            print(json.dumps({"settings": str(settings)}))
        else:
            print(f"{settings}\nnext: ebseg ablate ssc {settings} --out {args.out / 'ssc'}")
        return 0
    folder = train_tiny(args.out, recipe, notify)
    metrics = json.loads((folder / RUN_METRICS).read_text(encoding="utf-8"))
    scores = {name: metrics[name] for name in get_args(Score)}
    if args.json:
        print(json.dumps({"run": str(folder)} | scores))
    else:
        print(
            f"{folder}: "
            + ", ".join(f"{name} {value:.1f}" for name, value in scores.items() if value is not None)
        )
        print(f"next: ebseg publish {folder} registry/{recipe.name}")
    return 0


def _recipe(args: argparse.Namespace) -> "Recipe":
    """The recipe that the options choose."""
    from dataclasses import replace

    from training.recipes.recipe import recipe_of

    recipe = replace(recipe_of(args.families), seed=args.seed).shrunk(args.share)

    def chosen(given: int | None, own: int) -> int:
        return own if given is None else given

    scenes = chosen(args.clip_scenes, recipe.clip_scenes)
    clip_steps = chosen(args.clip_steps, recipe.clip.steps)
    less = scenes < recipe.clip_scenes or clip_steps < recipe.clip.steps
    return replace(
        recipe,
        clip_scenes=scenes,
        clip=replace(recipe.clip, steps=clip_steps),
        least_ceiling=0.0 if less else recipe.least_ceiling,  # as with a share: it was asked for less
        sam=replace(recipe.sam, steps=chosen(args.sam_steps, recipe.sam.steps)),
        train_scenes=chosen(args.scenes, recipe.train_scenes),
        held_out_scenes=chosen(args.val, recipe.held_out_scenes),
        steps=chosen(args.steps, recipe.steps),
    )
