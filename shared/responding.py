"""A service's side of a request over the bus: its answer in frames, or an error that travels."""

from collections.abc import Awaitable, Callable

import msgspec

from shared import errors
from shared.connection import MicroRequest
from shared.log import get_logger
from shared.subjects import service_of
from shared.wire import FRAME_HEADER, NoAnswer

log = get_logger()

FRAME = 256 * 1024
"""Bytes of one frame of an answer; also the most that a fact may have (architecture.md)."""


class WireError(msgspec.Struct):
    """How an error of :mod:`shared.errors` travels."""

    code: str
    status: int
    message: str
    path: str | None = None
    retry_after: float | None = None


async def respond(request: MicroRequest, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Answer a request with what ``handler`` makes of it, or with the error that it raises."""
    try:
        answer = await handler(request.data)
    except errors.NatterlogError as error:
        await respond_error(request, error)
    except NoAnswer as error:
        log.warning("bus.request_unanswered", subject=request.subject, error=str(error))
        await respond_error(request, away(request.subject))
    except Exception:  # the asker must get an answer, whatever happened
        log.exception("bus.request_failed", subject=request.subject)
        await respond_error(request, errors.Internal("The request failed; the log says why."))
    else:
        frames = [answer[start : start + FRAME] for start in range(0, len(answer) or 1, FRAME)]
        for number, frame in enumerate(frames, start=1):
            headers = {FRAME_HEADER: f"{number}/{len(frames)}"} if len(frames) > 1 else None
            await request.respond(frame, headers=headers)


async def respond_error(request: MicroRequest, error: errors.NatterlogError) -> None:
    """Answer with an error, whose sentence may quote whatever a stranger has sent."""
    message, path = errors.shortened(error.message), error.path and errors.shortened(error.path)
    body = WireError(error.code, error.status, message, path, error.retry_after)
    await request.respond_error(str(error.status), error.code, data=msgspec.json.encode(body))


def away(subject: str, kind: type[errors.Unavailable] = errors.Unavailable) -> errors.Unavailable:
    """The error of a request to a service that does not answer just now."""
    name = service_of(subject)
    return kind(f"The {name} does not answer just now; please try again.", retry_after=2.0)
