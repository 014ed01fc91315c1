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


async def respond(
    request: MicroRequest,
    handler: Callable[[bytes], Awaitable[bytes]],
    silence: Callable[[], float],
) -> None:
    """Answer a request with what ``handler`` makes of it, or with the error that it raises.

    ``silence`` says for how many seconds the server has answered nothing.
    """
    try:
        answer = await handler(request.data)
    except errors.NatterlogError as error:
        await respond_error(request, error)
    except NoAnswer as error:
        log.warning("bus.request_unanswered", subject=request.subject, error=str(error))
        await respond_error(request, log_silent(silence()))
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


def restarting(subject: str, waited: float) -> errors.Unreached:
    """The error of a request to a service of which nobody listens."""
    return errors.Unreached(
        f"The {service_of(subject)} is restarting and was not there for {waited:g} s, so nothing "
        "was done; please try again.",
        retry_after=2.0,
    )


def unanswered(subject: str, waited: float) -> errors.Unavailable:
    """The error of a request that somebody may have got, and did not answer."""
    return errors.Unavailable(
        f"The {service_of(subject)} has not answered for {waited:g} s; whether anything was done "
        "is not known. Please look, then try again.",
        retry_after=2.0,
    )


def flooded(subject: str, most: int) -> errors.Overloaded:
    """The error of a request to a service that has too many of them."""
    return errors.Overloaded(
        f"The {service_of(subject)} has {most} requests to answer already; please try again.",
        retry_after=2.0,
    )


def log_silent(since: float) -> errors.Unavailable:
    """The error of a request that needed the log, which has not answered for ``since`` seconds."""
    return errors.Unavailable(
        f"The log (nats-server) has not answered for {since:.0f} s; whether anything was done is "
        "not known. Please look, then try again.",
        retry_after=2.0,
    )
