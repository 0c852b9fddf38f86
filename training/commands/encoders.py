"""`ebseg encoders`: pretrained encoders become a checkpoint folder to train from."""

import argparse
import dataclasses
import json
from pathlib import Path

from model.command import JSON_HELP, add_command, seed
from model.commands.places import OUT_HELP, SWIN_VARIANTS, VARIANTS, name_and_version
from model.errors import CheckpointError

EXAMPLES = """
  ebseg encoders --variant base --clip ViT-B-16.pt --sam sam_vit_b_01ec64.pth --out registry/encoders-base/1
  ebseg encoders --variant large --clip ViT-L-14-336px.pt --sam sam_vit_b_01ec64.pth \\
      --out registry/encoders-large/1
  ebseg encoders --variant base-swin-t --clip ViT-B-16.pt --swin swin_tiny_patch4_window7_224.pth \\
      --out registry/encoders-swin-t/1
  ebseg train runs/base --init registry/encoders-base/1 --data data/coco-stuff
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands, "encoders", run, "put pretrained CLIP and SAM or Swin weights into a new model", EXAMPLES
    )
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="configuration to build")
    parts = parser.add_argument_group("the encoders")
    parts.add_argument(
        "--clip",
        type=Path,
        required=True,
        metavar="FILE",
        help="OpenAI's .pt, its state dict, open_clip's .safetensors, or what `ebseg pretrain clip` wrote",
    )
    parts.add_argument(
        "--sam",
        type=Path,
        metavar="FILE",
        help="segment_anything's .pth, or of `ebseg pretrain backbone`; needed where the variant has SAM",
    )
    parts.add_argument(
        "--swin",
        type=Path,
        metavar="FILE",
        help="timm's .safetensors, Microsoft's .pth, or of `ebseg pretrain backbone`; needed with a Swin",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of all other weights (default: 0)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=OUT_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg encoders`."""
    name, version = name_and_version(args.out)
    from model.storage.files import refuse_taken, refuse_unreadable, sha256

    # before torch is imported, which takes seconds
    _check_backbone(args)
    refuse_taken(args.out)
    for path in (args.clip, args.sam, args.swin):
        if path is not None:
            refuse_unreadable(path)

    from model.network import config
    from model.network.build import build
    from model.storage.checkpoint import Provenance, save
    from model.vocabulary.classes import TrainingClasses
    from training.encoders import load_clip, load_sam, load_swin

    ebseg = build(config.VARIANTS[args.variant], TrainingClasses.coco_stuff(), seed=args.seed)
    notes: dict[str, object] = {"initialised_with_seed": args.seed}
    loaded = {}
    for encoder, load in (("clip", load_clip), ("sam", load_sam), ("swin", load_swin)):
        path = getattr(args, encoder)
        if path is not None:
            loaded[encoder] = load(ebseg, path)
            notes[encoder] = {"file": path.name, "sha256": sha256(path)}
    manifest = save(ebseg, args.out, Provenance(name=name, version=version, untrained=True, notes=notes))
    if args.json:
        results = {encoder: dataclasses.asdict(result) for encoder, result in loaded.items()}
        print(json.dumps({"out": str(args.out), "digest": manifest.digest, "encoders": results}))
        return 0
    for encoder, result in loaded.items():
        parts = ", ".join(f"{part} ({count})" for part, count in result.left_out.items())
        print(f"{encoder}: {result.tensors} tensors" + (f"; left out: {parts}" if parts else ""))
    print(f"made {args.out}, all but its encoders untrained\ndigest {manifest.digest}")
    print(f"next: ebseg train runs/NAME --data DATA --init {args.out} --fresh-decoder")
    return 0


def _check_backbone(args: argparse.Namespace) -> None:
    wanted, other = ("swin", "sam") if args.variant in SWIN_VARIANTS else ("sam", "swin")
    if getattr(args, wanted) is None or getattr(args, other) is not None:
        raise CheckpointError(f"the variant {args.variant} needs --{wanted} FILE, and takes no --{other}")
