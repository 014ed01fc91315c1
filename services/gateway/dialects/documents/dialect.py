"""The document front ends: ``/api/upload``, ``/api/jobs`` and ``/ws`` (docs/api.md)."""

from services.gateway.dialects.base import Dialect
from services.gateway.dialects.documents import http, replay, socket, wire
from services.gateway.errors import Envelope

DOCUMENTS = Dialect(
    name="documents",
    summary="Files and questions about them: jobs.",
    prefixes=(wire.UPLOAD, wire.JOBS, wire.SOCKET),
    envelope=Envelope(wire.failure, wire.Failure),
    http=http.routes,
    sockets=socket.routes,
    recordings={"documents": replay.JOBS},
)
