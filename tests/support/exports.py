"""Conversations that are exported, as short as a test wants them."""

from datetime import UTC, datetime
from typing import Any

from services.gateway.dialects.assistant.export.text import Paper, PaperMessage
from shared.commands import Export
from shared.ids import new_id
from shared.records import Message, Session

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def a_turn(text: str, **fields: Any) -> PaperMessage:
    known = {"who": "You", "when": "2026-11-20 12:00 UTC", "files": list[str](), "note": None}
    return PaperMessage(text=text, **(known | fields))


def a_paper(*messages: PaperMessage, title: str = "Cats") -> Paper:
    return Paper(title=title, about="2 messages", messages=list(messages))


def a_reply(**fields: Any) -> Message:
    known: dict[str, Any] = {
        "id": new_id(),
        "session_id": "s",
        "parent_id": None,
        "role": "assistant",
        "content": "Once upon a",
        "tokens": 3,
        "latency_ms": 5,
        "created_at": AT,
        "status": "completed",
        "feedback": None,
        "attachments": [],
        "model": "demo",
        "run_id": None,
    }
    return Message(**(known | fields))


def an_export(*messages: Message) -> Export:
    session = Session(
        id="s",
        user_id="u",
        title="Cats",
        mode="general",
        status="active",
        model=None,
        temperature=None,
        max_tokens=None,
        system_prompt=None,
        context_tags=[],
        on_busy="queue",
        enable_tools=False,
        client_ref=None,
        message_count=len(messages),
        created_at=AT,
        updated_at=AT,
        last_message_at=None,
    )
    ids = [message.id for message in messages]
    return Export(session=session, messages=list(messages), branch=ids, files=[], seq=1)
