"""The native API over HTTP, ``/api/v1/chat``: its parts, each in a module of its own."""

from aiohttp import web

from services.gateway.dialects import (
    assistant_events,
    assistant_exports,
    assistant_files,
    assistant_messages,
    assistant_runs,
    assistant_sessions,
    assistant_usage,
)


def routes() -> list[web.RouteDef]:
    parts = (
        assistant_sessions,
        assistant_messages,
        assistant_runs,
        assistant_files,
        assistant_exports,
        assistant_events,
        assistant_usage,
    )
    return [route for part in parts for route in part.routes()]
