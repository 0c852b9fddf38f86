"""Which form of answer a client wants, by its Accept header (RFC 9110, section 12.5.1)."""

import functools
from dataclasses import dataclass
from typing import Literal, get_args

from service.errors import NotAcceptableError

Form = Literal["application/json", "image/png", "image/webp", "application/x-npy"]
FORMS: tuple[Form, ...] = get_args(Form)  # the first that fits a wildcard is taken
# The entries of `outputs` that are such a file; without `outputs` it is the first.
OUTPUTS_OF: dict[Form, list[str]] = {
    "image/png": ["png", "confidence", "soft_mask", "cutout"],
    "image/webp": ["overlay"],
    "application/x-npy": ["npy"],
}
PARTS = "multipart/mixed"
_HEADERS_KEPT = 64
_LONGEST = 4096  # characters; the event loop takes it apart, and browsers send a fortieth of that


@dataclass(frozen=True, slots=True)
class _Range:
    media: str
    quality: float

    def matches(self, form: str) -> bool:
        kind, _, sub = self.media.partition("/")
        return self.media in (form, "*/*") or (sub == "*" and form.startswith(f"{kind}/"))

    @property
    def exactness(self) -> int:
        return 2 - self.media.count("*")


@functools.lru_cache(maxsize=_HEADERS_KEPT)  # callers send the same header with every picture
def negotiate(accept: str | None) -> Form:
    """The form of answer.

    Args:
        accept: the header; without one the answer is JSON.

    Raises:
        NotAcceptableError: none of `FORMS` is in it, or it is too long.
    """
    _refuse_long(accept)
    if accept is None or not accept.strip():
        return FORMS[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    ranked: list[tuple[float, int, int, Form]] = []
    for order, form in enumerate(FORMS):
        # the most exact range decides a form's quality, so that "image/png;q=0, */*" excludes PNG
        fitting = [(r.exactness, r.quality, -at) for at, r in enumerate(ranges) if r.matches(form)]
        if fitting:
            _, quality, place = max(fitting)
            ranked.append((quality, place, -order, form))
    best = max(ranked, default=None)
    if best is None or best[0] <= 0:
        raise NotAcceptableError(f"responses come as {', '.join(FORMS)}")
    return best[3]


def wants_parts(accept: str | None) -> bool:
    """Whether an answer for several pictures is to be multipart; a wildcard alone is for a JSON array."""
    ranges = [_parse(part) for part in (accept or "").split(",")]
    return any(one.media == PARTS and one.quality > 0 for one in ranges)


def form_of_parts(accept: str | None) -> Form:
    """The form of each picture's answer.

    Args:
        accept: the header; `multipart/mixed` in it is for the whole, the rest for the parts.

    Raises:
        NotAcceptableError: a JSON array cannot hold it, it is none of `FORMS`, or too long.
    """
    _refuse_long(accept)
    parts = [part for part in (accept or "").split(",") if _parse(part).media != PARTS]
    form = negotiate(",".join(parts))
    if form != FORMS[0] and not wants_parts(accept):
        raise NotAcceptableError(f"several responses come as {FORMS[0]}, or as {PARTS} with {form} in it")
    return form


def _refuse_long(accept: str | None) -> None:
    if accept is not None and len(accept) > _LONGEST:
        raise NotAcceptableError(
            f"the header Accept has more than {_LONGEST} characters; responses come as {', '.join(FORMS)}"
        )


def _parse(part: str) -> _Range:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return _Range(media, quality if 0 <= quality <= 1 else 0.0)
