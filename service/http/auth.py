"""API keys: who may call /v1 and /v2, and who may change which version of a model is served.

Only digests of keys are known here. A key that is shown is never kept, logged or repeated.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from fastapi import Request
from starlette.types import Scope

from service.caller import NO_KEY, Caller
from service.errors import ForbiddenError, KeyLimitedError, UnauthorizedError
from service.http.api_key import ApiKey
from service.http.problem_examples import example
from service.http.problems import KINDS, MEDIA_TYPE, Kind
from service.setting_values.keys import key_names
from service.settings import Settings

Headers = Iterable[tuple[bytes, bytes]]

_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
NEEDED: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
"""OpenAPI's `security` of an operation that needs a key."""
_READING = ("GET", "HEAD", "OPTIONS")  # all that a key for reading is for
_REFUSALS: dict[type[Exception], str] = {
    UnauthorizedError: "A key is needed, or the one that was sent is unknown",
    ForbiddenError: "Not permitted: another key is needed, or administration is off",
    KeyLimitedError: "The key is used more than it may be",
}
_NOTHING: AbstractAsyncContextManager[None] = nullcontext()
_HOW = "send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"


class ApiKeys:
    """The keys that open the service. For the event loop's thread.

    Args:
        api: entries of `KEY_FORM`, or sha256 digests, hexadecimal, of keys for /v1 and /v2; none means that
            these are open to all. Without a role they are for use.
        admin: the same for keys that may do everything; none means that nobody may administrate.
    """

    def __init__(self, *, api: Sequence[str] = (), admin: Sequence[str] = ()):
        own = [ApiKey.of(entry, name, "use") for entry, name in zip(api, key_names(api, "api"), strict=True)]
        more = zip(admin, key_names(admin, "admin"), strict=True)
        self._keys = [*own, *(ApiKey.of(entry, name, "admin") for entry, name in more)]
        self._required = bool(own)
        self._administrated = any(key.role == "admin" for key in self._keys)

    @classmethod
    def of(cls, settings: Settings) -> "ApiKeys":
        """The keys of the settings."""
        return cls(api=settings.api_keys, admin=settings.admin_keys)

    def check(self, scope: Scope) -> "ApiKey | None":
        """Lets a request pass that needs no key or shows a good one. Reads nothing but path and headers.

        Returns:
            The key that it shows, if that is a known one; its name, rate and concurrency count wherever a
            key could be needed, also while anybody may come in without one.

        Raises:
            UnauthorizedError: no key, or an unknown one.
            ForbiddenError: a key for reading, and the request is for more.
        """
        if not (self._keys and is_protected(_path(scope))):
            return None
        shown = shown_key(scope["headers"])
        key = None if shown is None else _among(shown, self._keys)
        if not self._required:
            return key
        if shown is None:
            raise UnauthorizedError(f"this needs a key: {_HOW}")
        if key is None:
            raise UnauthorizedError("this key is unknown")
        if key.role == "read" and scope.get("method", "GET") not in _READING:
            raise ForbiddenError("this key is for reading only; use one whose role is use or admin")
        return key

    def named(self, name: str) -> ApiKey:
        """The key of a name; there is one."""
        return next(key for key in self._keys if key.name == name)

    def caller(self, key: ApiKey | None) -> Caller:
        """Who a request with this key is from; where anybody may come in, nothing is one key's own."""
        if key is None:
            return NO_KEY
        return key.caller if self._required else Caller(key.name)

    def using(self, key: ApiKey | None) -> AbstractAsyncContextManager[None]:
        """Counts one request of a key, if it shows one, from here to the end of its answer.

        Raises:
            KeyLimitedError: there may be no more of them at present; on entering.
        """
        return _NOTHING if key is None else _using(key)

    def check_admin(self, scope: Scope) -> None:
        """Lets a request pass that shows an admin key.

        Raises:
            UnauthorizedError: no key.
            ForbiddenError: a key that is no admin key, or there are none.
        """
        if not self._administrated:
            raise ForbiddenError("administration is off: the service was started without EBSEG_ADMIN_KEYS")
        shown = shown_key(scope["headers"])
        if shown is None:
            raise UnauthorizedError(f"this needs an admin key: {_HOW}")
        key = _among(shown, self._keys)
        if key is None or key.role != "admin":
            raise ForbiddenError("this needs an admin key, and the key that was sent is none")


@asynccontextmanager
async def _using(key: ApiKey) -> AsyncIterator[None]:
    with key.used():
        yield


def is_admin(request: Request) -> bool:
    """Whether the request shows an admin key."""
    try:
        require_admin(request)
    except (UnauthorizedError, ForbiddenError):
        return False
    return True


def require_admin(request: Request) -> None:
    """FastAPI dependency of routes for administrators; they document statuses 401 and 403.

    Raises:
        UnauthorizedError: no key.
        ForbiddenError: a key that is no admin key, or none is configured.
    """
    keys: ApiKeys = request.app.state.keys
    keys.check_admin(request.scope)


def is_protected(path: str) -> bool:
    """Whether a path needs a key where keys are set: all of /v1 and /v2 but its health routes."""
    return (path in ("/v1", "/v2") or path.startswith(("/v1/", "/v2/"))) and not _is_health(path)


def shown_key(headers: Headers) -> bytes | None:
    """The key that a request shows; `X-API-Key` wins, because proxies set `Authorization` for themselves."""
    bearer = None
    for name, value in headers:
        if name == b"x-api-key" and value.strip():
            return value.strip()
        if name == b"authorization" and bearer is None:
            scheme, _, token = value.strip().partition(b" ")
            bearer = token.strip() if scheme.lower() == b"bearer" else None
    return bearer or None


def install_security(schema: dict[str, Any], *, required: bool) -> None:
    """Writes the keys into an OpenAPI document, in place.

    Args:
        schema: the document; operations of administrators have `NEEDED` as their security already.
        required: whether API keys are set, so that /v1 and /v2 need one.
    """
    schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in schema["paths"].items():
        if not is_protected(path):
            continue
        for method, operation in operations.items():
            if not (required or "security" in operation):
                continue
            operation["security"] = NEEDED
            for error, when in _REFUSALS.items():
                if error is not ForbiddenError or method.upper() not in _READING:
                    answer = _refusal(path, KINDS[error], when)
                    operation["responses"].setdefault(str(KINDS[error].status), answer)


def _refusal(path: str, kind: Kind, when: str) -> dict[str, Any]:
    """OpenAPI's entry for a refusal, in the form that errors of the path have."""
    protocol = path == "/v2" or path.startswith("/v2/")
    media, schema = ("application/json", "ErrorAnswer") if protocol else (MEDIA_TYPE, "Problem")
    problem = example(kind.slug, kind.status, kind.title)
    shown = (
        {"example": {"error": problem["value"]["detail"]}} if protocol else {"examples": {kind.slug: problem}}
    )
    content = {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}, **shown}}
    return {"description": when if protocol else f"{when} (`{kind.slug}`)", "content": content}


def _among(shown: bytes, keys: "Sequence[ApiKey]") -> "ApiKey | None":
    """Compares with every key, whichever fits, so that time tells nothing."""
    digest = hashlib.sha256(shown).digest()
    fitting = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest) and (fitting is None or key.role == "admin"):
            fitting = key
    return fitting


def _path(scope: Scope) -> str:
    """The path that routes are matched with: without the prefix that a proxy may have cut off."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _is_health(path: str) -> bool:
    return path == "/v2/health" or path.startswith("/v2/health/")
