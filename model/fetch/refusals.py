"""What networks and servers say, in a sentence, with what to do about it."""

import email.utils
import errno
import socket
import ssl
import time
from contextlib import suppress

import httpx2

from model.errors import FetchError, causes
from model.urls import shown

RETRIED = (408, 425, 429, 500, 502, 503, 504)
_TOKEN = "with HF_TOKEN or `hf auth login`"


def unreachable(error: BaseException, url: str) -> str | None:
    """Why there is no connection at all; None if the server was reached and only the connection was lost."""
    host = httpx2.URL(url).host
    chain = list(causes(error))
    if any(isinstance(one, httpx2.ProxyError) for one in chain):
        return f"the proxy refuses the way to {host} ({_text(error)}): check HTTPS_PROXY and NO_PROXY"
    if "CERTIFICATE_VERIFY" in str(error):
        return (
            f"the certificate of {host} is not trusted: behind a proxy that reads TLS, let SSL_CERT_FILE "
            "name the proxy's certificate; otherwise somebody else answers for it"
        )
    if any(isinstance(one, ssl.SSLError) for one in chain):
        return f"{host} does not speak TLS as it should ({_text(error)}): check the address, and HTTPS_PROXY"
    if any(isinstance(one, socket.gaierror) for one in chain):
        return f"no network, or no host {host}: its name cannot be looked up"
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return f"{host} does not answer: no network, or a firewall in between"
    if isinstance(error, httpx2.ConnectError):
        refused = any(isinstance(one, OSError) and one.errno == errno.ECONNREFUSED for one in chain)
        return f"{host} cannot be reached: {'it refuses the connection' if refused else _text(error)}"
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return f"{shown(url)} is no address that can be asked"
    return None


def refusal(response: httpx2.Response, file: str) -> FetchError:
    """What a server's refusal of a file at a web address means."""
    status, where = response.status_code, shown(str(response.url))
    match status:
        case 401:
            why = "it wants a user and password (https://USER:PASSWORD@HOST/...), or others than were given"
        case 403:
            why = "this address may not be read: it may have expired, copy it again"
        case 404 | 410:
            why = "there is no such file: check the address"
        case 407:
            why = "the proxy wants a user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
        case _:
            why = "it does not give the file"
    return FetchError(f"{file}: {where} answers {status}: {why}")


def hub_refusal(error: Exception, repository: str, revision: str, path: str, endpoint: str) -> FetchError:
    """What a hub's refusal means; `error` is an HfHubHTTPError or another of huggingface_hub's own."""
    from huggingface_hub import errors

    place = f"{endpoint}/{repository}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    match error:
        case errors.GatedRepoError():
            text = f"{repository} is gated: accept its terms at {place}, then give your token {_TOKEN}"
        case errors.RevisionNotFoundError():
            text = f"{repository} has no revision {revision}: see {place}/commits"
        case errors.RemoteEntryNotFoundError():
            text = f"{repository} has no file {path} at revision {revision}: see {place}/tree/{revision}"
        case errors.FileMetadataError():
            text = (
                f"{endpoint} does not answer as a hub does: something in between answers for it (a login "
                "page?), or HF_ENDPOINT names no hub"
            )
        case _ if status == 401 and "invalid" in str(error).lower():
            text = f"the hub does not know your token: give another {_TOKEN}, or none for public files"
        case errors.RepositoryNotFoundError() | errors.HfHubHTTPError() if status in (401, 404):
            text = f"there is no {repository} at {endpoint}, or it is private: then give a token {_TOKEN}"
        case _ if status == 403:
            text = f"your token may not read {repository}: see {place}, and the token's rights"
        case errors.HfHubHTTPError():
            text = f"{endpoint} answers {status}: {_text(error)}"
        case _:
            text = f"{endpoint}: {_text(error)}"
    return FetchError(text)


def again_after(response: httpx2.Response) -> float | None:
    """Seconds that a server asks to wait for; None if it does not say."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    with suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _text(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
