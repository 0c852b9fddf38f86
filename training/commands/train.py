"""`ebseg train`: one run, by options, a configuration file, or both."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from model.command import JSON_HELP, above_zero, add_command, add_device
from model.network.json_reading import UNIONS
from training.config import TrainConfig
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.run.folder import Resume

LISTS = ("classes", "confused", "worst", "differs")  # in metrics.json, beside the scores
_SHORT_CHOICES = 80  # characters
RECIPES = Path(__file__).parents[1] / "recipes"
# What a section of the help is about, and the first of its fields in `TrainConfig`'s order.
SECTIONS = {
    "data": "data",
    "the model to start from": "variant",
    "what trains": "train_backbone",
    "steps and learning rate": "steps",
    "images": "crop",
    "loss": "points",
    "how it is computed": "amp",
    "log, saving, evaluation": "log_every",
}
# What texts stand for, in the help.
METAVARS = {
    "data": "DIR",
    "extra_data": "DIR[=WEIGHT]",
    "init": "CHECKPOINT",
    "rates": "PART=FACTOR",
}
EXAMPLES = """
  ebseg train runs/tiny --data data/storybook --variant tiny --steps 4000 --batch 8 --crop 192 \\
      --short-sides 144 192 240 --val-split val
  ebseg train runs/base --data data/coco-stuff --init registry/encoders-base/1 --fresh-decoder --amp float16
  ebseg train runs/base --config base.json --set learning_rate=8e-5
  ebseg train runs/own --config own-data --data data/own --print-config
  ebseg train runs/own --config own-data --data data/own --gpu-memory 16 --dry-run
  torchrun --nproc-per-node 8 -m ebseg train runs/base --data data/coco-stuff --config base.json

A run goes on where it stopped when the same command is given again.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `ebseg train`; its options are the fields of `TrainConfig`."""
    parser = add_command(
        commands, "train", run, "train a model, or go on with a run that was cut off", EXAMPLES
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder; made if it is not there")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"JSON file of fields, or one of {', '.join(presets())}; options go over it",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the run's configuration as JSON, and train nothing"
    )
    parser.add_argument(
        "--gpu-memory",
        type=above_zero,
        metavar="GIB",
        help="memory of each GPU: accumulate and activation_checkpointing are chosen so that the run fits",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the memory and time to expect, and train nothing"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set any field, the value as JSON or plain text; goes over everything else",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on with the run that the folder holds; an error if none is"
    )
    again.add_argument(
        "--fresh", action="store_true", help="remove what an earlier run left in the folder, and start anew"
    )
    add_device(parser)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    titles = {first: title for title, first in SECTIONS.items()}
    kinds = get_type_hints(TrainConfig)
    section = None
    for item in dataclasses.fields(TrainConfig):
        if item.name in titles:
            section = parser.add_argument_group(titles[item.name])
        assert section is not None
        _add_option(section, item, kinds[item.name])


def run(args: argparse.Namespace) -> int:
    """`ebseg train`."""
    config = config_of(args)
    if args.print_config and (args.dry_run or args.gpu_memory):
        raise TrainingError("--print-config computes nothing: leave out --gpu-memory and --dry-run")
    if args.print_config:
        print(json.dumps(config.to_dict(), indent=1))
        return 0
    from training.run.folder import CHECKPOINT, RUN_METRICS, STATE

    goes_on = not args.fresh and (args.folder / STATE).exists()
    if config.init is not None and not goes_on and not Path(config.init).is_dir():
        raise TrainingError(
            f"init: {config.init} is not a folder. `ebseg pull base` makes registry/ebseg-base/1; --init "
            "names any other checkpoint"
        )
    if args.dry_run:
        return _dry_run(config, args)

    if args.resume and not (args.folder / STATE).exists():
        raise TrainingError(f"{args.folder} holds no saved state to go on from; leave --resume out to start")
    from model.allocator import keep_freed_memory
    from training.run.trainer import train

    keep_freed_memory()
    resume: Resume = "never" if args.fresh else "auto"
    folder = train(config, args.folder, resume=resume, device=args.device, gpu_memory=args.gpu_memory)
    from torch import distributed

    if distributed.is_torchelastic_launched() and distributed.get_node_local_rank(0) > 0:
        return 0  # the machine's first process speaks for all
    from training.run.artifacts import step_of_newest

    metrics = json.loads((folder / RUN_METRICS).read_text()) if config.val_split is not None else {}
    scores = {name: value for name, value in metrics.items() if name not in LISTS}
    steps = step_of_newest(folder, config)
    if args.json:
        print(json.dumps({"run": str(folder), "steps": steps, "metrics": scores}))
        return 0
    scored = ", ".join(f"{name} {_score(scores[name])}" for name in scores if name.startswith("miou"))
    print(f"trained {steps} steps in {folder}{': ' if scored else ''}{scored}")
    if steps != config.steps:
        print(f"ended before step {config.steps}: {config.patience} evaluations brought no better one")
    if config.keep_best is not None:
        print(f"the best by {config.keep_best}, of step {scores['step']}, is in {folder / CHECKPOINT}")
    if config.val_split is None:
        print(f"next: ebseg evaluate {folder} {config.data} --save, which ebseg publish asks for")
    else:
        print(f"next: ebseg publish {folder} registry/{config.name}")
    return 0


def _dry_run(config: TrainConfig, args: argparse.Namespace) -> int:
    from training.run.distributed import processes
    from training.run.forecast import planned

    with processes(args.device) as group:
        _, found = planned(config, group, args.gpu_memory)
    print(json.dumps(found.to_json()) if args.json else found.text())
    return 0


def _score(value: float | None) -> str:
    """Percent; a mean over no class, such as that of the new ones where none is new, is none."""
    return "none" if value is None else f"{value:.1f}"


def presets() -> dict[str, Path]:
    """Files of fields that come along, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.json"))}


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The configuration that a command line asks for: the file, then options, then `--set`.

    Raises:
        TrainingError: a field is unknown, missing or wrong.
    """
    values: dict[str, Any] = {}
    if args.config is not None:
        path = presets().get(str(args.config), args.config)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"{args.config} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise TrainingError(f"{args.config} cannot be read as JSON: {error}") from error
        if not isinstance(values, dict):
            raise TrainingError(f"{args.config} must hold one JSON object")
    for item in dataclasses.fields(TrainConfig):
        given = getattr(args, item.name)
        if given is not None:
            values[item.name] = given
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise TrainingError(f"--set needs FIELD=VALUE, got {text!r}")
        values[name] = _parsed(value)
    return TrainConfig.from_dict(values)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _add_option(parser: "argparse._ArgumentGroup", item: "dataclasses.Field[Any]", kind: Any) -> None:
    """One field as an option; left out it is None, so that a configuration file keeps its word."""
    many = get_origin(kind) is tuple
    if get_origin(kind) in UNIONS or many:
        kind = get_args(kind)[0]
    shown = "needed" if item.default is dataclasses.MISSING else f"default: {_shown(item.default)}"
    text = f"{item.metadata['help']} ({shown})"
    flag = "--" + item.name.replace("_", "-")
    choices = get_args(kind) or None
    if choices and len(str(choices)) > _SHORT_CHOICES:  # a line of its own in the help would be too long
        text = f"{text}; one of {', '.join(choices)}"
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    parser.add_argument(
        flag,
        type=str if get_origin(kind) is Literal else kind,
        choices=choices,
        nargs="+" if many else None,
        metavar=METAVARS.get(item.name, _metavar(kind)),
        help=text.replace("%", "%%"),
    )


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is not Literal:
        return {int: "N", float: "X", str: "NAME"}[kind]
    return "NAME" if len(str(get_args(kind))) > _SHORT_CHOICES else None


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
