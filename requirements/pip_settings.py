"""What pip is configured with, said to uv, which reads nothing of it: indexes, folders, caps, certificates.

A machine whose pip takes packages from a mirror or a folder would otherwise have them fetched from the public
index. What uv itself is configured with, by its own variables, comes first.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from requirements.errors import SetupError

if TYPE_CHECKING:  # older Pythons, which are refused because they are too old, know no such types
    Flag = tuple[str, ...]  # one of uv's, with its value if it takes one

# Of pip's options those with one value, and uv's variable for it.
_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "retries": ("UV_HTTP_RETRIES",),
    "keyring-provider": ("UV_KEYRING_PROVIDER",),
}
# And those with several, with uv's flag, which is given once for each.
_FLAGS = {
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
    "no-binary": "--no-binary",
    "only-binary": "--only-binary",
}
_OWN_VARIABLES = {
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
}
_SWITCHES = {"no-index": "--no-index", "no-cache-dir": "--no-cache"}
_PLACES = ("index-url", "extra-index-url", "find-links", "constraint")
_LOWEST_FIRST = ("global.", "install.", ":env:.")  # sections, in pip's order
_NO = {"0", "false", "no", "off", "n", "f"}


def read(python: Path) -> dict[str, str]:
    """The options that `pip install` of a Python takes from files and variables; none where there is no pip.

    Raises:
        SetupError: pip can't read its own configuration.
    """
    command = [str(python), "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        return {}
    if done.returncode:
        reason = " ".join(re.split("error: ", done.stderr, flags=re.IGNORECASE)[-1].split())
        raise SetupError(f"pip's configuration cannot be read ({reason}); `pip config debug` shows its files")
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    for section in _LOWEST_FIRST:
        for key, _, value in lines:
            if key.startswith(section):
                found[key.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def for_uv(settings: Mapping[str, str], own: Mapping[str, str]) -> tuple[list[Flag], dict[str, str]]:
    """uv's flags and variables for what pip is configured with.

    Args:
        settings: pip's.
        own: the variables that are set; those of uv among them are kept.
    """
    flags: list[Flag] = []
    variables: dict[str, str] = {}
    for option, value in settings.items():
        if _OWN_VARIABLES.get(option, "") in own or not value.strip():
            continue
        words = [word for part in value.split() for word in _existing(option, part)]
        for name in _VARIABLES.get(option, ()):
            if not {name, name.lower()} & own.keys() and words:
                variables[name] = words[0]
        if option in _FLAGS:
            flags += [(_FLAGS[option], word) for word in words]
        if option in _SWITCHES and is_on(settings, option):
            flags.append((_SWITCHES[option],))
    if "UV_INDEX_STRATEGY" not in own:
        flags.append(("--index-strategy", "unsafe-best-match"))  # to pip all indexes are one
    return flags, variables


def is_on(settings: Mapping[str, str], option: str) -> bool:
    """Whether an option that is a switch is set."""
    return settings.get(option, "no").lower() not in _NO


def without_folders(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings without this machine's folders, which have some of a version's files only: not all hashes."""
    kept = dict(settings)
    for option in ("extra-index-url", "find-links"):
        kept[option] = " ".join(place for place in kept.get(option, "").split() if folder(place) is None)
    return kept


def folders(settings: Mapping[str, str]) -> list[Path]:
    """Folders and indexes on this machine's disk that pip takes packages from."""
    places = [place for option in _PLACES[:3] for place in settings.get(option, "").split()]
    return [found for found in map(folder, places) if found is not None]


def folder(place: str) -> Path | None:
    """The path of a place that is on this machine, be it there or not; None for an address elsewhere."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).expanduser()


def _existing(option: str, word: str) -> list[str]:
    """The word as uv takes it; none for a folder that is not there, which pip passes over as well."""
    if option == "keyring-provider":
        return [] if word in ("auto", "import") else [word]  # uv has "disabled" and "subprocess"
    if option in ("no-binary", "only-binary"):
        return [name for name in word.split(",") if name]
    if option in ("timeout", "default-timeout"):
        return [str(round(float(word)))]  # of seconds uv takes whole ones
    if option == "proxy":
        return [word if "://" in word else f"http://{word}"]
    found = folder(word) if option in _PLACES else None
    if found is None:
        return [word]
    if not found.exists():
        if option == "constraint":
            raise SetupError(
                f"pip is configured with the constraint {found}, which does not exist; `pip config list`"
            )
        print(f"passing over {found}: pip is configured with it, and it does not exist", file=sys.stderr)
        return []
    return [str(found.resolve()) if option in ("find-links", "constraint") else found.resolve().as_uri()]
