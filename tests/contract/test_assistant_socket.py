"""The native socket: one connection, many sessions, each with its cursor."""

from typing import Any

import pytest

from shared.commands import SendMessage
from shared.ids import LOCAL_USER, new_id
from tests.support.stage import Stage, frame, frames

PATH = "/api/v1/chat/ws"


async def test_one_socket_follows_many_sessions_with_a_cursor_each(on_stage: Stage):
    one, two = await on_stage.session(), await on_stage.session()
    ws = await on_stage.open(PATH)
    for session_id in (one, two):
        await ws.send_json({"type": "subscribe", "session_id": session_id})
        subscribed = await frame(ws)
        assert (subscribed["type"], subscribed["session_id"]) == ("subscribed", session_id)

    starts: list[dict[str, Any]] = []
    for session_id in (one, two):
        await ws.send_json(
            {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c"}
        )
        starts.append(await frame(ws))
    for start in starts:
        await on_stage.store.claim(start["run_id"])
        await on_stage.store.end(start["run_id"], f"to {start['session_id']}")
    seen = await frames(ws, 4)

    assert [(s["type"], s["session_id"], s["client_id"]) for s in starts] == [
        ("message_start", one, "c"),
        ("message_start", two, "c"),
    ]
    for session_id in (one, two):
        own = [f for f in seen if f["session_id"] == session_id]
        assert [f["type"] for f in own] == ["chunk", "message_complete"]
        assert own[0]["content"] == f"to {session_id}"
        assert all(f["cursor"] for f in own)


async def test_who_comes_back_with_a_cursor_gets_what_was_missed(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)
    await ws.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    run_id = (await frame(ws))["run_id"]
    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "Good ")
    seen = await frame(ws)
    await ws.close()
    await on_stage.store.end(run_id, "Good day")

    again = await on_stage.open(PATH)
    subscribe = {"type": "subscribe", "session_id": session_id, "cursor": seen["cursor"]}
    await again.send_json(subscribe)
    subscribed, chunk, complete = await frames(again, 3)

    assert subscribed == {
        "type": "subscribed",
        "session_id": session_id,
        "cursor": seen["cursor"],
    }
    assert chunk["content"] == "day"
    assert complete["type"] == "message_complete"


async def test_who_subscribes_in_the_middle_is_brought_up_to_date(on_stage: Stage):
    session_id = await on_stage.session()
    early = await on_stage.open(PATH)
    await early.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    subscribed, start = await frames(early, 2)
    await on_stage.store.claim(start["run_id"])
    await on_stage.store.write(start["run_id"], 0, "so far")
    await frame(early)

    late = await on_stage.open(PATH)
    await late.send_json({"type": "subscribe", "session_id": session_id})
    seen = await frames(late, 3)

    assert subscribed["type"] == "subscribed"
    assert [f["type"] for f in seen] == ["subscribed", "message_start", "chunk"]
    assert seen[1]["run_id"] == start["run_id"]
    assert seen[2]["content"] == "so far"


async def test_who_was_cut_off_while_being_brought_up_to_date_is_told_all_of_it_again(
    on_stage: Stage,
):
    session_id = await on_stage.session()
    first = await on_stage.open(PATH)
    for content in ("one", "two"):
        await first.send_json({"type": "send", "session_id": session_id, "content": content})
    await frames(first, 3)
    late = await on_stage.open(PATH)
    await late.send_json({"type": "subscribe", "session_id": session_id})
    cut = (await frames(late, 2))[-1]

    await late.send_json({"type": "subscribe", "session_id": session_id, "cursor": cut["cursor"]})
    kinds = [(await frame(late))["type"] for _ in range(5)]

    assert kinds[1:] == ["subscribed", "resync", "message_start", "message_start"]


@pytest.mark.parametrize("cursor", ["nonsense", "000000000000-1-0-0"])
async def test_a_cursor_that_leads_nowhere_is_answered_with_everything(
    on_stage: Stage, cursor: str
):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    await ws.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    run_id = (await frames(ws, 2))[1]["run_id"]
    await on_stage.store.end(run_id, "Hello")
    await frames(ws, 2)

    await ws.send_json({"type": "subscribe", "session_id": session_id, "cursor": cursor})
    subscribed, resync = await frames(ws, 2)

    assert subscribed["type"] == "subscribed"
    assert resync["type"] == "resync"
    assert [m["content"] for m in resync["messages"]] == ["Hi", "Hello"]
    assert resync["cursor"].split("-")[1] == str(on_stage.store.seq)


async def test_after_unsubscribe_nothing_more_comes(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)
    await ws.send_json({"type": "unsubscribe", "session_id": session_id})
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}

    other = await on_stage.open(PATH)
    await other.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    await frames(other, 2)
    await ws.send_json({"type": "ping"})

    assert await frame(ws) == {"type": "pong"}


async def test_typing_is_told_to_the_other_subscribers(on_stage: Stage):
    session_id = await on_stage.session()
    one, other = await on_stage.open(PATH), await on_stage.open(PATH)
    for ws in (one, other):
        await ws.send_json({"type": "subscribe", "session_id": session_id})
        await frame(ws)

    await one.send_json({"type": "typing", "session_id": session_id})

    assert await frame(other) == {
        "type": "user_typing",
        "session_id": session_id,
        "user": LOCAL_USER,
        "typing": True,
    }


async def test_a_reply_is_cancelled_by_its_run(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    await ws.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    run_id = (await frames(ws, 2))[1]["run_id"]

    await ws.send_json({"type": "cancel", "run_id": run_id})
    await ws.send_json({"type": "ping"})
    await frame(ws)

    assert on_stage.store.runs[run_id].cancelled


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "dance"}, "invalid_request"),
        ({"type": "subscribe"}, "invalid_request"),
        ({"type": "subscribe", "session_id": 1}, "invalid_request"),
        ({"type": "subscribe", "session_id": new_id()}, "not_found"),
        ({"type": "subscribe", "session_id": "*"}, "not_found"),
        ({"type": "send", "session_id": new_id(), "content": "Hi"}, "not_found"),
        ({"type": "send", "session_id": new_id(), "content": " "}, "invalid_request"),
        ({"type": "send", "session_id": new_id(), "content": "x" * 200_001}, "too_large"),
        ({"type": "cancel", "run_id": new_id()}, "not_found"),
        ({"type": "typing", "session_id": new_id()}, "invalid_request"),
    ],
)
async def test_a_bad_message_is_answered_and_the_socket_stays_open(
    on_stage: Stage, message: dict[str, Any], code: str
):
    ws = await on_stage.open(PATH)

    await ws.send_json(message)
    refusal = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert (refusal["type"], refusal["code"]) == ("error", code)
    assert await frame(ws) == {"type": "pong"}


async def test_a_refusal_names_the_field_and_the_message_that_it_is_about(on_stage: Stage):
    ws = await on_stage.open(PATH)

    await ws.send_json({"type": "send", "session_id": "s", "client_id": "c", "content": 5})
    mistyped = await frame(ws)
    await ws.send_json({"type": "send", "session_id": ["s"], "client_id": "c" * 201})
    unnamed = await frame(ws)
    await ws.send_str("{")
    garbled = await frame(ws)

    assert mistyped == {
        "type": "error",
        "session_id": "s",
        "client_id": "c",
        "message": "Expected `str`, got `int`.",
        "code": "invalid_request",
        "path": "$.content",
    }
    assert set(unnamed) == {"type", "message", "code", "path"}
    assert garbled["message"].startswith("The message is no valid JSON: ")


async def test_a_deleted_session_is_gone_although_a_socket_still_holds_it(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    cursor = (await frame(ws))["cursor"]
    async with on_stage.http.delete(f"/api/v1/chat/sessions/{session_id}") as answer:
        assert answer.status == 204
    assert (await frame(ws))["code"] == "not_found"

    other = await on_stage.open(PATH)
    for again in (ws, other):
        await again.send_json({"type": "subscribe", "session_id": session_id, "cursor": cursor})
        answer = await frame(again)

        assert (answer["type"], answer["code"]) == ("error", "not_found")
        assert "retryable" not in answer


async def test_a_client_id_that_is_too_long_is_refused_and_the_socket_stays(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)

    await ws.send_json(
        {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c" * 201}
    )
    refused = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert (refused["type"], refused["code"]) == ("error", "invalid_request")
    assert (await frame(ws))["type"] == "pong"
    assert on_stage.store.runs == {}


async def test_a_message_on_the_socket_may_have_files_and_a_model(on_stage: Stage):
    session_id, file_id = await on_stage.session(), new_id()
    ws = await on_stage.open(PATH)

    await ws.send_json(
        {"type": "send", "session_id": session_id, "content": "Hi", "model": "demo"}
        | {"attachments": [file_id]}
    )
    await frame(ws)

    sent = next(request for request in on_stage.store.requests if isinstance(request, SendMessage))
    assert (sent.model, sent.attachments) == ("demo", [file_id])


async def test_whoever_asks_a_socket_over_plain_http_is_told_so_in_one_sentence(on_stage: Stage):
    async with on_stage.http.get("/api/v1/chat/ws") as answer:
        problem = await answer.json(content_type=None)

    assert (answer.status, problem["detail"]) == (400, "Here a WebSocket is expected.")
