"""The interview front ends: ``/api/generate`` and ``/api/models`` (docs/api.md)."""

from services.gateway.dialects.base import Dialect
from services.gateway.dialects.interview import http, replay, wire
from services.gateway.errors import Envelope

INTERVIEW = Dialect(
    name="interview",
    summary="One prompt, one reply, in the manner of Ollama.",
    prefixes=(wire.GENERATE, wire.MODELS),
    envelope=Envelope(wire.failure, wire.Failure),
    http=http.routes,
    recordings={"interview": replay.PIECES},
)
