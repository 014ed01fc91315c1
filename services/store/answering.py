"""The store's endpoints: JSON in, JSON out, and an error that says which field was wrong."""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from prometheus_client import Counter, Histogram

from shared.commands import Request
from shared.errors import InvalidRequest, NatterlogError
from shared.subjects import store_command

R = TypeVar("R", bound=Request[Any])

Endpoint = Callable[[bytes], Awaitable[bytes]]

_answers = Counter("natterlog_store_requests", "Requests by name and outcome", ["name", "outcome"])
_seconds = Histogram(
    "natterlog_store_request_seconds",
    "How long a request took",
    ["name"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
_encode = msgspec.json.Encoder().encode
_PATH = re.compile(r" - at `(\$[^`]*)`$")


def endpoint(
    kind: type[R],
    answer: Callable[[R], Awaitable[msgspec.Struct]],
    ready: Callable[[int], Awaitable[None]] | None = None,
) -> tuple[str, Endpoint]:
    """The subject of a kind of request, and what is done with one.

    ``ready`` waits until the tables have the request's ``min_seq``.
    """
    decoder = msgspec.json.Decoder(kind)
    seconds = _seconds.labels(kind.name)

    async def serve(data: bytes) -> bytes:
        started = time.perf_counter()
        outcome = "internal"
        try:
            request = _decode(decoder, data)
            if ready is not None:
                await ready(request.min_seq)
            body = _encode(await answer(request))
            outcome = "ok"
        except NatterlogError as error:
            outcome = error.code
            raise
        else:
            return body
        finally:
            _answers.labels(kind.name, outcome).inc()
            seconds.observe(time.perf_counter() - started)

    return store_command(kind.name), serve


def _decode(decoder: "msgspec.json.Decoder[R]", data: bytes) -> R:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        path = _PATH.search(str(error))
        sentence = _PATH.sub("", str(error))
        raise InvalidRequest(f"{sentence}.", path=path[1] if path else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("The request is no JSON.") from error
