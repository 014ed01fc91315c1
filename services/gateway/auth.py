"""Who is asking (docs/api.md).

Tokens are not made yet, so everybody is the single local user, whatever
credential is sent; that is why the gateway stays on loopback unless it is told
in so many words to let everybody in.
"""

from typing import NamedTuple

from aiohttp import web

from shared.ids import LOCAL_USER
from shared.settings import BadSetting, Settings


class User(NamedTuple):
    """Whoever a request acts for."""

    id: str


def authenticate(request: web.Request) -> User:
    """The user of ``request``; the one place that will read credentials."""
    del request
    return User(LOCAL_USER)


def check_host(settings: Settings) -> None:
    """Refuse to let a whole network in by accident.

    Raises:
        BadSetting: the gateway would listen beyond loopback, and anybody could use it.
    """
    if settings.on_loopback or settings.open_network:
        return
    raise BadSetting(
        f"NATTERLOG_HOST is {settings.host!r}: there are no tokens, so everybody who can reach "
        "this machine could read and write everything. Set NATTERLOG_HOST=127.0.0.1, or "
        "NATTERLOG_OPEN_NETWORK=true if that is what you want."
    )
