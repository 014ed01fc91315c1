"""What the native API's requests have in common: how they are read, and how they are answered."""

from aiohttp import web

from services.gateway.asking import MOST, an_id, number
from services.gateway.dialects import assistant as words
from shared.errors import InvalidRequest
from shared.ids import new_id

KEY_LENGTH = 255
"""Characters of an idempotency key."""


def session_id_of(request: web.Request) -> str:
    return an_id(request.match_info["session_id"], "session")


def message_id_of(request: web.Request) -> str:
    return an_id(request.match_info["message_id"], "message")


def idempotency_key(request: web.Request) -> str:
    """The client's key, or one of our own, which makes our own second try harmless.

    Raises:
        InvalidRequest: it is longer than a key may be.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and len(key) > KEY_LENGTH:
        sentence = f"An idempotency key may have {KEY_LENGTH} characters."
        raise InvalidRequest(sentence, path="$.Idempotency-Key")
    return key or new_id()


def wants_stream(request: web.Request) -> bool:
    asked = request.query.get("stream", "").lower() in ("true", "1")
    return asked or "text/event-stream" in request.headers.get("Accept", "")


def window(request: web.Request) -> tuple[int, int]:
    """Limit and offset, from ``limit`` or from ``page`` and ``page_size``."""
    if "page" in request.query or "page_size" in request.query:
        limit = min(number(request, "page_size", 50), MOST)
        return limit, (number(request, "page", 1) - 1) * limit
    return min(number(request, "limit", 50), MOST), 0


def numbered_window(request: web.Request) -> tuple[int, int]:
    """The same where a cursor is the number of the entry with which the page begins."""
    limit, offset = window(request)
    return limit, number(request, "cursor", 0, least=0) if "cursor" in request.query else offset


def numbered_page(items: list[object], offset: int, total: int) -> words.Page:
    """A page of which the next one begins where this one ends."""
    after = offset + len(items)
    more = bool(items) and after < total
    return words.Page(items=items, next_cursor=str(after) if more else None, total=total)


def searched(request: web.Request) -> str | None:
    """What is searched for; None when nothing is.

    Raises:
        InvalidRequest: there is something in it that no text has.
    """
    text = request.query.get("q")
    if text is not None and "\0" in text:
        raise InvalidRequest("A NUL is in no text, so it cannot be searched for.", path="$.q")
    return text or None


def answer(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=words.encode(body), status=status, content_type="application/json")
