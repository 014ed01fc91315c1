"""The gateway's web application: its routes, and what happens around each request."""

import time
from collections.abc import Iterable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from services.gateway import origins
from services.gateway.auth import authenticate
from services.gateway.context import GATEWAY, REQUEST_ID, RUN_ID, USER, Gateway
from services.gateway.dialects import (
    assistant,
    assistant_http,
    assistant_socket,
    channels,
    channels_http,
    channels_models_http,
    channels_socket,
    content,
    content_http,
    content_socket,
    documents,
    documents_http,
    documents_socket,
    drf_http,
    interview,
    interview_http,
)
from services.gateway.origins import Origins
from services.gateway.reference import Reference
from services.gateway.refusals import answer_of, error_of
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

_QUIET = frozenset(("/livez", "/readyz", "/metrics"))
_SECRET = ("token", "q")
_EXACT = frozenset((interview.GENERATE,))
"""Where the trailing slash makes a difference: without it the path is Ollama's own."""


def make_app(gateway: Gateway, health: Iterable[web.RouteDef] = ()) -> web.Application:
    """Everything the gateway answers; each path with and without its trailing slash."""
    app = web.Application(middlewares=[_Around(gateway)], client_max_size=gateway.settings.max_body)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(_finish_headers)
    answered = over_http()
    reference = Reference([*health, *answered, *sockets()])
    app.add_routes([web.get("/", welcome)])
    options = drf_http.options(answered, channels.PREFIX)
    for route in [*health, *reference.routes(), *answered, *options, *sockets()]:
        app.add_routes([route] if route.path.rstrip("/") in _EXACT else [route, _with_slash(route)])
    return app


def over_http() -> list[web.RouteDef]:
    """The routes of every dialect, each described beside its handler."""
    dialects = (
        *(assistant_http, channels_http, channels_models_http),
        *(documents_http, content_http, interview_http),
    )
    return [route for dialect in dialects for route in dialect.routes()]


def sockets() -> list[web.RouteDef]:
    """The sockets of every dialect."""
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
    return web.Response(
        body=assistant.encode({"name": "natterlog", "api": assistant.PREFIX, "health": "/readyz"}),
        content_type="application/json",
    )


class _Around:
    """What happens around each request: origin, credential, errors, one line in the log."""

    __middleware_version__ = 1  # how aiohttp tells a middleware of today's form

    def __init__(self, gateway: Gateway) -> None:
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
            self._origins.check(request)
            if origins.is_preflight(request):
                return origins.preflight()
            request[USER] = authenticate(request)
            return await handler(request)
        except Exception as raised:  # noqa: BLE001  (every failure has an answer in the dialect's envelope)
            return answer_of(request, error_of(raised), raised)


def _redacted(request: web.Request) -> str:
    """The path for the log; a token, or words that are searched for, stay out of it."""
    secret = {name: "-" for name in _SECRET if name in request.query}
    return str(request.rel_url.update_query(secret)) if secret else request.path_qs


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    if RUN_ID in request:
        response.headers["X-Run-Id"] = request[RUN_ID]
    origins.allow(request, response)
