"""Idempotency keys: the same key asks for the same turn, or it is refused."""

import hashlib

import msgspec

from services.store.rows import RunRow
from shared.commands import ContinueReply, EditMessage, Regenerate, SendMessage
from shared.errors import KeyReused
from shared.events import Turn


def same(known: RunRow, turn: Turn) -> RunRow:
    """The run that the turn's key began, if it asked for the same."""
    if known.idempotency_digest != turn.idempotency_digest:
        raise KeyReused("This idempotency key came before, with another request.")
    return known


def digest(request: SendMessage | EditMessage | Regenerate | ContinueReply) -> str | None:
    """What must be equal when an idempotency key comes again."""
    if request.idempotency_key is None:
        return None
    if isinstance(request, SendMessage):
        asked = msgspec.structs.replace(request, min_seq=0, client_id=None, idempotency_key=None)
    else:
        asked = msgspec.structs.replace(request, min_seq=0, idempotency_key=None)
    return hashlib.sha256(msgspec.json.encode([request.name, asked])).hexdigest()
