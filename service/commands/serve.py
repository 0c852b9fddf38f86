"""`ebseg serve`."""

import argparse
import time
from typing import Any

from model.command import add_command
from model.commands.choosing import MODEL_HELP, add_yes, expected_folder, pulled_folder
from service.commands.complaint import UNUSABLE, complain
from service.commands.flags import add_config, add_settings, given_settings

EXAMPLES = """
  ebseg serve
  ebseg serve base
  ebseg serve --checkpoint registry/ebseg-base/1
  ebseg serve --registry s3://bucket/registry --model ebseg-base,ebseg-tiny@3 --redis-url redis://cache:6379/0
  ebseg serve --registry hf://OWNER/REPOSITORY --model ebseg-base
  ebseg serve --checkpoint registry/ebseg-base/1 --host 0.0.0.0 --port 9000 --max-pending 16
  EBSEG_CHECKPOINT=registry/ebseg-base/1 ebseg serve --config ebseg.toml
  ebseg serve --print-config > ebseg.toml

Then:
  curl -F image=@samples/village.jpg -F classes=house,umbrella,clouds http://127.0.0.1:8000/v1/segment
  ebseg segment samples/village.jpg --classes "house, umbrella, clouds" --url http://127.0.0.1:8000
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "serve", run, "serve a checkpoint over HTTP", EXAMPLES)
    parser.description = (
        "Serve a checkpoint over HTTP. Each setting is a flag (--max-bytes), a variable of the environment\n"
        "(EBSEG_MAX_BYTES) and a key of the TOML file (max_bytes); the first of these that is given counts."
    )
    parser.usage = "ebseg serve [-h] [--yes] [--config FILE] [--print-config] [--SETTING VALUE ...] [MODEL]"
    parser.add_argument(
        "named",
        nargs="?",
        metavar="MODEL",
        help=f"{MODEL_HELP}; what is missing is pulled into registry (default: tiny, or what settings say)",
    )
    add_yes(parser)
    add_config(parser)
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings as a TOML file, and stop"
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """`ebseg serve`."""
    from service.settings import SettingsError, load_settings, refuse_open_by_mistake, to_toml

    began = time.monotonic()
    try:
        settings = load_settings(_given(args), args.config)
        if args.print_config:
            print(to_toml(settings), end="")
            return 0
        refuse_open_by_mistake(settings)
        directory = settings.checkpoint_folder() if settings.registry is None else None
    except SettingsError as error:
        return complain(error, UNUSABLE)

    if args.named is not None:
        directory = pulled_folder(args.named, yes=args.yes)

    from model.storage.verify import verify

    if directory is not None:
        verify(directory)  # before anything is imported and listens: a broken checkpoint should fail at once

    from service.workers.serve import serve

    try:
        return serve(settings, began=began)
    except SettingsError as error:
        return complain(error, UNUSABLE)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags, MODEL among them as the checkpoint's folder."""
    from service.settings import SettingsError

    given = given_settings(args)
    if args.named is None:
        if args.yes:
            raise SettingsError("--yes needs a MODEL that may be missing, as in `ebseg serve base --yes`")
        return given
    for name in ("checkpoint", "registry", "model"):
        if name in given:
            raise SettingsError(f"MODEL ({args.named}) does not go with --{name}: give one of them")
    return given | {"checkpoint": expected_folder(args.named)}
