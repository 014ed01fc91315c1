"""What a gateway counts about itself, at a microsecond a request."""

from aiohttp import web
from prometheus_client import Counter, Gauge

CONNECTIONS = Gauge("natterlog_connections", "Open streams and sockets", ["kind"])
FEEDS = Gauge("natterlog_feeds", "Sessions that are being followed")

_requests = Counter("natterlog_requests", "Requests by dialect and status", ["dialect", "status"])
_DIALECTS = "services.gateway.dialects."


def count_request(request: web.Request, status: int) -> None:
    """A request was answered; 101 is a socket, 499 a client that went away first."""
    _requests.labels(dialect_of(request), status).inc()


def dialect_of(request: web.Request) -> str:
    """Whose route it is, by its handler's module; ``none`` where there is no route."""
    module: str = getattr(request.match_info.handler, "__module__", "")
    if not module.startswith(_DIALECTS):
        return "none"
    return module.removeprefix(_DIALECTS).partition(".")[0]
