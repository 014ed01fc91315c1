"""The Channels front ends: ``/ai-chat/api`` and ``/ws/ai-chat`` (docs/api.md)."""

from aiohttp import web

from services.gateway.dialects.base import Dialect
from services.gateway.dialects.channels import (
    drf_http,
    models_http,
    presets_http,
    replay,
    sessions_http,
    socket,
    wire,
)
from services.gateway.errors import Envelope


def http() -> list[web.RouteDef]:
    return [*sessions_http.routes(), *presets_http.routes(), *models_http.routes()]


def options() -> list[web.RouteDef]:
    return drf_http.options(http(), wire.PREFIX)


CHANNELS = Dialect(
    name="channels",
    summary="Sessions, messages and presets in the manner of Django REST framework.",
    prefixes=(wire.PREFIX, wire.SOCKETS),
    envelope=Envelope(wire.detail, wire.Detail, wire.FieldErrors, wire.status_of),
    http=http,
    sockets=socket.routes,
    options=options,
    reactions=dict.fromkeys(socket.CHANGES, socket.ListedSessions.on_fact),
    recordings={"channels": replay.SESSION},
)
