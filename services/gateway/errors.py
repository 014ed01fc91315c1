"""Failures: which error of our family one is, and the answer that a dialect gives for it."""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from aiohttp import web

from shared import errors
from shared.bus import BusError
from shared.errors import NatterlogError
from shared.log import get_logger

log = get_logger()


class Envelope(NamedTuple):
    """How a dialect says what went wrong, and what that looks like."""

    encode: Callable[[NatterlogError], tuple[bytes, dict[str, str]]]
    """The body and the headers of the answer."""
    shape: Any
    of_fields: Any = None
    """The shape instead where a field of the request is at fault."""
    status: Callable[[NatterlogError], int] = attrgetter("status")


def response_for(
    envelope: Envelope, request: web.Request, error: NatterlogError, raised: Exception
) -> web.Response:
    """The answer to a request that failed."""
    if isinstance(error, errors.Internal) and raised is not error:
        log.error("gateway.failed", path=request.path, exc_info=raised)
    body, headers = envelope.encode(error)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.status in (429, 503):
        headers["Retry-After"] = "2"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="natterlog"'
    if isinstance(raised, web.HTTPMethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(raised.allowed_methods))
    return web.Response(body=body, status=envelope.status(error), headers=headers)


def to_natterlog_error(raised: Exception) -> NatterlogError:
    """The member of our family that says what ``raised`` means to a client."""
    match raised:
        case NatterlogError():
            return raised
        case BusError():
            return errors.Unavailable(
                "The log cannot be reached at the moment; please try again.", retry_after=2.0
            )
        case web.HTTPMethodNotAllowed():
            return errors.MethodNotAllowed(f'Method "{raised.method}" not allowed.')
        case web.HTTPNotFound():
            return errors.NotFound("There is nothing under this path; /docs shows what there is.")
        case web.HTTPRequestEntityTooLarge():
            return errors.TooLarge("The body is too large.")
        case web.HTTPException() if raised.status < 500:
            return errors.InvalidRequest(raised.reason)
        case _:
            return errors.Internal("Something went wrong here; the log says what.")
