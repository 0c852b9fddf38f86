"""Flags that several of the service's commands have."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, seconds
from service.options import METAVARS, OPTIONS, SECTIONS

if TYPE_CHECKING:
    from ebseg_client import ClassSpec

DEFAULT_URL = "http://127.0.0.1:8000"
CLASSES_HELP = (
    'such as "sky, tree, road"; a name with a comma stands in double quotes, and a JSON list is taken as well'
)
FILE_HELP = (
    "file of classes: .json, a list as the service takes it; .csv, names in its one column, or a header row "
    "of name, synonyms (with ; between), trained, color, threshold, ignore; else text, a name a line, # "
    "before comments"
)
KEY_HELP = "API key of the service (default: the variable EBSEG_API_KEY, which other users cannot see)"


def add_setting(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", name: str) -> None:
    """Adds a setting of the service as a flag."""
    metavar = next(shown for end, shown in METAVARS.items() if name.endswith(end))
    parser.add_argument(
        f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar=metavar, help=OPTIONS[name]
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds all settings, in sections."""
    section: argparse.ArgumentParser | argparse._ArgumentGroup = parser
    titles = {first: title for title, first in SECTIONS.items()}
    for name in OPTIONS:
        if name in titles:
            section = parser.add_argument_group(titles[name])
        add_setting(section, name)


def add_config(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds the flag that names a file of settings."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    given = {name: getattr(args, f"setting_{name}", None) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def add_service(parser: argparse.ArgumentParser) -> None:
    """Adds what a command needs to talk to a running service."""
    service = parser.add_argument_group("the service")
    service.add_argument(
        "--url", default=DEFAULT_URL, metavar="URL", help=f"the running service (default: {DEFAULT_URL})"
    )
    service.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    service.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="for all of it, seconds (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def given_classes(args: argparse.Namespace) -> tuple[list[Any], str]:
    """The classes of `--classes` or `--classes-file`, and where they stand, for errors; none of neither.

    Raises:
        UsageError: they cannot be read.
    """
    if args.classes_file is None:
        return class_list(args.classes or []), "--classes"
    from service.schemas.class_files import read_class_file

    return read_class_file(args.classes_file), str(args.classes_file)


def class_list(texts: list[str], flag: str = "--classes") -> list[Any]:
    """Values of a flag that may be repeated: names with commas between, or JSON, see `lists.listed`.

    Raises:
        UsageError: they cannot be read.
    """
    from service.errors import UsageError
    from service.schemas.lists import listed

    try:
        return listed(texts)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def class_specs(entries: "list[Any]", place: str) -> "list[str | ClassSpec]":
    """The same for the client.

    Args:
        entries: names, or objects with a name.
        place: where they stand, for errors.

    Raises:
        UsageError: an entry that is neither.
    """
    from ebseg_client import ClassSpec
    from service.errors import UsageError

    specs: list[str | ClassSpec] = []
    for at, entry in enumerate(entries):
        try:
            specs.append(entry if isinstance(entry, str) else ClassSpec(**entry))
        except TypeError:
            raise UsageError(
                f"{place}: class {at} must be a name, or an object of name, synonyms, trained, color, "
                "threshold and ignore"
            ) from None
    return specs
