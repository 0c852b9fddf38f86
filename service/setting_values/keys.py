"""API keys, as the settings name them."""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

# NAME:sha256:HEX:OPTIONS, of which name and options may be left out
_NAME = r"[a-z0-9][a-z0-9._-]{0,39}"
_OPTION = r"read|use|admin|rate=[0-9]{1,6}(?:\.[0-9]{1,3})?|concurrency=[0-9]{1,6}"
KEY_FORM = re.compile(
    rf"(?:(?P<name>{_NAME}):)?sha256:(?P<digest>[0-9a-f]{{64}})(?P<options>(?::(?:{_OPTION}))*)"
)
_OF_NOTHING = hashlib.sha256().hexdigest()  # where the variable with the key was empty
SHORTEST_KEY = 16  # characters; shorter ones could be guessed


def _key_digests(value: Any) -> Any:
    """Keys as text with commas between, or a list -> their sha256 digests in hexadecimal, or `KEY_FORM`."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(key, str) for key in given):
        raise ValueError("must be keys with commas between")
    digests = []
    for key in (key.strip() for key in given):
        match = KEY_FORM.fullmatch(key)
        if match is None and re.search(r"(^|:)sha256\b", key):
            raise ValueError(
                f"{_fault(key)}; an entry with sha256: is NAME:sha256:HEX:OPTIONS, and options are a role "
                "(read, use, admin), rate=PER_SECOND, concurrency=NUMBER; name and options may be left out"
            )
        if match is not None and match["digest"] == _OF_NOTHING:
            raise ValueError(
                "sha256:e3b0c442... is the digest of nothing: the key was empty when it was made"
            )
        if match is None and len(key) < SHORTEST_KEY:
            raise ValueError(f"a key needs at least {SHORTEST_KEY} characters")
        if match is not None and (match["name"] or match["options"]):
            if re.search(r"=0*(?:\.0*)?(?::|$)", key):
                raise ValueError("rate and concurrency of a key are above 0")
            digests.append(key)
        else:
            digests.append(match["digest"] if match else hashlib.sha256(key.encode()).hexdigest())
    bare = [_digest_of(entry) for entry in digests]
    if twice := next((digest for digest in bare if bare.count(digest) > 1), None):
        raise ValueError(f"the key sha256:{twice[:8]}... is given twice")
    return tuple(digests)


def _digest_of(entry: str) -> str:
    match = KEY_FORM.fullmatch(entry)
    return match["digest"] if match else entry


def _fault(entry: str) -> str:
    """What is wrong with an entry that has a digest; never more of it than a word."""
    name, _, rest = f":{entry}".rpartition(":sha256")
    digest, *options = rest.removeprefix(":").split(":")
    if name.strip(":") and not re.fullmatch(_NAME, name[1:]):
        return "the name is of a-z, 0-9, '.', '_' and '-', at most 40 characters"
    if not rest.startswith(":"):
        return "a colon is missing behind sha256"
    if not re.fullmatch("[0-9a-f]{64}", digest):
        return f"HEX has 64 digits of 0-9 and a-f, this one {len(digest)} characters"
    wrong = next((option for option in options if not re.fullmatch(_OPTION, option)), "")
    return f"{wrong[:20]!r} is no option"


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
