"""What the native API's requests have in common: how they are read, and how they are answered."""

from aiohttp import web

from services.gateway.context import Gateway, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.http.requests import read_query, require_id
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
from shared.errors import InvalidRequest, NotFound

KEY_LENGTH = 255
"""Characters of an idempotency key."""


def session_id_of(request: web.Request) -> str:
    return require_id(request.match_info["session_id"], "session")


def message_id_of(request: web.Request) -> str:
    return require_id(request.match_info["message_id"], "message")


def idempotency_key(request: web.Request) -> str | None:
    """The client's key, if it sent one.

    Raises:
        InvalidRequest: it is longer than a key may be.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and len(key) > KEY_LENGTH:
        sentence = f"An idempotency key may have {KEY_LENGTH} characters."
        raise InvalidRequest(sentence, path="$.Idempotency-Key")
    return key or None


def wants_stream(request: web.Request) -> bool:
    """Whether a reply is to be streamed."""
    return read_query(request, wire.ReplyQuery).stream or accepts_events(request)


def accepts_events(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def check_searched(text: str) -> str | None:
    """The text that is searched for, if any.

    Raises:
        InvalidRequest: there is something in it that no text has.
    """
    if "\0" in text:
        raise InvalidRequest("A NUL is in no text, so it cannot be searched for.", path="$.q")
    return text or None


def as_of_seq(request: web.Request, text: str | None) -> int | None:
    """The last fact of the cursor as of which something is to be shown; None for now.

    Raises:
        NotFound: it is a cursor of another log.
    """
    if text is None:
        return None
    cursor = gateway_of(request).cursors.parse(text)
    if cursor is None:
        raise NotFound("This log has no such place: the cursor is another's.")
    return cursor.seq


async def known_cursor(
    gateway: Gateway, feed: Feed, text: str, *, run_id: str | None = None
) -> Cursor | None:
    """The cursor if a client (of one run) can go on from it; another gateway may know of more."""
    cursor = gateway.cursors.parse(text)
    if cursor is not None and cursor.seq > feed.state.seq:
        await feed.refilled()
    return cursor if cursor is not None and feed.state.has(cursor, run_id) else None


def next_cursor(offset: int, count: int, total: int) -> str | None:
    """The cursor of the next page, where cursors are numbers of entries."""
    after = offset + count
    return str(after) if count and after < total else None


def answer(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=wire.encode(body), status=status, content_type="application/json")
