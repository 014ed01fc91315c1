"""The content front ends: ``/chat`` and ``/ws/chat`` (docs/api.md)."""

from services.gateway.dialects.base import Dialect
from services.gateway.dialects.content import http, replay, socket, wire
from services.gateway.errors import Envelope

CONTENT = Dialect(
    name="content",
    summary="Posts, written in the steps of a pipeline.",
    prefixes=(wire.PREFIX, wire.SOCKETS),
    envelope=Envelope(wire.failure, wire.Failure),
    http=http.routes,
    sockets=socket.routes,
    recordings={"content": replay.JOB, "content-stream": replay.STREAMED_JOB},
)
