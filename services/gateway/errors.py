"""What a client is told when something went wrong, in the envelope of its dialect."""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from aiohttp import web

from services.gateway.dialects.assistant import wire as assistant
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import wire as documents
from services.gateway.dialects.interview import wire as interview
from shared import errors
from shared.bus import BusError
from shared.errors import NatterlogError
from shared.log import get_logger

log = get_logger()


class Envelope(NamedTuple):
    """How a dialect tells of errors, and what that looks like."""

    dialect: str
    tell: Callable[[NatterlogError], tuple[bytes, dict[str, str]]]
    shape: Any
    of_fields: Any = None
    """The shape instead where a field of the request is at fault."""
    status: Callable[[NatterlogError], int] = attrgetter("status")


NATIVE = Envelope("assistant", assistant.problem, assistant.Problem)
CHANNELS = Envelope(
    "channels", channels.detail, channels.Detail, channels.FieldErrors, channels.status_of
)
DOCUMENTS = Envelope("documents", documents.failure, documents.Failure)
CONTENT = Envelope("content", content.failure, content.Failure)
INTERVIEW = Envelope("interview", interview.failure, interview.Failure)

_ENVELOPES: list[tuple[str, Envelope]] = [
    (channels.PREFIX, CHANNELS),
    (channels.SOCKETS, CHANNELS),
    (documents.UPLOAD, DOCUMENTS),
    (documents.JOBS, DOCUMENTS),
    (content.PREFIX, CONTENT),
    (content.SOCKETS, CONTENT),
    (documents.SOCKET, DOCUMENTS),
    (interview.GENERATE, INTERVIEW),
    (interview.MODELS, INTERVIEW),
]
"""Path prefix → envelope, the longer prefix first; all other paths have the native one."""


def response_for(request: web.Request, error: NatterlogError, raised: Exception) -> web.Response:
    """The answer to a request that failed."""
    if isinstance(error, errors.Internal) and raised is not error:
        log.error("gateway.failed", path=request.path, exc_info=raised)
    envelope = envelope_of(request.path)
    body, headers = envelope.tell(error)
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
            return errors.NotFound("There is nothing under this path.")
        case web.HTTPRequestEntityTooLarge():
            return errors.TooLarge("The body is too large.")
        case web.HTTPException() if raised.status < 500:
            return errors.InvalidRequest(raised.reason)
        case _:
            return errors.Internal("Something went wrong here; the log says what.")


def envelope_of(path: str) -> Envelope:
    """The envelope of the dialect that a path belongs to."""
    for prefix, envelope in _ENVELOPES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return envelope
    return NATIVE
