"""All routes of a gateway without a gateway, for the tests of its descriptions."""

from typing import Any

from aiohttp import web

from services.gateway.dialects.registry import over_http, over_sockets
from services.gateway.reference.routes import Reference
from shared.lifecycle import Life


def every_route() -> list[web.RouteDef]:
    bus: Any = None
    health = Life("gateway", bus, grace=0).health_routes()
    return [*health, *over_http(), *over_sockets(), *Reference(()).routes()]
