"""Files of model repositories on the Hugging Face hub, as a file system that keeps nothing in mind.

`huggingface_hub.HfFileSystem` remembers listings and which repositories exist. A registry is written by
others at the same time, so that listings are always asked for here, by one request each; it fetches files.
"""

from typing import Any
from urllib.parse import quote

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback, TqdmCallback
from huggingface_hub import HfApi, HfFileSystem, constants, hf_hub_url, parse_hf_uri
from huggingface_hub.errors import EntryNotFoundError, HfUriError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HfUri, build_hf_headers, hf_raise_for_status, http_backoff

from model.errors import CheckpointError
from model.storage.hub import HUB
from model.storage.hub.session import prepare

FORM = "hf://OWNER/REPOSITORY[@REVISION][/FOLDER]"


def place_of(location: str) -> HfUri:
    """A hub location in its parts.

    Raises:
        CheckpointError: it is not of the form, or not in a model repository.
    """
    try:
        uri = parse_hf_uri(location.rstrip("/"))
    except HfUriError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{location}: a place on the hub is {FORM} ({reason})") from None
    if uri.type != "model":
        raise CheckpointError(f"{location}: models lie in model repositories, {FORM}, not in a {uri.type}")
    if any(part in (".", "..") for part in uri.path_in_repo.split("/")):
        raise CheckpointError(f"{location}: a folder on the hub has no . or .. in it")
    return uri


class HubFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Model repositories, for reading; paths are locations without hf://.

    Args:
        token: instead of the one that `hf auth login` keeps or HF_TOKEN gives; False sends none.
        endpoint: instead of HF_ENDPOINT.
    """

    protocol = "hf"
    cachable = False

    def __init__(self, token: str | bool | None = None, endpoint: str | None = None, **options: Any):
        super().__init__(**options)
        prepare()
        self.api = HfApi(endpoint=endpoint, token=token)
        self._contents = HfFileSystem(token=token, endpoint=endpoint, skip_instance_cache=True)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies in a folder: one request for every thousand entries.

        Raises:
            FileNotFoundError: the repository has no such folder.
            Exception: of huggingface_hub, where it does not answer so far as that.
        """
        uri = self._uri(path)
        base = path[: len(path) - len(uri.path_in_repo)].rstrip("/")
        try:
            entries = list(self.api.list_repo_tree(uri.id, uri.path_in_repo or None, revision=uri.revision))
        except EntryNotFoundError as error:
            raise FileNotFoundError(path) from error
        if not detail:
            return [f"{base}/{entry.path}" for entry in entries]
        return [
            {
                "name": f"{base}/{entry.path}",
                "size": entry.size if isinstance(entry, RepoFile) else 0,
                "type": "file" if isinstance(entry, RepoFile) else "directory",
            }
            | ({"blob_id": entry.blob_id} if isinstance(entry, RepoFile) else {})
            for entry in entries
        ]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """All of a small file, by one request.

        Raises:
            FileNotFoundError: the repository has no such file.
            Exception: of huggingface_hub.
        """
        uri = self._uri(path)
        url = hf_hub_url(uri.id, uri.path_in_repo, revision=uri.revision, endpoint=self.api.endpoint)
        response = http_backoff("GET", url, headers=build_hf_headers(token=self.api.token))
        try:
            hf_raise_for_status(response)
        except EntryNotFoundError as error:
            raise FileNotFoundError(path) from error
        content: bytes = response.content
        return content[start:end]

    def get_file(self, rpath: str, lpath: str, callback: Callback | None = None, **_: Any) -> None:
        """Fetches a file; what was cut off is gone on with, Xet is used where the hub has it.

        Raises:
            FileNotFoundError: the repository has no such file.
            Exception: of huggingface_hub.
        """
        try:
            self._contents.get_file(rpath, lpath, callback=_ReportedRead(callback or Callback()))
        except FileNotFoundError as error:
            if isinstance(error.__cause__, Exception):  # the repository or the revision is missing
                raise error.__cause__ from None
            raise

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets what `get_file` has learnt; listings are never kept."""
        self._contents.invalidate_cache()

    def head(self, path: str) -> str:
        """Hash of the newest commit of the branch that a path names.

        Raises:
            Exception: of huggingface_hub.
        """
        uri = self._uri(path)
        revision = quote(uri.revision or constants.DEFAULT_REVISION, safe="")
        url = f"{self.api.endpoint}/api/models/{uri.id}/revision/{revision}"
        response = http_backoff("GET", url, headers=build_hf_headers(token=self.api.token))
        hf_raise_for_status(response)
        return str(response.json()["sha"])

    def _uri(self, path: str) -> HfUri:
        return place_of(HUB + path)


class _ReportedRead(TqdmCallback):  # type: ignore[misc]  # fsspec has no types
    """The only kind of callback that HfFileSystem takes along; tells another one what is done."""

    def __init__(self, other: Callback):
        super().__init__(tqdm_cls=_Bar, tqdm_kwargs={"other": other})


class _Bar:
    """What HfFileSystem uses of a tqdm bar."""

    def __init__(self, *, other: Callback, total: int | None = None):
        self.n = 0
        self.total = total
        self._other = other
        if total is not None:
            other.set_size(total)

    def update(self, count: float | None = 1) -> None:
        """So many bytes more."""
        self.n += int(count or 0)
        self._other.absolute_update(self.n)

    def close(self) -> None:
        """Nothing is left open."""
