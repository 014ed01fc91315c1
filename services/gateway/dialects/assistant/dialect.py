"""The native API, ``/api/v1/chat``: its parts, each in a module of its own (docs/api.md)."""

from aiohttp import web

from services.gateway.dialects.assistant import (
    events,
    exports,
    files,
    messages,
    replay,
    runs,
    sessions,
    socket,
    usage,
    wire,
)
from services.gateway.dialects.base import Dialect
from services.gateway.errors import Envelope

_PARTS = (sessions, messages, runs, files, exports, events, usage)


def http() -> list[web.RouteDef]:
    return [route for part in _PARTS for route in part.routes()]


ASSISTANT = Dialect(
    name="assistant",
    summary="The native API: sessions, messages, runs, streams.",
    prefixes=(wire.PREFIX,),
    envelope=Envelope(wire.problem, wire.Problem),
    http=http,
    sockets=socket.routes,
    recordings={"assistant": replay.STREAM, "assistant-socket": replay.SOCKET},
)
