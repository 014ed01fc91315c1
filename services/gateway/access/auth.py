"""Who is asking: the credential of a request, and whom it stands for (docs/api.md)."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

from aiohttp import web

from shared.errors import Unauthorized
from shared.ids import now

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SCHEMES = ("bearer", "token")
_HEADERS = ("X-API-Token", "X-Api-Key")
LONGEST = 1000
"""Characters of a credential."""
ENDING: web.RequestKey[Callable[[], None]] = web.RequestKey("ending")
"""What ends a request whose credential does not count any more; without it, its handler is
cancelled, as when the client goes away."""


class User:
    """Whoever a request acts for, as long as the credential counts.

    All requests with one credential share one of these: when the credential is
    revoked, or expires, those that are still open are told.
    """

    def __init__(
        self, user_id: str, token_id: str | None = None, expires_at: datetime | None = None
    ) -> None:
        self.id = user_id
        self.token_id = token_id
        """None while nobody needs a token."""
        self.over = False
        self._expires_at = expires_at
        self._watchers: set[Callable[[], None]] = set()

    @property
    def counts(self) -> bool:
        return not self.over and (self._expires_at is None or now() < self._expires_at)

    def end(self) -> None:
        """The credential does not count any more: whatever it opened ends."""
        self.over = True
        for watcher in list(self._watchers):
            watcher()

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Generator[None]:
        """Have ``watcher`` called when the credential does not count any more."""
        self._watchers.add(watcher)
        try:
            if not self.counts:
                watcher()
            yield
        finally:
            self._watchers.discard(watcher)


def credential_of(request: web.Request) -> str | None:
    """The one credential that a request carries, in whichever of the five ways.

    ``?token=`` counts where nothing is changed (streams and sockets are GETs): a
    browser cannot send headers there, while a link that writes would be a trap.

    Raises:
        Unauthorized: it carries several, so whose request it is cannot be told.
    """
    sent = {value for name in _HEADERS for value in request.headers.getall(name, ())}
    for value in request.headers.getall("Authorization", ()):
        scheme, _, rest = value.strip().partition(" ")
        if scheme.lower() in _SCHEMES:
            sent.add(rest)
    if request.method == "GET":
        sent |= set(request.query.getall("token", ()))
    found = {value.strip() for value in sent} - {""}
    if len(found) > 1:
        raise Unauthorized("There are several credentials in this request; send one.")
    credential = found.pop() if found else None
    if credential is not None and len(credential) > LONGEST:
        raise not_known()
    return credential


def not_known() -> Unauthorized:
    return Unauthorized("This token is not known, or does not count any more.")


def missing_token() -> Unauthorized:
    return Unauthorized("A token is needed; send it as `Authorization: Bearer …`.")


async def answer_while_it_counts(
    request: web.Request, user: User, handler: Handler
) -> web.StreamResponse:
    """The handler's answer, unless the user's credential ends before it does.

    Raises:
        Unauthorized: it ended, and nothing was answered yet.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    cancelled = False

    def end() -> None:
        nonlocal cancelled
        if ENDING in request:
            request[ENDING]()
        elif user.token_id is not None:  # else it came just before the first token was made
            cancelled = True
            task.cancel()

    try:
        with user.watched(end):
            return await handler(request)
    except asyncio.CancelledError:
        if not cancelled or task.uncancel():
            raise  # the client went away, or the gateway stops
        raise not_known() from None
