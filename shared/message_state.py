"""A message of a conversation, by the facts that hold it (pure)."""

from datetime import datetime

import msgspec
from msgspec import UNSET

from shared.events import Continued, Fault, PastMessage, RunEnded, StopReason, Thoughts, Turn
from shared.log_entry import LogEntry
from shared.records import Message, MessageStatus, Role
from shared.run_state import stop_reason

UNSENT: MessageStatus = "cancelled"
"""Of a user message whose run ended before its turn came, however that ended."""


class MessageState(msgspec.Struct, kw_only=True):
    """A message as of the latest fact about it; never changed, but replaced by another."""

    id: str
    session_id: str
    user_id: str
    role: Role
    content: str
    tokens: int | None = None
    latency_ms: int | None = None
    created_at: datetime
    parent_id: str | None
    depth: int
    """How many messages its branch has up to it; 0 outside any (waiting, or never sent)."""
    status: MessageStatus
    feedback: dict[str, str] | None = None
    attachments: list[str]
    model: str | None
    run_id: str | None
    seq: int
    """The fact that brought it: of two at one depth the lower came first."""
    stop_reason: StopReason | None = None
    thoughts: Thoughts | None = None
    provider: str | None = None
    """Of its model: thoughts are for whoever had them."""
    error: Fault | None = None
    """Why it failed, if it did."""

    def record(self) -> Message:
        """The message as clients know it."""
        return Message(
            id=self.id,
            session_id=self.session_id,
            parent_id=self.parent_id,
            role=self.role,
            content=self.content,
            tokens=self.tokens,
            latency_ms=self.latency_ms,
            created_at=self.created_at,
            status=self.status,
            feedback=self.feedback,
            attachments=self.attachments,
            model=self.model,
            run_id=self.run_id,
            stop_reason=self.stop_reason,
            thoughts=thoughts_text(self.thoughts),
            error=UNSET if self.error is None else self.error,
        )


def past_message(past: PastMessage, parent: MessageState | None, entry: LogEntry) -> MessageState:
    return MessageState(
        id=past.id,
        session_id=entry.address.session,
        user_id=entry.address.user,
        role=past.role,
        content=past.content,
        tokens=past.tokens,
        latency_ms=past.latency_ms,
        created_at=past.created_at,
        parent_id=None if parent is None else parent.id,
        depth=1 if parent is None else parent.depth + 1,
        status=past.status,
        feedback=past.feedback,
        attachments=past.attachments,
        model=past.model,
        run_id=None,
        seq=entry.seq,
        stop_reason=stop_reason(past.status, past.stop_reason),
        thoughts=past.thoughts,
        provider=past.provider,
    )


def user_message(
    turn: Turn,
    content: str,
    *,
    session_id: str,
    run_id: str,
    created_at: datetime,
    status: MessageStatus = "completed",
) -> Message:
    """The user's message of a turn; one that was not sent yet, or never, follows no other."""
    return Message(
        id=turn.user_message_id,
        session_id=session_id,
        parent_id=turn.parent_id if status == "completed" else None,
        role="user",
        content=content,
        tokens=None,
        latency_ms=None,
        created_at=created_at,
        status=status,
        feedback=None,
        attachments=turn.attachments,
        model=None,
        run_id=run_id,
    )


def reply(
    final: RunEnded,
    *,
    message_id: str,
    parent_id: str,
    session_id: str,
    run_id: str,
    before: Continued | None = None,
) -> Message:
    """The reply that a run ended with; ``before`` is what it had, where it went on.

    A rating was of the text as it was then, so a reply that went on has none.
    """
    tokens = final.usage.output_tokens if final.usage else None
    created_at = final.at
    if before is not None:
        created_at = before.created_at or created_at
        tokens = None if tokens is None or before.tokens is None else before.tokens + tokens
    return Message(
        id=message_id,
        session_id=session_id,
        parent_id=parent_id,
        role="assistant",
        content=final.text,
        tokens=tokens,
        latency_ms=final.latency_ms,
        created_at=created_at,
        status=final.status,
        feedback=None,
        attachments=[],
        model=final.model,
        run_id=run_id,
        stop_reason=stop_reason(final.status, final.stop_reason),
        thoughts=thoughts_text(final.thoughts),
        error=final.error if final.status == "failed" and final.error else UNSET,
    )


def grows(before: Continued, final: RunEnded) -> bool:
    """Whether a reply that went on is another since; else its message stays as it was.

    A run that fails changes nothing, nor does one that is cancelled before it wrote anything.
    """
    if final.status == "completed":
        return final.length >= before.length
    return final.status == "cancelled" and final.length > before.length


def thoughts_text(thoughts: Thoughts | None) -> str | None:
    """What of a reply's thoughts its readers are shown."""
    return (thoughts and thoughts.text) or None
