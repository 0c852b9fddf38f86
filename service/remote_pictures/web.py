"""A picture by HTTP: addresses are looked up once, checked, and dialled as they are."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import urljoin

import httpx2

from service.errors import PictureNotFetchedError, TooManyBytesError, invalid
from service.remote_pictures.addresses import Allowed, BucketAddress, WebAddress, is_public
from service.scheduling.host_memory import HostAccount

MOST_REDIRECTS = 3
MOST_DIALLED = 4  # addresses of one host
_AGENT = "ebseg"


async def fetch_from_web(
    address: WebAddress,
    allowed: Allowed,
    resolve: Callable[[str, int], Awaitable[Sequence[str]]],
    tls: ssl.SSLContext,
    memory: HostAccount,
    most: int,
) -> list[bytes]:
    """A picture's bytes, in pieces. Has no time limit of its own.

    Args:
        address: where it is.
        allowed: what each redirect is held against.
        resolve: the addresses of a host and port; OSError if there are none.
        tls: what certificates are held against.
        memory: where the bytes are reserved as they come.
        most: bytes.

    Raises:
        InvalidRequestError, PictureNotFetchedError, TooManyBytesError: as of `PictureFetcher.fetch`.
    """
    # a connection is for one host: one that is kept would be taken for another host of the same address,
    # whose certificate nobody compared
    limits = httpx2.Limits(max_connections=1, max_keepalive_connections=0)
    async with httpx2.AsyncClient(verify=tls, trust_env=False, timeout=None, limits=limits) as client:
        for _ in range(MOST_REDIRECTS + 1):
            found = await _ask(client, address, await _dialled(address, resolve), memory, most)
            if not isinstance(found, str):
                return found
            address = _redirected(address, found, allowed)
    raise PictureNotFetchedError(f"{address.host} redirects more than {MOST_REDIRECTS} times")


async def _dialled(
    address: WebAddress, resolve: Callable[[str, int], Awaitable[Sequence[str]]]
) -> Sequence[str]:
    """The addresses of a host.

    Raises:
        PictureNotFetchedError: it has none.
        InvalidRequestError: one of them is not public, and may not be.
    """
    try:
        found = await resolve(address.host, address.port)
    except (OSError, UnicodeError):
        found = ()
    if not found:
        raise PictureNotFetchedError(f"there is no host {address.host}")
    if not address.private and not all(map(is_public, found)):
        raise invalid("url", "the host has an address that is not public; see url_private_hosts")
    return found[:MOST_DIALLED]


async def _ask(
    client: httpx2.AsyncClient, address: WebAddress, dialled: Sequence[str], memory: HostAccount, most: int
) -> list[bytes] | str:
    """The picture's bytes, or where it is instead."""
    for number, ip in enumerate(dialled, 1):
        url = httpx2.URL(
            scheme=address.scheme, host=ip, port=address.port, raw_path=address.target.encode("ascii")
        )
        headers = {
            "Host": address.authority,
            "User-Agent": _AGENT,
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        }
        request = httpx2.Request("GET", url, headers=headers, extensions={"sni_hostname": address.host})
        try:
            answer = await client.send(request, stream=True)
        except httpx2.ConnectError as error:
            if number < len(dialled):
                continue
            raise _not_fetched(address, error) from None
        except httpx2.HTTPError as error:
            raise _not_fetched(address, error) from None
        try:
            return await _read(answer, address, memory, most)
        except httpx2.HTTPError as error:
            raise _not_fetched(address, error) from None
        finally:
            await answer.aclose()
    raise PictureNotFetchedError(f"there is no host {address.host}")


async def _read(
    answer: httpx2.Response, address: WebAddress, memory: HostAccount, most: int
) -> list[bytes] | str:
    if answer.has_redirect_location:
        return answer.headers["location"]
    if answer.status_code != HTTPStatus.OK:
        raise PictureNotFetchedError(f"{address.host} answers with status {answer.status_code}")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise PictureNotFetchedError(f"{address.host} sends the image compressed, which was not asked for")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    chunks: list[bytes] = []
    nbytes = 0
    async for chunk in answer.aiter_raw():
        nbytes += len(chunk)
        if nbytes > most:
            raise _too_large(most)
        memory.take(len(chunk))
        chunks.append(chunk)
    return chunks


def _too_large(most: int) -> TooManyBytesError:
    return TooManyBytesError(f"the image at this URL is too large; at most {most} bytes are taken")


def _redirected(address: WebAddress, location: str, allowed: Allowed) -> WebAddress:
    """Where a redirect leads, under the rules for any URL."""
    try:
        url = urljoin(address.url, location)
    except ValueError:
        raise PictureNotFetchedError(f"{address.host} redirects to what is no URL") from None
    found = allowed.address(url)
    if isinstance(found, BucketAddress):
        raise invalid("url", "a redirect leads to a bucket")
    if address.scheme == "https" and found.scheme == "http":
        raise invalid("url", "a redirect leads from https to http")
    return found


def _not_fetched(address: WebAddress, error: httpx2.HTTPError) -> PictureNotFetchedError:
    return PictureNotFetchedError(f"{address.host} cannot be asked: {type(error).__name__}")
