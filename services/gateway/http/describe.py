"""What a route takes and answers, declared beside it: what ``/api/openapi.json`` is made of.

    @describe(query=wire.SessionsQuery, answers={200: wire.SessionPage})
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

from services.gateway.context import Handler
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
    replay: Handler | None = None


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
    replay: Handler | None = None,
) -> Callable[[H], H]:
    """Describe a handler where it stands; it stays the same function.

    ``answers`` says what a success looks like, by status.  ``query`` is the struct
    that :func:`services.gateway.http.requests.read_query` reads, ``body`` the one that the
    body is decoded into, or a :class:`Form` or :class:`JsonOrForm`.  ``errors`` are
    those beyond what any route has (:data:`EVERYWHERE`), any path with an id (not
    found) and any body (too large).  ``public`` routes need no credential.  ``tag``
    groups the route; the dialect of its path does otherwise.  ``names`` explains what
    stands in the path where it is no id.  ``replay`` answers instead where the query
    names a recording (:mod:`services.gateway.replay.requests`).
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
        replay=replay,
    )

    def remember(handler: H) -> H:
        _DESCRIBED[handler] = description
        return handler

    return remember


@dataclass(frozen=True, kw_only=True)
class SocketDescription:
    """What stands in :func:`describe_socket`."""

    receives: tuple[type, ...]
    sends: tuple[type, ...]
    query: type | None = None
    replay: Handler | None = None


_SOCKETS: dict[Callable[..., Any], SocketDescription] = {}


def describe_socket(
    *,
    receives: Any,
    sends: Iterable[type],
    query: type | None = None,
    replay: Handler | None = None,
) -> Callable[[H], H]:
    """Describe the messages of a socket, in both directions: structs with a ``type``.

    ``receives`` is what the handler decodes: a union of the client's messages, or one
    of them alone.  ``query`` and ``replay`` are as for :func:`describe`.
    """
    description = SocketDescription(
        receives=get_args(receives) or (receives,), sends=tuple(sends), query=query, replay=replay
    )

    def remember(handler: H) -> H:
        _SOCKETS[handler] = description
        return handler

    return remember


def socket_description_of(route: web.RouteDef) -> SocketDescription | None:
    return _SOCKETS.get(route.handler)


def replay_of(route: web.RouteDef) -> Handler | None:
    """What answers the route's requests for a recording; None where it shows none."""
    description = description_of(route) or socket_description_of(route)
    return None if description is None else description.replay


def description_of(route: web.RouteDef) -> Description | None:
    """The description of a route's handler; the health routes are every service's."""
    handler = getattr(route.handler, "__func__", route.handler)
    return _DESCRIBED.get(handler) or HEALTH.get(route.path)
