"""`ebseg vocabularies`: class lists that a running service keeps for its requests."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import add_command
from service.commands.complaint import UNUSABLE, complain
from service.commands.flags import CLASSES_HELP, FILE_HELP, add_service, class_specs, given_classes
from service.commands.remote import values, with_client

if TYPE_CHECKING:
    from ebseg_client import EBSegClient


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its own commands."""
    parser = add_command(
        commands,
        "vocabularies",
        None,
        "look at the class lists of a running service, and store lists of your own",
        """
  ebseg vocabularies list
  ebseg vocabularies show ade20k-150 --json
  ebseg vocabularies put harbour --classes "boat, water, quay"
""",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    one = add_command(
        actions,
        "list",
        list_vocabularies,
        "list the class lists, built-in ones and stored ones",
        "\n  ebseg vocabularies list\n  ebseg vocabularies list --url https://masks.example --json\n",
    )
    add_service(one)
    one = add_command(
        actions,
        "show",
        show,
        "show the classes of a list, in order, with synonyms",
        "\n  ebseg vocabularies show ade20k-150\n",
    )
    one.add_argument("name", metavar="NAME", help="of the list")
    add_service(one)
    one = add_command(
        actions,
        "put",
        put,
        "store a class list, in place of one of the same name",
        """
  ebseg vocabularies put harbour --classes "boat, water, quay"
  ebseg vocabularies put harbour --classes-file harbour.json
  ebseg segment photo.jpg --vocabulary harbour --url http://127.0.0.1:8000
""",
    )
    one.add_argument("name", metavar="NAME", help="lower case letters, digits, dots, dashes, underscores")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--classes", action="append", metavar="NAMES", help=CLASSES_HELP)
    what.add_argument("--classes-file", "--file", type=Path, metavar="FILE", help=FILE_HELP)
    one.add_argument("--shared", action="store_true", help="other API keys may use it")
    add_service(one)
    one = add_command(
        actions, "delete", delete, "remove a stored class list", "\n  ebseg vocabularies delete harbour\n"
    )
    one.add_argument("name", metavar="NAME", help="of the list")
    add_service(one)


def list_vocabularies(args: argparse.Namespace) -> int:
    """`ebseg vocabularies list`."""

    def use(client: "EBSegClient") -> None:
        found = client.vocabularies()
        if args.json:
            print(json.dumps({"vocabularies": [values(entry) for entry in found]}))
            return
        from service.commands.tables import print_table

        rows = (
            (
                entry.name,
                entry.size,
                "built in" if entry.builtin else "stored, shared" if entry.shared else "stored",
                entry.owner or "",
            )
            for entry in found
        )
        print_table(("name", "classes", "kind", "owner"), rows)

    return with_client(args, use)


def show(args: argparse.Namespace) -> int:
    """`ebseg vocabularies show`."""

    def use(client: "EBSegClient") -> None:
        found = client.vocabulary(args.name)
        if args.json:
            print(json.dumps(values(found)))
            return
        from service.commands.tables import print_table

        known = {True: "trained", False: "new", None: "by its words"}
        rows = (
            (label, one.name, ", ".join(one.synonyms), known[one.trained], one.color or "")
            for label, one in enumerate(found.classes, 1)
        )
        print_table(("label", "class", "synonyms", "known as", "colour"), rows, title=found.name)

    return with_client(args, use)


def put(args: argparse.Namespace) -> int:
    """`ebseg vocabularies put`."""
    from service.errors import UsageError

    try:
        classes = class_specs(*given_classes(args))
    except UsageError as error:
        return complain(error, UNUSABLE)

    def use(client: "EBSegClient") -> None:
        stored = client.put_vocabulary(args.name, classes, shared=args.shared)
        print(json.dumps(values(stored)) if args.json else f"stored {stored.name}, {stored.size} classes")

    return with_client(args, use)


def delete(args: argparse.Namespace) -> int:
    """`ebseg vocabularies delete`."""

    def use(client: "EBSegClient") -> None:
        client.delete_vocabulary(args.name)
        print(json.dumps({"deleted": args.name}) if args.json else f"removed {args.name}")

    return with_client(args, use)
