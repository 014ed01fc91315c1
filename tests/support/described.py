"""All routes of a gateway without a gateway, for the tests of its descriptions."""

from typing import Any

from services.gateway.app import over_http
from services.gateway.reference import Reference
from shared.lifecycle import Life


def reference() -> Reference:
    bus: Any = None
    return Reference([*Life("gateway", bus, grace=0).health_routes(), *over_http()])
