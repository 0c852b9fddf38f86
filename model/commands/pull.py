"""`ebseg pull`."""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count
from model.commands.choosing import announcement
from model.commands.output import notify, progress_bars
from model.errors import FetchError, UnreachableError

if TYPE_CHECKING:
    from model.fetch.fetching import SourceFile
    from model.fetch.pull import Order, Pulled

LIKE = ("base", "large")  # the keys of model.released.known.RELEASED
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "pull",
        run,
        "fetch released weights by name or address, and make a checkpoint folder of them",
        """
  ebseg pull base
  ebseg pull large --registry /srv/registry
  ebseg pull base --dry-run
  ebseg pull hf://slonetime/EBSeg@main/EBSeg_base.pth --name my-base
  ebseg pull https://example.com/weights/EBSeg_base.pth --as base --sha256 HEX
  ebseg pull Downloads/EBSeg_base.pth --as base
  HF_ENDPOINT=https://hf-mirror.com ebseg pull base

An interrupted pull goes on where it was, by the same command. Files are fetched into huggingface_hub's cache
(HF_HOME; default: ~/.cache/huggingface) and stay there. Also read by huggingface_hub: HF_ENDPOINT (a mirror),
HF_TOKEN, HF_HUB_OFFLINE; and by the network code HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE.

Exit code: 0, also if it was there already; 1 if it could not be fetched; 2 if the place is taken or the file
holds no weights of EBSeg.
""",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=f"{', '.join(LIKE)}, hf://OWNER/REPOSITORY[@REVISION]/FILE, https://HOST/FILE or a file",
    )
    where = parser.add_argument_group("where it goes")
    where.add_argument(
        "--registry",
        type=_folder,
        default=Path("registry"),
        metavar="DIR",
        help="where the folder NAME/VERSION goes (default: registry)",
    )
    where.add_argument(
        "--name", metavar="NAME", help="the model's name there (default: ebseg-base, ..., or after the file)"
    )
    where.add_argument(
        "--version", type=count, default=1, metavar="N", help="the version's number (default: 1)"
    )
    file = parser.add_argument_group("what the file is")
    file.add_argument(
        "--as",
        dest="like",
        choices=LIKE,
        help="the released model that an address or a file holds; its name and card (default: other weights)",
    )
    file.add_argument(
        "--sha256", metavar="HEX", help="digest that the file must have, or it is not taken (default: any)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tell size, source and destination, and fetch nothing"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg pull`."""
    from model.fetch.pull import pull
    from model.fetch.resolve import order_of, other_ways
    from model.storage.manifest import check_name

    order = order_of(
        args.source,
        registry=args.registry,
        name=args.name,
        version=args.version,
        like=args.like,
        sha256=_digest(args.sha256),
    )
    check_name(order.name, order.version)

    def announced(found: "SourceFile") -> bool:
        notify(announcement(order, found))
        return True  # nobody is asked: that is what the command is for

    try:
        if args.dry_run:
            return _dry_run(args, order)
        with progress_bars(lines=True) as progress:
            pulled = pull(order, notify=notify, progress=progress, allow=announced)
    except UnreachableError as error:
        raise UnreachableError(f"{error}. {other_ways(args.source, args.like)}") from None
    except KeyboardInterrupt:
        notify("what was fetched is kept: the same command goes on there")
        raise
    _report(args, order, pulled)
    return 0


def _folder(text: str) -> Path:
    if "://" in text:  # a path would lose a slash, and become a folder of that name
        raise argparse.ArgumentTypeError(
            f"a folder, not {text}: pull into a folder, then ebseg publish FOLDER/NAME/1 {text}/NAME --force"
        )
    return Path(text)


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    if _SHA256.fullmatch(text) is None:
        raise FetchError(f"--sha256 takes 64 hexadecimal digits, as sha256sum prints them; got {text!r}")
    return text.lower()


def _dry_run(args: argparse.Namespace, order: "Order") -> int:
    from model.fetch.pull import fetcher_of, present, size_text

    with progress_bars() as progress:
        there = present(order, progress)
        found = None if there else fetcher_of(order, notify=notify, progress=progress).find()
    document = {
        "source": str(order.source),
        "directory": str(order.directory),
        "there": there is not None,
        "size": None if found is None else found.size,
        "fetched": None if found is None else found.here,
        "sha256": None if found is None else found.sha256,
    }
    if args.json:
        print(json.dumps(document))
    elif found is None:
        print(f"{order.directory} is there already and whole: nothing would be fetched")
    else:
        size = "of unknown size" if found.size is None else size_text(found.size)
        print(f"source       {found.where}\nsize         {size}, of which {size_text(found.here)} are here")
        print(f"sha256       {found.sha256 or 'not told by the server'}\ndestination  {order.directory}")
    return 0


def _report(args: argparse.Namespace, order: "Order", pulled: "Pulled") -> None:
    manifest = pulled.manifest
    if args.json:
        document = {
            "directory": str(pulled.directory),
            "there": pulled.received is None,
            "received": pulled.received or 0,
            "manifest": manifest.to_dict(),
        }
        print(json.dumps(document))
        return
    if pulled.received is None:
        source = manifest.training.get("source", "other weights")
        print(f"{pulled.directory} is there already and whole, made of {source}")
    else:
        print(f"pulled {order.source} as {pulled.directory}")
    print(f"digest {manifest.digest}\nnext: ebseg serve --checkpoint {pulled.directory}")
