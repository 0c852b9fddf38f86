"""`/`, `/docs` and `/static/...`: the pages, and their files; `limits.json` is of the settings."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

FOLDER = Path(__file__).parents[1] / "static"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
# blob: and data: are pictures that the page makes itself
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
LIMITS = "limits.json"  # what the page may send; no file
PICTURE_AGE = 86_400  # seconds; pictures may be old, while scripts and styles have to fit together
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_READ = ["GET", "HEAD"]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, as it is sent."""

    body: bytes
    media_type: str
    headers: dict[str, str]


@router.api_route("/", methods=_READ)
def page(request: Request) -> Response:
    """The page."""
    return _answer("index.html", request)


@router.api_route("/docs", methods=_READ)
def docs(request: Request) -> Response:
    """The interface, to be read and tried."""
    return _answer("docs.html", request)


@router.api_route("/static/{path:path}", methods=_READ)
def static(path: str, request: Request) -> Response:
    """A script, style or image of the page.

    Raises:
        HTTPException: 404, there is no such file.
    """
    if path == LIMITS:
        settings = request.app.state.service.settings
        limits = {"max_bytes": settings.max_bytes, "max_pixels": settings.max_pixels}
        return JSONResponse(limits, headers={**_HEADERS, "Cache-Control": "no-cache"})
    return _answer(path, request)


@functools.cache
def assets() -> dict[str, Asset]:
    """All files by their path below `FOLDER`; nothing else can be asked for, whatever a path looks like."""
    found = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in MEDIA_TYPES:
            body = file.read_bytes()
            picture = file.suffix == ".jpg"
            found[file.relative_to(FOLDER).as_posix()] = Asset(
                body=body,
                media_type=MEDIA_TYPES[file.suffix],
                headers={
                    **_HEADERS,
                    "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
                    "Cache-Control": f"public, max-age={PICTURE_AGE}" if picture else "no-cache",
                },
            )
    return found


def _answer(path: str, request: Request) -> Response:
    asset = assets().get(path)
    if asset is None:
        raise HTTPException(404, "there is no such file on the page; the page itself is at /")
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if asset.headers["ETag"] in known:
        return Response(status_code=304, headers=asset.headers)
    return Response(asset.body, headers=asset.headers, media_type=asset.media_type)
