"""API keys, as the settings name them."""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

# NAME:sha256:HEX:OPTIONS, of which name and options may be left out
KEY_FORM = re.compile(
    r"(?:(?P<name>[a-z0-9][a-z0-9._-]{0,39}):)?sha256:(?P<digest>[0-9a-f]{64})"
    r"(?P<options>(?::(?:read|use|admin|rate=[0-9]{1,6}(?:\.[0-9]{1,3})?|concurrency=[0-9]{1,6}))*)"
)
SHORTEST_KEY = 16  # characters; shorter ones could be guessed


def _key_digests(value: Any) -> Any:
    """Keys as text with commas between, or a list -> their sha256 digests in hexadecimal, or `KEY_FORM`."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(key, str) for key in given):
        raise ValueError("must be keys with commas between")
    digests = []
    for key in (key.strip() for key in given):
        match = KEY_FORM.fullmatch(key)
        if match is None and "sha256:" in key:
            raise ValueError(
                "an entry with sha256: is NAME:sha256:HEX:OPTIONS with 64 digits of HEX; options are a role "
                "(read, use, admin), rate=PER_SECOND, concurrency=NUMBER; name and options may be left out"
            )
        if match is None and len(key) < SHORTEST_KEY:
            raise ValueError(f"a key needs at least {SHORTEST_KEY} characters")
        if match is not None and (match["name"] or match["options"]):
            if re.search(r"=0*(?:\.0*)?(?::|$)", key):
                raise ValueError("rate and concurrency of a key are above 0")
            digests.append(key)
        else:
            digests.append(match["digest"] if match else hashlib.sha256(key.encode()).hexdigest())
    return tuple(digests)


def key_names(entries: Sequence[str], kind: str) -> list[str]:
    """Name of each key, for metrics, the log and whose predictions are whose.

    Args:
        entries: of `KEY_FORM`, or digests.
        kind: what those are called by that have no name, with their number from 1.
    """
    matches = [KEY_FORM.fullmatch(entry) for entry in entries]
    named = [match["name"] if match else None for match in matches]
    return [name or f"{kind}-{number}" for number, name in enumerate(named, 1)]


# NoDecode: a variable of the environment is keys with commas between, not JSON
KeyDigests = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_key_digests)]
