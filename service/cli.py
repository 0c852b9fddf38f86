"""The service's own commands: `ebseg serve` and `ebseg segment`.

Only light modules are imported here; the commands import the rest, so that `ebseg --help` is quick.
Errors of the model package go on to `ebseg.main`; the service's own are told here.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from model.command import add_command
from service.options import OPTIONS

UNUSABLE = 2  # exit code of wrong usage and unusable input

SERVE_EXAMPLES = """
  ebseg serve
  ebseg serve --checkpoint registry/ebseg-base/1
  ebseg serve --registry s3://bucket/registry --model ebseg-base,ebseg-tiny@3 --redis-url redis://cache:6379/0
  ebseg serve --checkpoint registry/ebseg-base/1 --host 0.0.0.0 --port 9000 --max-pending 16
  EBSEG_CHECKPOINT=registry/ebseg-base/1 ebseg serve --config ebseg.toml
  ebseg serve --print-config > ebseg.toml

Then:
  curl -F image=@samples/village.jpg -F classes=house,umbrella,clouds http://127.0.0.1:8000/v1/segment
"""
SEGMENT_EXAMPLES = """
  ebseg segment samples/village.jpg --classes "house, umbrella, clouds" --overlay overlay.png
  ebseg segment photo.jpg --classes "sky, tree, road" --checkpoint registry/ebseg-base/1
  ebseg segment photo.jpg --vocabulary ade20k-150 --checkpoint registry/ebseg-base/1 --out mask.png
  ebseg segment samples/room.jpg --classes "clock, lamp" --threshold 0.3 --json
"""


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands; each parsed namespace carries its function as `run`."""
    parser = add_command(subparsers, "serve", serve, "serve a checkpoint over HTTP", SERVE_EXAMPLES)
    parser.description = (
        "Serve a checkpoint over HTTP. Each setting is a flag (--max-bytes), a variable of the environment\n"
        "(EBSEG_MAX_BYTES) and a key of the TOML file (max_bytes); the first of these that is given counts."
    )
    for name in OPTIONS:
        _add_setting(parser, name)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings as a TOML file, and stop"
    )

    parser = add_command(
        subparsers, "segment", segment, "segment a picture without a server", SEGMENT_EXAMPLES
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="JPEG, PNG, WebP, TIFF, BMP or GIF")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--classes", action="append", metavar="NAMES", help='such as "sky, tree, road"')
    what.add_argument("--vocabulary", metavar="NAME", help="a built-in class list, such as ade20k-150")
    for name in ("checkpoint", "device", "dtype", "max_pixels"):
        _add_setting(parser, name)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    parser.add_argument(
        "--threshold", metavar="T", help='pixels of a lower confidence become "other", 0 to 1'
    )
    parser.add_argument(
        "--templates",
        action="append",
        metavar="TEXT",
        help='vild (default), imagenet, plain, or a sentence with "{}"; sentences may be repeated',
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the indexed label map as PNG")
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="write the picture under its mask: .png, .jpg or .webp"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def serve(args: argparse.Namespace) -> int:
    """`ebseg serve`."""
    from service.settings import SettingsError, load_settings, to_toml

    try:
        settings = load_settings(_flags(args), args.config)
        if args.print_config:
            print(to_toml(settings), end="")
            return 0
        directory = settings.checkpoint_folder() if settings.registry is None else None
    except SettingsError as error:
        return _complain(error)

    from model.checkpoint import verify
    from service.app import create_app
    from service.logging import configure
    from service.server import run_server

    configure(settings.log_level, settings.log_format)
    try:
        if directory is not None:
            verify(directory)  # before anything listens: a broken checkpoint should fail at once
        run_server(create_app(settings), settings)
    except SettingsError as error:
        return _complain(error)
    return 0


def segment(args: argparse.Namespace) -> int:
    """`ebseg segment`."""
    from service.errors import InvalidRequestError, ServiceError
    from service.local import UsageError, segment_file
    from service.settings import SettingsError, load_settings

    try:
        segment_file(
            load_settings(_flags(args), args.config),
            picture_file=args.picture,
            request=_request(args),
            out=args.out,
            overlay=args.overlay,
            as_json=args.json,
        )
    except InvalidRequestError as error:
        problems = "; ".join(f"{problem.field}: {problem.message}" for problem in error.fields)
        return _complain(problems)
    except (UsageError, SettingsError, ServiceError) as error:
        return _complain(error)
    return 0


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """The request document that the flags of `ebseg segment` stand for."""
    request: dict[str, Any] = {"vocabulary": args.vocabulary}
    if args.classes is not None:
        request["classes"] = [name.strip() for text in args.classes for name in text.split(",")]
    if args.templates is not None:
        request["templates"] = args.templates[0] if len(args.templates) == 1 else args.templates
    if args.threshold is not None:
        request["background"] = {"threshold": args.threshold}
    return request


def _complain(error: object) -> int:
    """Prints an error as one line on standard error; returns the exit code."""
    print(f"ebseg: error: {' '.join(str(error).split())}", file=sys.stderr)
    return UNUSABLE


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=OPTIONS[name]
    )


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    given = {name: getattr(args, f"setting_{name}", None) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}
