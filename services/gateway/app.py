"""The gateway's web application: its routes, and what happens around each request."""

import re
import time
from collections.abc import Iterable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from services.gateway.access import origins
from services.gateway.access.auth import answer_while_it_counts, credential_of
from services.gateway.access.origins import Origins
from services.gateway.context import GATEWAY, RATE, REQUEST_ID, RUN_ID, USER, Gateway
from services.gateway.dialects.assistant import routes as assistant_http
from services.gateway.dialects.assistant import socket as assistant_socket
from services.gateway.dialects.assistant import wire as assistant
from services.gateway.dialects.channels import drf_http
from services.gateway.dialects.channels import models_http as channels_models_http
from services.gateway.dialects.channels import sessions_http as channels_http
from services.gateway.dialects.channels import socket as channels_socket
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.content import http as content_http
from services.gateway.dialects.content import socket as content_socket
from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import http as documents_http
from services.gateway.dialects.documents import socket as documents_socket
from services.gateway.dialects.documents import wire as documents
from services.gateway.dialects.interview import http as interview_http
from services.gateway.dialects.interview import wire as interview
from services.gateway.errors import response_for, to_natterlog_error
from services.gateway.http import websocket as sockets
from services.gateway.http.describe import description_of
from services.gateway.metrics import count_request
from services.gateway.reference.routes import Reference
from services.gateway.replay.routes import or_replayed
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
"""Parameters of a query that the log may show: any other may be a credential, or people's words."""
_PLAIN = re.compile(r"[0-9]{0,15}|[a-z_]{1,12}")
_EXACT = frozenset((interview.GENERATE,))
"""Where the trailing slash makes a difference: without it the path is Ollama's own."""


def make_app(gateway: Gateway, health: Iterable[web.RouteDef] = ()) -> web.Application:
    """Everything the gateway answers; each path with and without its trailing slash."""
    answered = over_http()
    reference = Reference([*health, *answered, *over_sockets()])
    options = drf_http.options(answered, channels.PREFIX)
    routes = [*health, *reference.routes(), *answered, *options, *over_sockets()]
    around = RequestMiddleware(
        gateway, public=[welcome, *(r.handler for r in routes if _is_public(r))]
    )
    app = web.Application(middlewares=[around], client_max_size=gateway.settings.max_body)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(_finish_headers)
    app.add_routes([web.get("/", welcome)])
    for route in map(or_replayed, routes):
        exact = route.path.rstrip("/") in _EXACT
        app.add_routes([route] if exact else [route, _with_slash(route)])
    return app


def _is_public(route: web.RouteDef) -> bool:
    """Whether its description says that it needs no credential; without one it needs one."""
    description = description_of(route)
    return description is not None and description.public


def over_http() -> list[web.RouteDef]:
    """The routes of every dialect, each described beside its handler."""
    dialects = (
        *(assistant_http, channels_http, channels_models_http),
        *(documents_http, content_http, interview_http),
    )
    return [route for dialect in dialects for route in dialect.routes()]


def over_sockets() -> list[web.RouteDef]:
    """The WebSockets of every dialect."""
    return [
        web.get(f"{assistant.PREFIX}/ws", assistant_socket.socket, allow_head=False),
        web.get(channels.SESSION_SOCKET, channels_socket.session_socket, allow_head=False),
        web.get(channels.LIST_SOCKET, channels_socket.list_socket, allow_head=False),
        web.get(documents.SOCKET, documents_socket.socket, allow_head=False),
        web.get(content.SOCKET, content_socket.socket, allow_head=False),
    ]


def _with_slash(route: web.RouteDef) -> web.RouteDef:
    path = route.path.rstrip("/") if route.path.endswith("/") else f"{route.path}/"
    return web.RouteDef(route.method, path, route.handler, route.kwargs)


async def welcome(request: web.Request) -> web.Response:
    del request
    about = {
        "name": "natterlog",
        "api": assistant.PREFIX,
        "docs": "/docs",
        "health": "/readyz",
    }
    return web.Response(body=assistant.encode(about), content_type="application/json")


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
            return response_for(request, to_natterlog_error(raised), raised)

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
    asked = "&".join([*shown, *hidden])
    return f"{request.path}?{asked}" if asked else request.path


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    if RUN_ID in request:
        response.headers["X-Run-Id"] = request[RUN_ID]
    if RATE in request:
        response.headers.update(request[RATE].headers())
    origins.allow(request, response)
