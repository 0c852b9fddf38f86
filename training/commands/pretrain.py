"""`ebseg pretrain clip|backbone|ceiling`: the tiny encoders, from nothing, on Storybook."""

import argparse
import json
from pathlib import Path

from model.command import JSON_HELP, add_command, add_device, count, seed
from model.commands.places import VARIANTS
from training.commands.storybook import add_families, book_of

TINY = [variant for variant in VARIANTS if variant.startswith("tiny")]

EXAMPLES = """
  ebseg pretrain clip out/clip.safetensors
  ebseg pretrain backbone out/sam.safetensors --data data/storybook
  ebseg pretrain ceiling registry/encoders-tiny/1
"""
CLIP_EXAMPLES = """
  ebseg pretrain clip out/clip.safetensors
  ebseg pretrain clip out/clip.safetensors --steps 3000 --scenes 60000 --seed 1 --json
"""
BACKBONE_EXAMPLES = """
  ebseg pretrain backbone out/sam.safetensors --data data/storybook
  ebseg pretrain backbone out/swin-t.safetensors --data data/storybook --variant tiny-swin-t --json
"""
CEILING_EXAMPLES = """
  ebseg pretrain ceiling registry/encoders-tiny/1
  ebseg pretrain ceiling registry/ebseg-tiny/1 --scenes 100 --json
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `ebseg pretrain` with its commands."""
    parser = add_command(
        commands,
        "pretrain",
        None,
        "pretrain a tiny CLIP or image backbone on Storybook",
        EXAMPLES,
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    clip = add_command(parts, "clip", run_clip, "train a tiny CLIP on scenes and captions", CLIP_EXAMPLES)
    clip.add_argument("out", type=Path, metavar="FILE", help="safetensors file to write")
    clip.add_argument("--scenes", type=count, default=28_000, metavar="N", help="to draw (default: 28000)")
    clip.add_argument("--steps", type=count, default=18_000, metavar="N", help="to take (default: 18000)")
    clip.add_argument("--seed", type=seed, default=0, help="of scenes and weights (default: 0)")
    add_families(clip)
    add_device(clip)
    clip.add_argument("--json", action="store_true", help=JSON_HELP)

    backbone = add_command(
        parts,
        "backbone",
        run_backbone,
        "train a tiny SAM encoder or Swin on masks without classes",
        BACKBONE_EXAMPLES,
    )
    backbone.add_argument("out", type=Path, metavar="FILE", help="safetensors file to write")
    start = backbone.add_argument_group("what is trained")
    start.add_argument(
        "--variant", choices=TINY, default=TINY[0], help="whose image backbone to train (default: tiny, SAM)"
    )
    data = backbone.add_argument_group("what it is trained on")
    data.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a data set, as `ebseg storybook` makes"
    )
    data.add_argument("--split", default="train", help="split of it (default: train)")
    start.add_argument("--steps", type=count, default=900, metavar="N", help="of 8 images (default: 900)")
    start.add_argument("--seed", type=seed, default=0, help="of weights and order (default: 0)")
    add_device(backbone)
    backbone.add_argument("--json", action="store_true", help=JSON_HELP)

    top = add_command(
        parts,
        "ceiling",
        run_ceiling,
        "name true masks with CLIP alone, by embeddings B and D",
        CEILING_EXAMPLES,
    )
    top.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint folder; its CLIP is asked"
    )
    top.add_argument("--scenes", type=count, default=300, metavar="N", help="to draw (default: 300)")
    top.add_argument("--seed", type=seed, default=1, help="of the scenes (default: 1)")
    add_families(top)
    add_device(top)
    top.add_argument("--json", action="store_true", help=JSON_HELP)


def run_clip(args: argparse.Namespace) -> int:
    """`ebseg pretrain clip`."""
    from dataclasses import replace

    from model.network.config import VARIANTS
    from model.network.device import device_named
    from training.recipes.recipe import recipe_of
    from training.recipes.tiny import CLIP_SHARES, CLIP_SIDE, VARIANT
    from training.storybook.pretrain.clip import pretrain_clip
    from training.storybook.pretrain.pictures import pool

    device = device_named(args.device)
    recipe = recipe_of(args.families)
    folder = args.out.with_suffix(".scenes")
    scenes = pool(
        folder, seed=args.seed, count=args.scenes, side=CLIP_SIDE, shares=CLIP_SHARES, book=recipe.book
    )
    settings = replace(recipe.clip, steps=args.steps, seed=args.seed)
    pretrain_clip(VARIANTS[VARIANT], scenes, settings, args.out, device)
    found = {"out": str(args.out), "steps": args.steps, "scenes": args.scenes}
    if args.json:
        print(json.dumps(found))
    else:
        print(f"made {args.out}\nnext: ebseg pretrain backbone SAM.safetensors --data DATA")
    return 0


def run_backbone(args: argparse.Namespace) -> int:
    """`ebseg pretrain backbone`."""
    from model.network.build import build
    from model.network.config import VARIANTS as CONFIGS
    from model.network.device import device_named
    from model.vocabulary.classes import TrainingClasses
    from training import encoders
    from training.data.layout import SegmentationFolder
    from training.storybook.pretrain.backbone import BackbonePretraining, pretrain_backbone

    device = device_named(args.device)
    data = SegmentationFolder(args.data, args.split)
    classes = TrainingClasses.of([item.name for item in data.classes])
    ebseg = build(CONFIGS[args.variant], classes, seed=args.seed)
    iou = pretrain_backbone(ebseg, data, BackbonePretraining(steps=args.steps, seed=args.seed), device)
    save = encoders.save_swin if ebseg.config.sam is None else encoders.save_sam
    save(ebseg, args.out)
    if args.json:
        print(json.dumps({"out": str(args.out), "steps": args.steps, "mean_iou": float(iou)}))
    else:
        print(f"{args.out}: regions around given points, mean IoU {iou:.3f}")
        kind = "swin" if ebseg.config.sam is None else "sam"
        made = f"--{kind} {args.out} --out registry/NAME/1"
        print(f"next: ebseg encoders --variant {args.variant} --clip CLIP.safetensors {made}")
    return 0


def run_ceiling(args: argparse.Namespace) -> int:
    """`ebseg pretrain ceiling`."""
    import tempfile

    from model.network.device import device_named
    from model.storage.checkpoint import load
    from training.recipes.tiny import ceiling_line, ceiling_scenes
    from training.storybook.pretrain.ceiling import ceiling

    book = book_of(args)
    ebseg = load(args.checkpoint, device=device_named(args.device)).ebseg
    with tempfile.TemporaryDirectory() as folder:
        scenes = ceiling_scenes(Path(folder), args.seed, args.scenes, book)
        found = ceiling(ebseg, scenes, args.scenes)
    rows = zip(book.classes, *found.by_class.tolist(), strict=True)
    if args.json:
        by_class = {name: {"frozen": d, "mask_attention": b} for name, d, b in rows if d == d}
        keys = ("frozen_trained", "frozen_new", "mask_attention_trained", "mask_attention_new")
        print(json.dumps({key: getattr(found, key) for key in keys} | {"classes": by_class}))
        return 0
    for name, d, b in rows:
        kind = "new" if name in book.new else "training"
        print(f"{name:16} {kind:8}  D {d:6.1%}  B {b:6.1%}")
    print(ceiling_line(found))
    print(f"next: ebseg train runs/NAME --data DATA --init {args.checkpoint} --fresh-decoder")
    return 0
