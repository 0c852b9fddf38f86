"""Flags that several of the service's commands have."""

import argparse
from pathlib import Path
from typing import Any

from model.command import JSON_HELP, above_zero
from service.options import OPTIONS

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_HELP = "API key of the service (default: the variable EBSEG_API_KEY, which other users cannot see)"


def add_setting(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", name: str) -> None:
    """Adds a setting of the service as a flag."""
    parser.add_argument(
        f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=OPTIONS[name]
    )


def add_config(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds the flag that names a file of settings."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    given = {name: getattr(args, f"setting_{name}", None) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def add_service(parser: argparse.ArgumentParser) -> None:
    """Adds what a command needs to talk to a running service."""
    parser.add_argument(
        "--url", default=DEFAULT_URL, metavar="URL", help=f"the running service (default: {DEFAULT_URL})"
    )
    parser.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    parser.add_argument(
        "--timeout", type=above_zero, default=60.0, metavar="S", help="for all of it, seconds (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def class_names(texts: list[str]) -> list[str]:
    """Class names of flags that may be repeated and hold several with commas between."""
    return [name.strip() for text in texts for name in text.split(",")]
