"""Word of news in a registry from commands that change it without a service."""

import sys
from collections.abc import Callable

from model.errors import ModelError
from model.urls import without_secrets
from service.commands.remote import chosen_redis

REDIS_HELP = (
    "Redis of the services, as their redis_url, which tells them to look at once (default: the variable "
    "EBSEG_REDIS_URL, which other users cannot see)"
)
Announcer = Callable[[str], bool]
"""Called with a model's name; whether Redis took the news, else it is said why not."""


def announcer(given: str | None) -> Announcer | None:
    """What tells services that a registry has something new; None where no Redis is named.

    Args:
        given: its URL; None for that of the environment.

    Raises:
        ModelError: it is no such URL.
        ModuleNotFoundError: a package for it is missing.
    """
    url = chosen_redis(given)
    if url is None:
        return None
    import asyncio

    from service.hot_loading.announcements import announce
    from service.redis.servers import redis_servers
    from service.setting_values.redis_url import redis_place

    try:
        redis_servers(redis_place(url))
    except ValueError as error:
        raise ModelError(str(error)) from None

    def announced(model: str) -> bool:
        try:
            asyncio.run(announce(url, model))
        except Exception as error:
            reason = without_secrets(" ".join(str(error).split()) or type(error).__name__)
            said = f"services are not told ({reason}); they see it at their next look"
            print(f"ebseg: warning: {said}", file=sys.stderr)
            return False
        return True

    return announced
