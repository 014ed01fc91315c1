"""The gateway's web application: its routes, and what happens around each request."""

import re
import time
from collections.abc import Iterable, Iterator

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from services.gateway.access import origins
from services.gateway.access.auth import answer_while_it_counts, credential_of
from services.gateway.access.origins import Origins
from services.gateway.context import GATEWAY, RATE, REQUEST_ID, RUN_ID, USER, Gateway
from services.gateway.dialects.registry import NATIVE, dialect_of, options, over_http, over_sockets
from services.gateway.errors import response_for, to_natterlog_error
from services.gateway.http import websocket as sockets
from services.gateway.http.describe import description_of
from services.gateway.metrics import count_request
from services.gateway.reference.routes import Reference
from services.gateway.replay.requests import or_replayed
from shared.errors import NatterlogError
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

_QUIET = frozenset(("/livez", "/readyz", "/metrics"))
_SHOWN = frozenset(
    (
        *("limit", "cursor", "page", "page_size", "order", "stream", "status", "mode"),
        *("include_inactive", "format", "group_by", "from", "follow"),
    )
)
"""Parameters of a query that the log may show: any other may be a credential, or people's text."""
_PLAIN = re.compile(r"[0-9]{0,15}|[a-z_]{1,12}")


def make_app(gateway: Gateway, health: Iterable[web.RouteDef] = ()) -> web.Application:
    """The web application: every route, with and without its trailing slash."""
    described = [*health, *over_http(), *over_sockets()]
    routes = [*described, *Reference(described).routes(), *options()]
    around = RequestMiddleware(
        gateway, public=[welcome, *(r.handler for r in routes if _is_public(r))]
    )
    app = web.Application(middlewares=[around], client_max_size=gateway.settings.max_body)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(_finish_headers)
    app.add_routes([web.get("/", welcome)])
    app.add_routes(or_replayed(route) for route in _with_and_without_slash(routes))
    return app


def _is_public(route: web.RouteDef) -> bool:
    """Whether a route needs no credential, because its description says so."""
    description = description_of(route)
    return description is not None and description.public


def _with_and_without_slash(routes: list[web.RouteDef]) -> Iterator[web.RouteDef]:
    declared = {(route.method, route.path) for route in routes}
    for route in routes:
        yield route
        path = route.path.rstrip("/") if route.path.endswith("/") else f"{route.path}/"
        if (route.method, path) not in declared:
            yield web.RouteDef(route.method, path, route.handler, route.kwargs)


async def welcome(request: web.Request) -> web.Response:
    del request
    about = {
        "name": "natterlog",
        "api": NATIVE.prefixes[0],
        "docs": "/docs",
        "health": "/readyz",
    }
    return web.Response(body=msgspec.json.encode(about), content_type="application/json")


class RequestMiddleware:
    """What happens around each request: origin, credential, errors, one line in the log."""

    __middleware_version__ = 1  # how aiohttp tells a middleware of today's form

    def __init__(self, gateway: Gateway, *, public: Iterable[object]) -> None:
        self._gateway = gateway
        self._public = frozenset(public)
        """The handlers whose answers are for everybody."""
        self._origins = Origins(gateway.settings)

    async def __call__(self, request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        request[REQUEST_ID] = new_id()
        started = time.monotonic()
        # What counts when the client goes away before there is an answer, as sockets' do.
        status = 101 if request.headers.get("Upgrade", "").lower() == "websocket" else 499
        with structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]):
            try:
                response = await self._answer(request, handler)
                status = response.status
                return response
            finally:
                if request.path.rstrip("/") not in _QUIET:
                    count_request(request, status)
                    log.info(
                        "gateway.request",
                        method=request.method,
                        path=_redacted(request),
                        status=status,
                        run_id=request.get(RUN_ID),
                        ms=round((time.monotonic() - started) * 1000),
                    )

    async def _answer(self, request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        try:
            self._origins.check(request, named=self._gateway.accounts.needed)
            if origins.is_preflight(request):
                return origins.preflight()
            if request.match_info.handler in self._public:
                return await handler(request)
            return await self._authenticated(request, handler)
        except Exception as raised:  # noqa: BLE001  (every failure has an answer in the dialect's envelope)
            envelope = dialect_of(request.path).envelope
            return response_for(envelope, request, to_natterlog_error(raised), raised)

    async def _authenticated(
        self, request: web.Request, handler: AiohttpHandler
    ) -> web.StreamResponse:
        try:
            user = await self._gateway.accounts.user_of(credential_of(request))
        except NatterlogError as error:
            if sockets.is_handshake(request):
                return await sockets.refuse(request, error)
            raise
        request[USER] = user
        return await answer_while_it_counts(request, user, handler)


def _redacted(request: web.Request) -> str:
    """The path for the log, with those parameters that say nothing about anybody."""
    shown = [
        f"{name}={value}"
        for name, value in request.query.items()
        if name in _SHOWN and _PLAIN.fullmatch(value)
    ]
    hidden = ["…"] if len(shown) < len(request.query) else []
    query = "&".join([*shown, *hidden])
    return f"{request.path}?{query}" if query else request.path


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    if RUN_ID in request:
        response.headers["X-Run-Id"] = request[RUN_ID]
    if RATE in request:
        response.headers.update(request[RATE].headers())
    origins.allow(request, response)
