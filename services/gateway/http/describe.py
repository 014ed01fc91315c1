"""What a route takes and answers, told beside it: what ``/api/openapi.json`` is made of.

    @describe(query=ListSessions, answers={200: words.Page[words.SessionView]})
    async def list_sessions(request: web.Request) -> web.Response:
        \"""The list, last written to first.\"""

The first line of the handler's docstring is the summary, what follows is the
description.  The structs are those that the handler decodes and encodes, and no
schema is written a second time.  A description costs a request nothing: it is read
once, by ``openapi.py`` and, for who needs no credential, by ``app.py``.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec
from aiohttp import web

from shared import errors
from shared.errors import NatterlogError
from shared.lifecycle import Alive, Readiness

H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])
Errors = tuple[type[NatterlogError], ...]

EVERYWHERE: Errors = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.Internal,
    errors.Unavailable,
)
"""What any route may answer, whatever it does."""
REPLYING: Errors = (
    errors.NotFound,
    errors.Conflict,
    errors.KeyReused,
    errors.TooLarge,
    errors.RateLimited,
    errors.ModelNotFound,
    errors.ProviderFailed,
    errors.Timeout,
    errors.Cancelled,
)
"""What a route may answer besides that starts a reply and waits for it."""


# -- bodies that are not one JSON value -----------------------------------------------


class Form(NamedTuple):
    """A request's ``multipart/form-data``; the struct's fields are the form's."""

    shape: type


class JsonOrForm(NamedTuple):
    """A request's JSON, or the same fields as a form of either kind."""

    shape: type[msgspec.Struct]


class Events(NamedTuple):
    """An answer of server-sent events; the data of each is one of ``shape``.

    Structs without tags, which no union may hold, come as a tuple.
    """

    shape: Any
    named: bool = False
    """Whether each has an ``event:`` line with its type."""


class Lines(NamedTuple):
    """An answer of JSON lines (NDJSON), each one of ``shape``."""

    shape: Any


class Content(NamedTuple):
    """An answer of another media type: a file, a page, a table of numbers."""

    media_type: str
    binary: bool = False


Answer = Any
"""A struct (or another type that msgspec knows) as JSON, one of the above, several of them in a
tuple, or None for an empty body."""


# -- headers --------------------------------------------------------------------------


class Header(NamedTuple):
    """A header that a request may have."""

    name: str
    meaning: str


IDEMPOTENCY_KEY = Header(
    "Idempotency-Key", "Makes it safe to ask again: the same key with the same body is one turn."
)
LAST_EVENT_ID = Header("Last-Event-ID", "The last `id:` that was read; what is missing follows.")


# -- descriptions ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Description:
    """What stands in :func:`describe`."""

    answers: Mapping[int, Answer]
    query: type | None = None
    body: Any = None
    headers: tuple[Header, ...] = ()
    errors: Errors = ()
    public: bool = False
    tag: str | None = None
    names: Mapping[str, str] = field(default_factory=dict[str, str])


HEALTH = {
    "/livez": Description(answers={200: Alive}, public=True, tag="gateway"),
    "/readyz": Description(answers={200: Readiness, 503: Readiness}, public=True, tag="gateway"),
    "/metrics": Description(answers={200: Content("text/plain")}, public=True, tag="gateway"),
}
_DESCRIBED: dict[Callable[..., Any], Description] = {}


def describe(
    *,
    answers: Mapping[int, Answer],
    query: type | None = None,
    body: Any = None,
    headers: tuple[Header, ...] = (),
    errors: Errors = (),
    public: bool = False,
    tag: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Callable[[H], H]:
    """Tell of a handler what cannot be seen from outside; it stays the same function.

    ``answers`` says what a success looks like, by status.  ``query`` is the struct
    that :func:`services.gateway.http.requests.read_query` reads, ``body`` the one that the
    body is decoded into, or a :class:`Form` or :class:`JsonOrForm`.  ``errors`` are
    those beyond what any route has (:data:`EVERYWHERE`), any path with an id (not
    found) and any body (too large).  ``public`` routes need no credential.  ``tag``
    groups the route; the dialect of its path does otherwise.  ``names`` explains what
    stands in the path where it is no id.
    """
    description = Description(
        answers=answers,
        query=query,
        body=body,
        headers=headers,
        errors=errors,
        public=public,
        tag=tag,
        names=names or {},
    )

    def remember(handler: H) -> H:
        _DESCRIBED[handler] = description
        return handler

    return remember


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What stands in :func:`describe_socket`."""

    asks: tuple[type, ...]
    tells: tuple[type, ...]
    query: type | None = None


_CONVERSATIONS: dict[Callable[..., Any], Conversation] = {}


def describe_socket(
    *, asks: Any, tells: Iterable[type], query: type | None = None
) -> Callable[[H], H]:
    """Tell of a socket's handler what both sides may say: structs with a ``type``.

    ``asks`` is what the handler decodes: a union of the client's messages, or one of
    them alone.
    """
    conversation = Conversation(asks=get_args(asks) or (asks,), tells=tuple(tells), query=query)

    def remember(handler: H) -> H:
        _CONVERSATIONS[handler] = conversation
        return handler

    return remember


def conversation_of(route: web.RouteDef) -> Conversation | None:
    return _CONVERSATIONS.get(route.handler)


def description_of(route: web.RouteDef) -> Description | None:
    """What was told of a route's handler; the health routes are every service's."""
    handler = getattr(route.handler, "__func__", route.handler)
    return _DESCRIBED.get(handler) or HEALTH.get(route.path)
