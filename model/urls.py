"""URLs as they may be shown, with nothing secret in them. Whatever prints a URL asks here.

Secrets are in the user information (`redis://:PASSWORD@host`), in queries (`?password=`, signatures, tokens)
and in fragments. Which of a query's values are secret cannot be seen from their names, so none is shown.
"""

import re

# what to say of a URL that cannot be read; never the error's own text, which may hold a part of a password
QUOTED = "check host and port; / ? # : @ in a password are written %2F %3F %23 %3A %40"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]{0,15}://"
# up to the next blank, or the next URL
_URL = re.compile(rf"({_SCHEME})((?:(?!{_SCHEME})\S)*)")
_ONE_HOST = r"(\[[^\[\]]*\]|[^:,\[\]]*)(:[0-9]*)?"
_HOST = re.compile(rf"{_ONE_HOST}(,{_ONE_HOST})*")
# of requests whose messages name the path alone: /v1/traces?token=...
_QUERY_VALUE = re.compile(r"(?<=[?&])([A-Za-z][\w.\-]*)=[^\s&\"'<>()]+")
_END_OF_SENTENCE = "\"'`.,:;!)]}>"
# what help and errors tell users to write, which is no secret
_EXAMPLES = ("USER:PASSWORD@", "HOST:PORT")
# Here @ can be in no path, so what stands before it is a password that nobody has quoted.
_WITHOUT_PATHS = tuple(f"redis{tls}{kind}://" for tls in ("", "s") for kind in ("", "+cluster", "+sentinel"))


def shown(url: str) -> str:
    """A URL without what may be secret: no user, password, query or fragment. Any other text as it is."""
    scheme, separator, rest = url.partition("://")
    return _shown(scheme + separator, rest) if separator else url


def without_secrets(text: str) -> str:
    """A text, such as an error's, with every URL in it as `shown` has it."""
    if "://" in text:
        text = _URL.sub(_replaced, text)
    return _QUERY_VALUE.sub(r"\1=***", text) if "=" in text else text


def _replaced(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    url = rest.rstrip(_END_OF_SENTENCE)
    return f"{_shown(scheme, url)}{rest[len(url) :]}"


def _shown(scheme: str, rest: str) -> str:
    if rest.startswith(_EXAMPLES):
        return scheme + rest
    end = next((index for index, letter in enumerate(rest) if letter in "/?#"), len(rest))
    authority, tail = rest[:end], rest[end:]
    host = authority.rpartition("@")[2]
    unquoted = scheme.lower() in _WITHOUT_PATHS and "@" in tail
    if unquoted or _HOST.fullmatch(host) is None or (host.startswith(":") and "@" in tail):
        # a password with / ? # or : in it, which had to be quoted; the host is behind its end, if anywhere
        _, at, behind = rest.rpartition("@")
        return _shown(scheme, behind) if at else f"{scheme}***"
    return scheme + host + re.split(r"[?#]", tail, maxsplit=1)[0]
