"""The Channels dialect's words: the contract's frames, and no field more."""

from typing import Any

import msgspec
import pytest

from services.gateway.dialects.channels.wire import (
    NewMessage,
    SessionChange,
    detail,
    frames_of,
    update_session,
)
from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyDue,
    ReplyEnded,
    ReplyReset,
    SessionGone,
    TextAdded,
    TurnAccepted,
    reply_of,
    view_of_turn,
)
from shared.errors import Conflict, InvalidRequest
from shared.events import EndStatus, Fault, RunEnded, RunWaiting, TodoChat, Turn
from shared.ids import now

AT = now()
TURN = Turn(user_message_id="u", assistant_message_id="a", content="Hello, AI!", client_id="c")
AGAIN = Turn(user_message_id="u", assistant_message_id="b", content=None)
TYPING = {"type": "ai_typing", "message": "AI is thinking..."}


def accepted(fact: RunWaiting | TodoChat) -> TurnAccepted:
    return TurnAccepted(view_of_turn(fact, run_id="r", session_id="s", seq=1))


def ended(status: EndStatus) -> ReplyEnded:
    error = Fault(code="timeout", message="Too slow.") if status == "failed" else None
    final = RunEnded(at=AT, status=status, attempt=1, text="Hi", length=2, sha256="", error=error)
    run = view_of_turn(TodoChat(at=AT, n=0, turn=TURN), run_id="r", session_id="s", seq=1)
    return ReplyEnded(run, final, reply_of(run, final))


def user_message(status: str) -> dict[str, Any]:
    message = {"id": "u", "role": "user", "content": "Hello, AI!", "status": status}
    return {
        "type": "user_message",
        "message": message | {"created_at": msgspec.to_builtins(AT)},
        "client_id": "c",
    }


def reply(kind: str, status: str) -> dict[str, Any]:
    message = {"id": "a", "role": "assistant", "content": "Hi", "status": status}
    return {"type": kind, "message": message | {"created_at": msgspec.to_builtins(AT)}}


@pytest.mark.parametrize(
    ("event", "frames"),
    [
        (accepted(TodoChat(at=AT, n=0, turn=TURN)), [user_message("completed"), TYPING]),
        (accepted(RunWaiting(at=AT, turn=TURN)), [user_message("waiting")]),
        (accepted(TodoChat(at=AT, n=0, turn=AGAIN)), [TYPING]),
        (ReplyDue(accepted(TodoChat(at=AT, n=0, turn=TURN)).run), [TYPING]),
        (
            TextAdded("Hello", 3),
            [{"type": "ai_message_chunk", "content": "lo", "full_content": "Hello"}],
        ),
        (
            ReplyReset(),
            [TYPING, {"type": "ai_message_chunk", "content": "", "full_content": ""}],
        ),
        (ended("completed"), [reply("ai_message_complete", "completed")]),
        (
            ended("cancelled"),
            [
                reply("ai_message_cancelled", "cancelled"),
                reply("ai_message_complete", "cancelled"),
            ],
        ),
        (ended("failed"), [{"type": "error", "message": "Too slow.", "code": "timeout"}]),
        (SessionGone(), []),
    ],
)
def test_every_client_event_has_its_frames(event: ClientEvent, frames: list[dict[str, Any]]):
    assert [msgspec.to_builtins(frame) for frame in frames_of(event)] == frames


def test_a_message_has_two_names():
    assert NewMessage(message="a").text == NewMessage(content="a").text == "a"
    with pytest.raises(InvalidRequest):
        _ = NewMessage().text


@pytest.mark.parametrize(("active", "status"), [(True, "active"), (False, "inactive")])
def test_being_active_is_a_status(active: bool, status: str):
    command = update_session(SessionChange(is_active=active), "user", "session")

    assert command.status == status


def test_a_fault_in_a_field_is_told_in_drfs_form_and_others_are_not():
    field = detail(InvalidRequest("Required.", path="$.message"))
    other = detail(Conflict("Busy."))

    assert field == (
        b'{"message":["Required."]}',
        {"Content-Type": "application/json", "X-Error-Code": "invalid_request"},
    )
    assert other == (
        b'{"detail":"Busy.","code":"conflict"}',
        {"Content-Type": "application/json"},
    )
