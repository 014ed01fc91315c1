"""Read what a client asks for: bodies, queries, ids; what is wrong is named by its path."""

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from services.gateway.http.choices import choices_at
from shared.errors import InvalidRequest, NotFound, TooLarge
from shared.errors import Timeout as TooSlow
from shared.ids import is_id

T = TypeVar("T")
Q = TypeVar("Q", bound=msgspec.Struct)

MOST = 200
"""Entries of one page at most."""
SLOWEST = 60.0
"""Seconds that a body may take to come; it is held in memory meanwhile."""
Count = Annotated[int, Meta(ge=1, le=10**15)]
"""A number of a query string that counts something, from 1."""
Natural = Annotated[int, Meta(ge=0, le=10**15)]
"""The same from 0."""
CURSOR = r"^[0-9a-f]{12}-[0-9]{1,19}-[0-9]{1,19}-[0-9]{1,19}$"
"""A cursor, as every stream gives them; what its parts mean is ``cursor.py``'s alone."""
SPEED = r"^(max|[1-9]\d{0,2}(\.\d{1,2})?|0\.\d?[1-9])$"
"""How fast a recording is to be shown."""
_EXPECTED = {
    CURSOR: "A cursor looks like 4e66adc88ecc-28-28-115",
    SPEED: "Expected max, or a number as 1, 10 or 0.5",
}
"""What is said of a text without the form that it must have."""
_PATH = re.compile(r" - at `(\$[^`]*)`$")
_NO_SUCH_TYPE = re.compile(r"Invalid value '(.*)'$", re.DOTALL)
_NO_SUCH_VALUE = re.compile(r"Invalid enum value ")
_MISSING = re.compile(r"missing required field `([^`]+)`")


async def read_body(request: web.Request, decode: Callable[[bytes], T]) -> T:
    """The request's JSON body; an empty body is an empty object.

    Raises:
        TooLarge: it says itself that it is longer than a body may be.
        TooSlow: as for :func:`read_bytes`.
        InvalidRequest: it is no JSON, or does not fit, or is not packed as it says.
    """
    return decode_json(await read_bytes(request) or b"{}", decode)


async def read_change(request: web.Request, decode: Callable[[bytes], Q], nothing: Q) -> Q:
    """What is to be changed; ``nothing`` is that of a body that says nothing.

    A body all of whose fields are unknown is a mistake: the answer to it would look like a success.

    Raises:
        InvalidRequest: so is this one, or as for :func:`read_body`.
    """
    data = await read_bytes(request) or b"{}"
    change = decode_json(data, decode)
    if change == nothing and (given := msgspec.json.decode(data, type=dict[str, msgspec.Raw])):
        known = ", ".join(nothing.__struct_encode_fields__)
        path = f"$.{next(iter(given))[:40]}"
        raise InvalidRequest(f"There is no such field; there are: {known}.", path=path)
    return change


async def read_bytes(request: web.Request) -> bytes:
    """The request's body as it is.

    Raises:
        TooLarge: it says itself that it is longer than a body may be.
        TooSlow: it is still not there after a while.
        InvalidRequest: it is not packed as it says.
    """
    if (request.content_length or 0) > request.client_max_size:
        raise TooLarge("The body is too large.")
    try:
        async with asyncio.timeout(SLOWEST):
            return await request.read()
    except TimeoutError as error:
        raise TooSlow(f"The body did not come within {SLOWEST:g} seconds.") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("The body cannot be read as its headers say.") from error


def decode_json(data: bytes | str, decode: Callable[[bytes], T], *, what: str = "body") -> T:
    """``data`` as JSON, with the place of a fault as ``$.options.temperature``.

    Raises:
        InvalidRequest: it is no JSON, or does not fit.
    """
    try:
        return decode(data.encode() if isinstance(data, str) else data)
    except msgspec.ValidationError as error:
        decoder = getattr(decode, "__self__", None)  # that of a method of msgspec's own
        raise _misfit(str(error), getattr(decoder, "type", None)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"The {what} is no valid JSON: {error}", path="$") from error


def decode_frame(data: bytes, decode: Callable[[bytes], T]) -> T:
    """A message of a socket as JSON.

    Raises:
        InvalidRequest: as for :func:`decode_json`.
    """
    return decode_json(data, decode, what="message")


def _misfit(text: str, shape: object) -> InvalidRequest:
    """What is wrong with what does not fit into ``shape``, where that is known."""
    at = _PATH.search(text)
    path = at.group(1) if at else "$"
    sentence = _PATH.sub("", text)
    for pattern, expected in _EXPECTED.items():
        if repr(pattern) in sentence:
            return InvalidRequest(f"{expected}.", path=path)
    if path == "$.type" and (unknown := _NO_SUCH_TYPE.match(sentence)):
        return InvalidRequest(f"There is no message of type {unknown.group(1)[:40]!r}.", path=path)
    if _NO_SUCH_VALUE.match(sentence) and (choices := choices_at(shape, path)):
        return InvalidRequest(f"{sentence}; there are: {', '.join(choices)}.", path=path)
    missing = _MISSING.search(sentence)
    if missing:
        path = f"{path}.{missing.group(1)}"
    return InvalidRequest(f"{sentence}.", path=path)


def require_id(text: str, what: str) -> str:
    """``text`` if it is an id at all: only then may it become a part of a subject.

    Raises:
        NotFound: it is none, so there is nothing under it.
    """
    if not is_id(text):
        raise not_found(what)
    return text


def not_found(what: str) -> NotFound:
    return NotFound(f"There is no such {what}.")


def read_query(request: web.Request, shape: type[Q]) -> Q:
    """The query string as a struct.

    Its fields have defaults that are not None, because to a number that may be None
    the word ``null`` is one.

    Raises:
        InvalidRequest: a value does not fit, or there are two.
    """
    given: dict[str, str] = {}
    for name in shape.__struct_encode_fields__:
        match request.query.getall(name, ()):
            case ():
                pass
            case [value]:
                given[name] = value
            case _:
                raise InvalidRequest("This is given more than once.", path=f"$.{name}")
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), shape) from error
