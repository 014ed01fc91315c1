"""Which web pages may talk to the gateway: one allow-list for CORS and WebSockets."""

from urllib.parse import urlsplit

from aiohttp import web

from shared.errors import Forbidden
from shared.settings import Settings

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))
_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS = (
    "Authorization, X-API-Token, X-Api-Key, Content-Type, Idempotency-Key, Last-Event-ID, "
    "X-Session-Id"
)
_ORIGIN: web.RequestKey[str] = web.RequestKey("origin", str)
_EXPOSED = ", ".join(
    (
        *("RateLimit", "RateLimit-Policy", "Retry-After", "X-Run-Id", "X-Request-Id"),
        *("X-Error-Code", "Content-Disposition", "WWW-Authenticate"),
    )
)
"""Headers of an answer that a page of another origin may read."""


class Origins:
    """The allow-list; without settings: the gateway itself, and any port of this machine."""

    def __init__(self, settings: Settings) -> None:
        self._listed = frozenset(origin.rstrip("/").lower() for origin in settings.origins)
        self._port = settings.port

    def check(self, request: web.Request, *, named: bool) -> None:
        """Let through what has no ``Origin`` (no browser), or one that is allowed.

        ``named``: everybody says who he is, by a credential that only his own pages know.

        Raises:
            Forbidden: another page's.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            return
        if not self._allows(origin, request.host, named):
            raise Forbidden("This origin is not allowed; NATTERLOG_ORIGINS lists those that are.")
        request[_ORIGIN] = origin

    def _allows(self, origin: str, host: str, named: bool) -> bool:
        if "*" in self._listed or origin.lower() in self._listed:
            return True
        try:
            parts = urlsplit(origin)
            hostname, port = parts.hostname, parts.port
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or hostname is None:
            return False
        # Where nobody needs a credential the Host header proves nothing: any page can
        # have a name that resolves to 127.0.0.1.
        if named and parts.netloc.lower() == host.lower():
            return True
        return hostname in _LOCAL and (not self._listed or port == self._port)


def is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight() -> web.Response:
    """Answer the preflight request that a browser sends before the request itself."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _HEADERS,
            "Access-Control-Max-Age": "600",
        },
    )


def allow(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the browser that the page may read this answer."""
    origin = request.get(_ORIGIN)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        response.headers["Vary"] = "Origin"
