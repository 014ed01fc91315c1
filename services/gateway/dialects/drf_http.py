"""Django REST framework's manners over HTTP: reading bodies and pages, answering OPTIONS."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from services.gateway.asking import MOST, decode_json, read_bytes
from services.gateway.context import gateway_of
from services.gateway.dialects import drf
from services.gateway.dialects.drf import Fields
from services.gateway.uploads import MALFORMED
from shared.errors import InvalidRequest, NotFound, UnsupportedMediaType

T = TypeVar("T", bound=msgspec.Struct)
Bodies = Mapping[Callable[..., Any], Fields[Any]]
"""What may be sent to each handler."""

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
    ask: Callable[[int, int], Awaitable[Listed]],
    view: Callable[[Any], object],
) -> web.Response:
    """The page that the request names, of the list that ``ask`` knows by limit and offset.

    Raises:
        NotFound: there is no such page.
    """
    size = _size(request)
    number = await _number(request, ask, size)
    found = await ask(size, (number - 1) * size)
    if number > 1 and not found.items:
        raise NotFound("Invalid page.")
    query = dict(request.query)
    query.pop("token", None)
    results = [view(item) for item in found.items]
    shown = drf.page_view(
        results, count=found.total, number=number, size=size, url=_url(request), query=query
    )
    return json(shown)


def _size(request: web.Request) -> int:
    """How much is on a page; what is no such number counts for nothing."""
    asked = request.query.get("page_size", "")
    return min(int(asked), MOST) if _is_number(asked) else drf.PAGE_SIZE


async def _number(
    request: web.Request, ask: Callable[[int, int], Awaitable[Listed]], size: int
) -> int:
    text = request.query.get("page", "1")
    if text == "last":
        return max(1, -(-(await ask(0, 0)).total // size))
    if not _is_number(text):
        raise NotFound("Invalid page.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def _url(request: web.Request) -> str:
    """Where the client asked, as it sees it itself."""
    scheme, host = request.scheme, request.host
    if gateway_of(request).settings.behind_proxy:
        told = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
        scheme = told if told in ("http", "https") else scheme
        told = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
        host = told if _HOST.fullmatch(told) else host
    return f"{scheme}://{host}{request.rel_url.raw_path}"


# -- answers ----------------------------------------------------------------------


def json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json")


def with_options(routes: list[web.RouteDef], bodies: Bodies, *, prefix: str) -> list[web.RouteDef]:
    """The routes, and for each of their paths one that says what may be done there."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route.handler
    describing = [
        web.options(path, _describe(_name(path.removeprefix(prefix)), handlers, bodies))
        for path, handlers in paths.items()
    ]
    return [*routes, *describing]


def _describe(
    name: str, handlers: dict[str, Any], bodies: Bodies
) -> Callable[[web.Request], Awaitable[web.Response]]:
    actions = {m: bodies[h] for m, h in handlers.items() if m in ("POST", "PUT") and h in bodies}
    told = (handler.__doc__ for handler in handlers.values() if handler.__doc__)
    body = drf.metadata(name, next(told, "").partition("\n")[0], actions)
    further = ["HEAD", "OPTIONS"] if "GET" in handlers else ["OPTIONS"]
    allowed = ", ".join([*handlers, *further])

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
