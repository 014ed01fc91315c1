"""Idempotency keys: the same key asks for the same turn, or it is refused.

A turn that failed in passing is no answer to keep: the key may begin another.
"""

import hashlib
from typing import Any

import msgspec

from services.store.rows import RunRow
from services.store.session_log import SessionState
from shared.commands import ContinueReply, EditMessage, Regenerate, SendMessage
from shared.errors import KeyReused
from shared.events import Turn


def same(known: RunRow, turn: Turn) -> RunRow:
    """The run that the turn's key began, if it asked for the same."""
    if known.idempotency_digest != turn.idempotency_digest:
        raise KeyReused("This idempotency key came before, with another request.")
    return known


def may_begin_again(known: RunRow) -> bool:
    """Whether a key that began this run may begin another: it failed, and might not again."""
    return known.status == "failed" and known.error is not None and known.error.retryable


def answered_anew(state: SessionState, failed: RunRow | None, turn: Turn) -> Turn | None:
    """The turn as another reply to the message of the failed one, if nothing came after that.

    None where something did: another reply there would put an older branch in front,
    so the turn is one more at the end of the conversation.
    """
    if failed is None or failed.turn is None or failed.turn.continues is not None:
        return None
    ends = (failed.user_message_id, failed.assistant_message_id)
    if state.unfinished or state.session.active_leaf not in ends:
        return None
    return msgspec.structs.replace(
        turn,
        user_message_id=failed.user_message_id,
        content=None,
        parent_id=failed.turn.parent_id,
        attachments=failed.turn.attachments,
        edits=None,
    )


def digest(request: SendMessage | EditMessage | Regenerate | ContinueReply) -> str | None:
    """What must be equal when an idempotency key comes again."""
    if request.idempotency_key is None:
        return None
    body: dict[str, Any] = msgspec.to_builtins(request)
    del body["run_id"]  # of this asking, and unknown to digests that are in older logs
    body |= {"min_seq": 0, "idempotency_key": None}
    if isinstance(request, SendMessage):
        body["client_id"] = None
    return hashlib.sha256(msgspec.json.encode([request.name, body])).hexdigest()
