"""From what a user calls a model to its version folder: the one way for all commands, and for `ebseg.load`.

tiny, ebseg-tiny                   the checkpoint that comes with the package
base, large, ebseg-base, ...       registry/ebseg-base/1, pulled there when it is missing
hf://..., https://...              registry/NAME/1, NAME after the file, pulled there when it is missing
anything else                      a version folder
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from model.errors import CheckpointError, question
from model.fetch.fetching import SourceFile
from model.fetch.pull import REGISTRY, Order, pull
from model.fetch.sources import HubFile, parse_source
from model.fetch.transfer import Notify
from model.released.known import RELEASED, released_model
from model.storage.files import Progress
from model.storage.manifest import MANIFEST
from model.storage.packaged import NAME as PACKAGED
from model.storage.packaged import packaged_checkpoint

_TINY = (PACKAGED, PACKAGED.removeprefix("ebseg-"))
MODEL_HELP = (
    f"{_TINY[1]}, {', '.join(RELEASED)}, hf://OWNER/REPOSITORY/FILE, https://HOST/FILE or a version folder"
)


def order_of(
    text: str,
    *,
    registry: Path = REGISTRY,
    name: str | None = None,
    version: int = 1,
    like: str | None = None,
    sha256: str | None = None,
) -> Order:
    """What pulling a source means.

    Args:
        text: a released name, an address or a file.
        registry, version: where to; REGISTRY/NAME/VERSION.
        name: the model's name there; by default the released one's, or after the file's.
        like: the released model that the file is, where `text` does not name it.
        sha256: digest that the file must have.

    Raises:
        FetchError: an unusable source.
    """
    source = parse_source(text, sha256)
    model = released_model(text) or (None if like is None else released_model(like))
    if name is None:
        name = model.checkpoint if model is not None else _name_after(source.name)
    return Order(
        source=source,
        model=model,
        registry=registry,
        name=name,
        version=version,
        variant=None if model is None else model.name,
        sha256=sha256,
    )


def folder_of(
    text: str,
    *,
    notify: Notify,
    progress: Progress,
    allow: Callable[[Order, SourceFile], bool] = lambda order, found: True,
    registry: Path = REGISTRY,
) -> Path:
    """The version folder of a model, pulled first where it is missing.

    Args:
        text: what the user calls it.
        notify, progress: called with lines, and with bytes while it is pulled.
        allow: asked before anything is fetched.
        registry: where pulled models are.

    Raises:
        FetchError: it is missing and could not be fetched.
        CheckpointError: what is there is none, or damaged.
        OSError: the disk did not take it.
    """
    found = local_folder_of(text, registry=registry)
    if isinstance(found, Path):
        return found
    order = found
    return pull(order, notify=notify, progress=progress, allow=lambda file: allow(order, file)).directory


def local_folder_of(text: str, *, registry: Path = REGISTRY) -> Path | Order:
    """The version folder of a model that is on this machine, unread, or else what would have to be pulled.

    Raises:
        FetchError: an address of no use.
        CheckpointError: neither a name nor a folder.
    """
    if text in _TINY:
        return packaged_checkpoint()
    if released_model(text) is not None or "://" in text:
        order = order_of(text, registry=registry)
        return order.directory if (order.directory / MANIFEST).exists() else order
    if os.sep in text and not Path(text).is_dir():
        raise CheckpointError(f"{text} is not a folder")
    if not Path(text).is_dir():
        meant = question(text, (*_TINY, *RELEASED, *(model.checkpoint for model in RELEASED.values())))
        raise CheckpointError(
            f"there is no folder {text}, and no model of that name: give {MODEL_HELP}{meant}"
        )
    return Path(text)


def other_ways(text: str, like: str | None = None) -> str:
    """What somebody can do whose network does not lead to a source.

    Args:
        text, like: as `order_of` takes them.
    """
    from huggingface_hub import constants

    source = parse_source(text)
    if not isinstance(source, HubFile):
        return "Fetch the file in another way, then: ebseg pull FILE"
    model = released_model(text) or (None if like is None else released_model(like))
    flag = f" --as {model.name}" if model is not None else ""
    site = constants.HUGGINGFACE_CO_URL_HOME.rstrip("/")
    address = f"{site}/{source.repository}/resolve/{source.revision}/{source.path}"
    return (
        f"Other ways: a mirror, HF_ENDPOINT=https://MIRROR ebseg pull ...; or fetch {address} with a "
        f"browser, perhaps elsewhere, then: ebseg pull {source.name}{flag}"
    )


def _name_after(file: str) -> str:
    """EBSeg_base.pth -> ebseg-base."""
    stem = file.rpartition(".")[0] or file
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "pulled"
