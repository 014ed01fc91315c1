"""Django REST framework's manners over HTTP: reading bodies and pages, answering OPTIONS."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from services.gateway.context import gateway_of
from services.gateway.dialects.channels import drf
from services.gateway.dialects.channels.drf import Fields, PageQuery
from services.gateway.http.describe import JsonOrForm, description_of
from services.gateway.http.json_schema import plain
from services.gateway.http.requests import decode_json, read_bytes
from services.gateway.http.uploads import MALFORMED
from shared.errors import InvalidRequest, NotFound, UnsupportedMediaType

T = TypeVar("T", bound=msgspec.Struct)

_HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# -- bodies -----------------------------------------------------------------------


async def read_fields(request: web.Request, fields: Fields[T]) -> T:
    """The request's body, be it JSON or a form; an empty body has no field.

    Raises:
        TooLarge: it is longer than a body may be.
        UnsupportedMediaType: it is something else.
        InvalidRequest: it is not what it says, or some fields do not fit.
    """
    kind = request.content_type if "Content-Type" in request.headers else "application/json"
    if not request.can_read_body:
        return fields.read({})
    if kind == "multipart/form-data":
        return fields.read(await _multipart(request), form=True)
    data = await read_bytes(request)
    # What is a form by its header alone, as curl makes it of any data, has no brace.
    if kind == "application/x-www-form-urlencoded" and not data.lstrip().startswith(b"{"):
        return fields.read(_urlencoded(data), form=True)
    if kind not in drf.PARSES and not kind.endswith("+json"):
        raise UnsupportedMediaType(f'Unsupported media type "{kind}" in request.')
    return fields.read(decode_json(data or b"{}", _decode))


def _urlencoded(data: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise InvalidRequest("The form is no valid UTF-8.") from error


async def _multipart(request: web.Request) -> dict[str, Any]:
    try:
        return dict(await request.post())
    except MALFORMED as error:
        raise InvalidRequest("The form is broken off or malformed.") from error


# -- pages ------------------------------------------------------------------------


class Listed(Protocol):
    """A part of a list, and how long all of it is."""

    @property
    def items(self) -> list[Any]: ...
    @property
    def total(self) -> int: ...


async def page(
    request: web.Request,
    query: PageQuery,
    read: Callable[[int, int], Awaitable[Listed]],
    view: Callable[[Any], object],
) -> web.Response:
    """The page that is asked for, of the list that ``read`` gives by limit and offset.

    Raises:
        NotFound: there is no such page.
    """
    size = query.size
    number = await _number(query, read)
    found = await read(size, (number - 1) * size)
    if number > 1 and not found.items:
        raise NotFound("Invalid page.")
    linked = dict(request.query)
    linked.pop("token", None)
    results = [view(item) for item in found.items]
    shown = drf.page_view(
        results, count=found.total, number=number, size=size, url=_url(request), query=linked
    )
    return json(shown)


async def _number(query: PageQuery, read: Callable[[int, int], Awaitable[Listed]]) -> int:
    if query.page == "last":
        return max(1, -(-(await read(0, 0)).total // query.size))
    number = drf.number(query.page or "1")
    if number is None:
        raise NotFound("Invalid page.")
    return number


def _url(request: web.Request) -> str:
    """The URL of the request, as the client sees it."""
    scheme, host = request.scheme, request.host
    if gateway_of(request).settings.behind_proxy:
        sent = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
        scheme = sent if sent in ("http", "https") else scheme
        sent = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
        host = sent if _HOST.fullmatch(sent) else host
    return f"{scheme}://{host}{request.rel_url.raw_path}"


# -- answers ----------------------------------------------------------------------


def json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json")


# -- what a path is ---------------------------------------------------------------


def options(routes: list[web.RouteDef], prefix: str) -> list[web.RouteDef]:
    """For each path below ``prefix`` one more route, which says what may be done there."""
    paths: dict[str, list[web.RouteDef]] = {}
    for route in routes:
        if route.path.startswith(f"{prefix}/"):
            paths.setdefault(route.path, []).append(route)
    return [
        web.options(path, _describe(_name(path.removeprefix(prefix)), by_method))
        for path, by_method in paths.items()
    ]


def _describe(
    name: str, routes: list[web.RouteDef]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    methods = [route.method for route in routes]
    bodies = {
        route.method: description.body.shape
        for route in routes
        if (description := description_of(route)) and isinstance(description.body, JsonOrForm)
    }
    sendable = {method: bodies[method] for method in ("POST", "PUT") if method in bodies}
    summary = plain(routes[0].handler.__doc__ or "").partition("\n\n")[0]
    body = drf.metadata(name, summary, sendable)
    allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])

    async def describe(request: web.Request) -> web.Response:
        del request
        answer = json(body)
        answer.headers["Allow"] = allowed
        return answer

    return describe


def _name(path: str) -> str:
    """``Session List``, ``Session Instance``, ``Send Message``: as a view would be called."""
    parts = path.strip("/").split("/")
    if parts[-1].startswith("{"):
        return f"{parts[-2].removesuffix('s').title()} Instance"
    if len(parts) == 1:
        return f"{parts[0].removesuffix('s').title()} List"
    return parts[-1].replace("_", " ").title()
