"""Origins of pages, as browsers send them."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

# what a browser sends as Origin; `*.` at the front stands for one or more labels
ORIGIN = re.compile(r"https?://((\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
ANY_ORIGIN = "*"


def _origins(value: Any) -> Any:
    """Origins as text with commas between, or a list -> what browsers send."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise ValueError("must be origins with commas between")
    origins = tuple(one.strip().lower().removesuffix("/") for one in given)
    for one in origins:
        if one != ANY_ORIGIN and not ORIGIN.fullmatch(one):
            raise ValueError(
                f"{one!r} is no origin; one is https://HOST, https://HOST:PORT, https://*.HOST or *"
            )
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise ValueError("* stands for all origins, and goes alone")
    return origins


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
