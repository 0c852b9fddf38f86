"""What goes wrong with the Hugging Face hub, in one sentence that says what to do."""

from collections.abc import Iterator

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from model.errors import causes

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
LONGEST_TEXT = 300  # characters of what the hub itself says


class BusyError(Exception):
    """The hub asks to come back later than anybody here waits; `seconds` says when."""

    def __init__(self, seconds: float):
        super().__init__(f"the hub asks to come back in {seconds:g} s")
        self.seconds = seconds


def in_words(error: BaseException, repository: str) -> str:
    """One sentence about an error of huggingface_hub or its HTTP client.

    No token is in it, and no address with a signature: of requests, only their host is named.

    Args:
        error: what was raised, or wraps it.
        repository: OWNER/NAME that was asked for.
    """
    cause = next((found for found in _causes(error) if isinstance(found, _TELLING)), error)
    match cause:
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE keeps huggingface_hub from the network; unset it to use the hub"
        case BusyError():
            return f"{cause}: too many requests; wait so long, or ask less often"
        case HfHubHTTPError():
            return _refused(cause, repository)
        case httpx2.TimeoutException():
            return f"{_host(cause)} did not answer in time; try again, or set HF_HUB_DOWNLOAD_TIMEOUT"
        case httpx2.ConnectError() | httpx2.ProxyError():
            return (
                f"{_host(cause)} cannot be reached ({_flat(cause)}); check the network, or name a mirror in "
                "HF_ENDPOINT"
            )
        case httpx2.TransportError():
            return f"the connection to {_host(cause)} broke off ({_flat(cause)}); try again"
        case XetDownloadError():
            return f"the Xet storage did not deliver ({_flat(cause)}); HF_HUB_DISABLE_XET=1 goes without it"
        case EntryNotFoundError():
            return f"{repository} has no such file"
        case ConnectionError():  # of hf_xet, which has its own client
            return (
                f"the connection broke off ({_flat(cause)}); a mirror without Xet needs HF_HUB_DISABLE_XET=1"
            )
        case ValueError() | TypeError() | LookupError() | AttributeError():
            return f"the response is none that a hub gives ({_flat(cause)}); check HF_ENDPOINT"
    return f"{type(cause).__name__}: {_flat(cause)}"


def tokens_page() -> str:
    """Where users make tokens."""
    return f"{constants.ENDPOINT}/settings/tokens"


def status(error: BaseException) -> int | None:
    """The hub's answer, if there was one."""
    return next((e.response.status_code for e in _causes(error) if isinstance(e, HfHubHTTPError)), None)


def is_refusal(error: BaseException) -> bool:
    """Whether the hub, or a setting of its client's, lets nobody in, so that to wait is of no use."""
    return status(error) in (401, 403, 404) or any(
        isinstance(found, OfflineModeIsEnabled) for found in _causes(error)
    )


def may_be_gone(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    code = status(error)
    if code is not None:
        return code in (408, 429) or code >= 500
    return any(isinstance(found, httpx2.TransportError) for found in _causes(error))


_TELLING = (
    BusyError,
    EntryNotFoundError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    XetDownloadError,
    httpx2.TransportError,
)


def _refused(error: HfHubHTTPError, repository: str) -> str:
    code = error.response.status_code
    known = "authorization" in error.response.request.headers
    reason = f" ({_short(error.server_message)})" if error.server_message else ""
    page = f"{constants.ENDPOINT}/{repository}"
    match error:
        case GatedRepoError():
            then = "" if known else f", and {LOG_IN}"
            return f"{repository} is open only to those who asked for access: do so at {page}{then}"
        case RevisionNotFoundError():
            return f"{repository} has no such revision{reason}; name one of {page}/tree/main"
        case EntryNotFoundError():
            return f"{repository} has no such file"
        case RepositoryNotFoundError() if known:
            return f"there is no repository {repository}, or your token may not see it"
        case RepositoryNotFoundError():
            return f"there is no repository {repository} that all may see; if it is private, {LOG_IN}"
    if code == 401:
        if known:
            return (
                f"the hub does not take your token{reason}; {LOG_IN.replace('HF_TOKEN', 'another HF_TOKEN')}"
            )
        return f"the hub wants to know who asks{reason}; {LOG_IN}"
    if code == 403:
        return f"your token may not do this with {repository}{reason}; make one that may at {tokens_page()}"
    if code == 429:
        return f"the hub is asked too often (429){reason}; wait a few minutes, or ask less often"
    return f"the hub answers {code}{reason or f' for {repository}'}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    for found in causes(error):
        # what is missing on disk, too, is explained by why it could not be fetched
        if not isinstance(found, LocalEntryNotFoundError) or found.__cause__ is None:
            yield found


def _host(error: httpx2.TransportError) -> str:
    try:
        url = error.request.url
    except RuntimeError:  # it does not know
        return constants.ENDPOINT
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}"


def _flat(error: BaseException) -> str:
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."
