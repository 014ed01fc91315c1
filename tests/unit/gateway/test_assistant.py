"""The native dialect's words: requests become commands, moments become events."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dialects.assistant.wire import (
    NewSession,
    SessionChange,
    SseFrames,
    create_session,
    problem,
    update_session,
)
from services.gateway.sessions.client_events import ReplyReset, TextAdded
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.settings import Settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            Settings(),
            (
                0.7,
                1024,
            ),
        ),
        (
            Settings(claude_max_tokens=5),
            (
                0.7,
                5,
            ),
        ),
        (
            Settings(claude_max_tokens=5, llm_max_tokens=6),
            (
                0.7,
                6,
            ),
        ),
        (
            Settings(llm_temperature=0.0),
            (
                0.0,
                1024,
            ),
        ),
    ],
)
def test_a_session_takes_what_it_does_not_say_from_the_settings(
    settings: Settings, expected: tuple[float, int]
):
    command = create_session(NewSession(), "user", settings)

    assert (command.temperature, command.max_tokens) == expected
    assert command.model is None  # which one that is, the store decides for every dialect


def test_a_sessions_own_values_win():
    body = NewSession(temperature=0, max_tokens=3, model="mine")

    command = create_session(body, "user", Settings(llm_temperature=1.0, llm_max_tokens=9))

    assert (command.temperature, command.max_tokens, command.model) == (0, 3, "mine")


def test_only_the_fields_that_a_change_names_are_changed():
    session_id = new_id()

    command = update_session(SessionChange(title=None), "user", session_id)

    assert msgspec.to_builtins(command) == {
        "user_id": "user",
        "min_seq": 0,
        "session_id": session_id,
        "title": None,
    }


@given(st.text(), st.text())
def test_an_event_is_one_line_of_data_whatever_the_text(before: str, after: str):
    frames = SseFrames(CursorCodec("epoch"))

    frame = frames(Cursor(7, 3, 1), TextAdded(before + after, len(before)))

    assert frame is not None
    identity, data, *rest = frame.split(b"\n")
    assert identity.startswith(b"id: ")
    assert identity.endswith(b"-7-3-1")
    assert json.loads(data.removeprefix(b"data: ")) == {"type": "chunk", "content": after}
    assert rest == [b"", b""]


def test_a_reset_is_a_word_of_its_own():
    frame = SseFrames(CursorCodec("epoch"))(Cursor(7, 7, 0), ReplyReset())

    assert frame is not None
    assert frame.endswith(b'data: {"type":"reset"}\n\n')


def test_a_problem_has_the_sentence_the_code_and_the_place():
    body, headers = problem(InvalidRequest("Expected a number.", path="$.limit"))

    assert headers == {"Content-Type": "application/problem+json"}
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Invalid request",
        "status": 400,
        "detail": "Expected a number.",
        "code": "invalid_request",
        "path": "$.limit",
    }
