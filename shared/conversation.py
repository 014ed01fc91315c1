"""What a run's end makes of its message: one rule for tables, live streams and recordings."""

from typing import get_args

from shared.events import Continued, EndStatus, RunEnded, StopReason, Thoughts
from shared.records import Message

_STOP_REASONS: dict[str, StopReason] = {
    **{reason: reason for reason in get_args(StopReason)},
    # as facts say it that were written before there was a list
    "tool_use": "tool_calls",
    "pause_turn": "end_turn",
    "model_context_window_exceeded": "max_tokens",
}


def stop_reason(status: EndStatus, word: str | None) -> StopReason | None:
    """How a reply with this status ended, from the word that a fact has for it.

    None where it failed or was cancelled, or where nobody knows the word.
    """
    return _STOP_REASONS.get(word or "") if status == "completed" else None


def thoughts_text(thoughts: Thoughts | None) -> str | None:
    """What of a reply's thoughts its readers are shown."""
    return (thoughts and thoughts.text) or None


def grows(before: Continued, final: RunEnded) -> bool:
    """Whether a reply that went on is another since; else its message stays as it was.

    A run that fails changes nothing, nor does one that is cancelled before it said a word.
    """
    if final.status == "completed":
        return final.length >= before.length
    return final.status == "cancelled" and final.length > before.length


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
    )
