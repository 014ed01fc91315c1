"""Read what a client asks for: bodies, queries, ids; what is wrong is named by its path."""

import re
from collections.abc import Callable, Collection
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from shared.errors import InvalidRequest, NotFound, TooLarge
from shared.ids import is_id

T = TypeVar("T")

MOST = 200
"""Entries of one page at most."""
Count = Annotated[int, Meta(ge=1, le=10**15)]
"""A number of a query string that counts something, from 1."""
_PATH = re.compile(r" - at `(\$[^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")


async def read_body(request: web.Request, decode: Callable[[bytes], T]) -> T:
    """The request's JSON body; an empty body is an empty object.

    Raises:
        TooLarge: it says itself that it is longer than a body may be.
        InvalidRequest: it is no JSON, or does not fit, or is not packed as it says.
    """
    return decode_json(await read_bytes(request) or b"{}", decode)


async def read_bytes(request: web.Request) -> bytes:
    """The request's body as it is.

    Raises:
        TooLarge: it says itself that it is longer than a body may be.
        InvalidRequest: it is not packed as it says.
    """
    if (request.content_length or 0) > request.client_max_size:
        raise TooLarge("The body is too large.")
    try:
        return await request.read()
    except web.RequestPayloadError as error:
        raise InvalidRequest("The body cannot be read as its headers say.") from error


def decode_json(data: bytes | str, decode: Callable[[bytes], T]) -> T:
    """``data`` as JSON, with the place of a fault as ``$.options.temperature``.

    Raises:
        InvalidRequest: it is no JSON, or does not fit.
    """
    try:
        return decode(data.encode() if isinstance(data, str) else data)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is no valid JSON: {error}", path="$") from error


def _misfit(text: str) -> InvalidRequest:
    at = _PATH.search(text)
    path = at.group(1) if at else "$"
    sentence = _PATH.sub("", text)
    missing = _MISSING.search(sentence)
    if missing:
        path = f"{path}.{missing.group(1)}"
    return InvalidRequest(f"{sentence}.", path=path)


def an_id(text: str, what: str) -> str:
    """``text`` if it is an id at all: only then may it become a part of a subject.

    Raises:
        NotFound: it is none, so there is nothing under it.
    """
    if not is_id(text):
        raise missing(what)
    return text


def missing(what: str) -> NotFound:
    return NotFound(f"There is no such {what}.")


def read_query(request: web.Request, shape: type[T], *, without: Collection[str] = ()) -> T:
    """The query string as a struct; an empty value is as good as none, and what is ``without``.

    Raises:
        InvalidRequest: a value does not fit.
    """
    query = request.query
    given = {name: value for name in query if (value := query[name]) and name not in without}
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error


def number(request: web.Request, name: str, default: int, *, least: int = 1) -> int:
    """A number of the query string.

    Raises:
        InvalidRequest: it is none, or too small.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) < least:
        raise InvalidRequest(f"Expected a number of at least {least}.", path=f"$.{name}")
    return int(text)


def choice(request: web.Request, name: str, allowed: dict[str, T], default: str) -> T:
    """One of a few words of the query string.

    Raises:
        InvalidRequest: another word.
    """
    word = request.query.get(name, default)
    if word not in allowed:
        raise InvalidRequest(f"Expected one of {', '.join(allowed)}.", path=f"$.{name}")
    return allowed[word]
