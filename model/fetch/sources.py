"""What `ebseg pull` takes: a released name, a file on the Hugging Face hub, a web address, a local file."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from model.errors import FetchError, question
from model.released.known import RELEASED, released_model
from model.urls import QUOTED, shown

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EXAMPLE = "hf://slonetime/EBSeg/EBSeg_base.pth"
_FORMS = "a name ({}), hf://OWNER/REPOSITORY[@REVISION]/FILE, https://HOST/FILE or a file"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a model repository of the Hugging Face hub, or of a mirror of it."""

    repository: str
    revision: str
    path: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{self.repository}{revision}/{self.path}"


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file at a web address, which may hold secrets: text shows neither user, password nor query."""

    url: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return urlsplit(self.url).path.rpartition("/")[2] or "weights"

    def __str__(self) -> str:
        return shown(self.url)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine."""

    path: Path

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)


Source = HubFile | WebFile | LocalFile


def parse_source(text: str, sha256: str | None = None) -> Source:
    """What a user's text stands for.

    Args:
        text: as typed.
        sha256: the digest that the file must have, which lets an unprotected address pass.

    Raises:
        FetchError: it is none of the forms, or a file that is not there.
    """
    model = released_model(text)
    if model is not None:
        return HubFile(model.repository, model.revision, model.file)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not Path(text).is_file():
            forms = _FORMS.format(" or ".join(RELEASED))
            raise FetchError(f"there is no file {text}; give {forms}{question(text, RELEASED)}")
        return LocalFile(Path(text))
    kind = scheme[1].lower()
    if kind == "hf":
        return _hub_file(text)
    if kind not in ("https", "http"):
        raise FetchError(f"{kind}:// cannot be fetched from; give {_FORMS.format(' or '.join(RELEASED))}")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text may hold a part of a password
        raise FetchError(f"{kind}:// address that cannot be read: {QUOTED}") from None
    if not host:
        raise FetchError(f"{shown(text)} names no host")
    from huggingface_hub import constants

    if host in constants.HF_URL_HOSTS:
        with suppress(FetchError):  # a link copied from the hub's site: its pages are not the files
            return _hub_file(text)
    if kind == "http" and host not in _LOOPBACK and sha256 is None:
        raise FetchError(
            f"{shown(text)} is not protected on its way: use https://, or give its digest with --sha256"
        )
    return WebFile(text)


def _hub_file(text: str) -> HubFile:
    from huggingface_hub import constants, parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        uri = parse_hf_uri(text, endpoint=constants.ENDPOINT)
    except HfUriError as error:
        raise FetchError(f"{shown(text)}: {' '.join(str(error).split())} An example: {_EXAMPLE}") from None
    if uri.type != "model":
        raise FetchError(f"{shown(text)} is a {uri.type}'s; weights are fetched from model repositories")
    if not uri.path_in_repo or ".." in uri.path_in_repo.split("/"):
        raise FetchError(f"{shown(text)} names no file, as {_EXAMPLE} does")
    revision = uri.revision or "main"
    if ".." in revision.split("/"):
        raise FetchError(f"{shown(text)} names no revision that could be")
    return HubFile(uri.id, revision, uri.path_in_repo)
