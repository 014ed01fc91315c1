"""The native API over HTTP, ``/api/v1/chat``: its parts, each in a module of its own."""

from aiohttp import web

from services.gateway.dialects.assistant import events as assistant_events
from services.gateway.dialects.assistant import exports as assistant_exports
from services.gateway.dialects.assistant import files as assistant_files
from services.gateway.dialects.assistant import messages as assistant_messages
from services.gateway.dialects.assistant import runs as assistant_runs
from services.gateway.dialects.assistant import sessions as assistant_sessions
from services.gateway.dialects.assistant import usage as assistant_usage


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
