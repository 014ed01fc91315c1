"""The Channels front ends' session socket, frame by frame (docs/api.md)."""

import json
from typing import Any
from unittest.mock import AsyncMock

import aiohttp
import pytest

from shared.events import Fault
from shared.ids import LOCAL_USER
from tests.support.absent import ABSENT_ID
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, close_code, frame, frames, stage

TYPING = {"type": "ai_typing", "message": "AI is thinking..."}


def chunk(content: str, full: str) -> dict[str, Any]:
    return {"type": "ai_message_chunk", "content": content, "full_content": full}


def path(session_id: str) -> str:
    return f"/ws/ai-chat/session/{session_id}/"


async def test_every_socket_sees_a_reply_from_the_question_to_the_end(on_stage: Stage):
    session_id = await on_stage.session()
    one, other = await on_stage.open(path(session_id)), await on_stage.open(path(session_id))
    greeting = {
        "type": "connection_established",
        "session_id": session_id,
        "message": "Connected to chat session",
    }
    assert [await frame(one), await frame(other)] == [greeting, greeting]

    await one.send_json({"type": "send_message", "message": "Hello, AI!", "client_id": "c1"})
    echo, typing = await frames(one, 2)
    run_id = await on_stage.store.latest()
    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "Hello")
    first = await frame(one)
    final = await on_stage.store.end(run_id, "Hello!")
    rest = await frames(one, 2)

    question = on_stage.store.messages[session_id][0]
    assert echo == {
        "type": "user_message",
        "message": {
            "id": question.id,
            "role": "user",
            "content": "Hello, AI!",
            "created_at": question.created_at.isoformat().replace("+00:00", "Z"),
            "status": "completed",
        },
        "client_id": "c1",
    }
    assert typing == TYPING
    assert [first, rest[0]] == [chunk("Hello", "Hello"), chunk("!", "Hello!")]
    assert rest[1]["type"] == "ai_message_complete"
    assert set(rest[1]["message"]) == {"id", "role", "content", "created_at", "status"}
    assert rest[1]["message"]["content"] == final.text
    seen = await frames(other, 3)
    assert seen[:2] == [echo, typing]
    while seen[-1]["type"] == "ai_message_chunk":
        seen.append(await frame(other))
    assert seen[-1] == rest[1]
    assert seen[-2]["full_content"] == "Hello!"


async def test_who_joins_late_is_told_what_is_written_so_far(on_stage: Stage):
    session_id = await on_stage.session()
    early = await on_stage.open(path(session_id))
    await early.send_json({"type": "send_message", "message": "Hi"})
    await frames(early, 3)
    run_id = await on_stage.store.latest()
    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "One ")
    await on_stage.store.write(run_id, 4, "two")
    seen = await frame(early)
    while seen["full_content"] != "One two":
        seen = await frame(early)

    late = await on_stage.open(path(session_id))

    assert (await frames(late, 3))[1:] == [TYPING, chunk("One two", "One two")]


async def test_a_reply_that_starts_over_is_told_and_never_spliced(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await frames(ws, 3)
    run_id = await on_stage.store.latest()
    lost = await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "Once")
    assert await frame(ws) == chunk("Once", "Once")

    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 4, " more", attempt=lost)
    await on_stage.store.write(run_id, 0, "Twice")

    assert await frames(ws, 3) == [TYPING, chunk("", ""), chunk("Twice", "Twice")]


async def test_a_stopped_reply_is_told_as_cancelled_and_then_as_complete(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await frames(ws, 3)
    run_id = await on_stage.store.latest()
    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "Part")
    await frame(ws)

    await ws.send_json({"type": "stop"})
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}
    assert on_stage.store.runs[run_id].cancelled
    await on_stage.store.end(run_id, "Part", status="cancelled")
    cancelled, complete = await frames(ws, 2)

    assert [cancelled["type"], complete["type"]] == ["ai_message_cancelled", "ai_message_complete"]
    assert cancelled["message"] == complete["message"]
    assert complete["message"]["status"] == "cancelled"


async def test_a_failed_reply_is_an_error_with_its_code(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await frames(ws, 3)
    run_id = await on_stage.store.latest()

    fault = Fault(code="provider_error", message="The provider broke off.")
    await on_stage.store.end(run_id, "", status="failed", error=fault)

    assert await frame(ws) == {
        "type": "error",
        "message": "The provider broke off.",
        "code": "provider_error",
    }


async def test_a_message_that_waits_is_shown_at_once_and_answered_in_its_turn(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await ws.send_json({"type": "send_message", "message": "first"})
    await frames(ws, 3)
    await ws.send_json({"type": "send_message", "message": "second"})
    waiting = await frame(ws)
    await on_stage.store.latest()
    first, second = on_stage.store.runs

    await on_stage.store.end(first, "one")
    events = await frames(ws, 3)
    await on_stage.store.end(second, "two")
    answered = await frames(ws, 2)

    assert waiting["message"]["status"] == "waiting"
    assert [f["type"] for f in events] == ["ai_message_chunk", "ai_message_complete", "ai_typing"]
    assert answered[0] == chunk("two", "two")
    assert answered[1]["message"]["content"] == "two"


async def test_typing_is_told_to_the_other_sockets_only(on_stage: Stage):
    session_id = await on_stage.session()
    one, other = await on_stage.open(path(session_id)), await on_stage.open(path(session_id))
    await frame(one)
    await frame(other)

    await one.send_json({"type": "typing"})
    await one.send_json({"type": "stop_typing"})
    events = await frames(other, 2)
    await one.send_json({"type": "ping"})

    assert [(f["type"], f["typing"]) for f in events] == [
        ("user_typing", True),
        ("user_typing", False),
    ]
    assert await frame(one) == {"type": "pong"}


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"type": "dance"}',
        '{"type": "send_message"}',
        '{"type": "send_message", "message": "   "}',
        '{"type": "send_message", "message": 3}',
        '{"type": "send_message", "message": "\\ud800"}',
        '{"type": "send_message", "message": "Hi", "client_id": 7}',
        json.dumps({"type": "send_message", "message": "Hi", "client_id": "c" * 201}),
        '{"type": "regenerate", "message_id": []}',
        '{"type": 5}',
        "[" * 100_000,
    ],
)
async def test_a_bad_message_is_answered_and_the_socket_stays_open(on_stage: Stage, text: str):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await frame(ws)

    await ws.send_str(text)
    refusal = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert set(refusal) == {"type", "message", "code"}
    assert refusal["type"] == "error"
    assert refusal["code"] == "invalid_request"
    assert await frame(ws) == {"type": "pong"}
    assert on_stage.store.runs == {}


async def test_a_field_that_does_not_fit_is_named(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session()))
    await frame(ws)

    await ws.send_json({"type": "send_message", "message": 5})
    mistyped = await frame(ws)
    await ws.send_str("{")
    garbled = await frame(ws)

    assert mistyped["message"] == "$.message: Expected `str | null`, got `int`."
    assert garbled["message"].startswith("The message is no valid JSON: ")


async def test_the_same_client_id_again_is_answered_and_starts_nothing(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    message = {"type": "send_message", "message": "Hi", "client_id": "c"}
    await ws.send_json(message)
    _, echo, _ = await frames(ws, 3)

    await ws.send_json(message)

    assert await frame(ws) == echo
    assert len(on_stage.store.runs) == 1


@pytest.mark.parametrize("session_id", [ABSENT_ID, "no-id", "a.b"])
async def test_a_session_that_is_not_there_is_a_close_code(on_stage: Stage, session_id: str):
    ws = await on_stage.open(path(session_id))

    assert await close_code(ws) == 4404


async def test_a_binary_frame_is_a_close_code(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session()))

    await ws.send_bytes(b"{}")

    assert await close_code(ws) == 4400


async def test_a_frame_over_the_limit_is_a_close_code(nats_server: NatsServer):
    async with stage(nats_server.url, max_frame=1000) as small:
        ws = await small.open(path(await small.session()))

        await ws.send_str(json.dumps({"type": "ping", "message": "x" * 1000}))

        assert await close_code(ws) == 1009


async def test_one_socket_too_many_is_a_close_code(nats_server: NatsServer):
    async with stage(nats_server.url, sockets_per_user=1) as small:
        session_id = await small.session()
        first = await small.open(path(session_id))
        await frame(first)

        assert await close_code(await small.open(path(session_id))) == 4429
        await first.close()
        again = await small.open(path(session_id))
        assert (await frame(again))["type"] == "connection_established"


async def test_a_gateway_that_stops_says_so(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session()))
    await frame(ws)

    on_stage.gateway.connections.stop()

    assert await close_code(ws) == 1012


async def test_an_erased_session_closes_its_sockets(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await frame(ws)

    async with on_stage.http.delete(f"/api/v1/chat/sessions/{session_id}") as answer:
        assert answer.status == 204

    assert await close_code(ws) == 4404


async def test_a_reply_is_written_anew_without_its_question(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await frames(ws, 3)
    await on_stage.store.end(await on_stage.store.latest(), "one")
    first = (await frames(ws, 2))[-1]["message"]

    for wish in ({}, {"message_id": first["id"]}):
        await ws.send_json({"type": "regenerate"} | wish)
        typing = await frame(ws)
        await on_stage.store.end(await on_stage.store.latest(), "two")
        events = await frames(ws, 2)

        assert [typing, events[0]] == [TYPING, chunk("two", "two")]
        assert events[1]["type"] == "ai_message_complete"
        assert events[1]["message"]["id"] != first["id"]


@pytest.mark.parametrize("message_id", [None, ABSENT_ID, "no-id"])
async def test_what_is_not_there_cannot_be_answered_anew(on_stage: Stage, message_id: str | None):
    ws = await on_stage.open(path(await on_stage.session()))
    await frame(ws)

    await ws.send_json({"type": "regenerate", "message_id": message_id})

    assert (await frame(ws))["code"] == "not_found"
    assert on_stage.store.runs == {}


async def test_a_message_is_refused_while_a_session_that_rejects_is_busy(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session(on_busy="reject")))
    await ws.send_json({"type": "send_message", "message": "first"})
    await frames(ws, 3)
    await on_stage.store.latest()

    await ws.send_json({"type": "send_message", "message": "second", "client_id": "c"})
    refusal = await frame(ws)

    assert (refusal["type"], refusal["code"]) == ("error", "conflict")
    assert len(on_stage.store.runs) == 1


async def test_a_session_that_was_put_away_takes_no_message_until_it_is_back(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(path(session_id))
    await frame(ws)
    url = f"/ai-chat/api/sessions/{session_id}/"

    async with on_stage.http.delete(url) as answer:
        assert answer.status == 204
    await ws.send_json({"type": "send_message", "message": "Hi"})
    refusal = await frame(ws)
    async with on_stage.http.patch(url, json={"is_active": True}) as answer:
        assert answer.status == 200
    await ws.send_json({"type": "send_message", "message": "Hi"})

    assert (refusal["type"], refusal["code"]) == ("error", "conflict")
    assert [f["type"] for f in await frames(ws, 2)] == ["user_message", "ai_typing"]


async def test_a_message_that_is_too_long_is_refused(nats_server: NatsServer):
    async with stage(nats_server.url, max_message=10) as small:
        ws = await small.open(path(await small.session()))
        await frame(ws)

        await ws.send_json({"type": "send_message", "message": "x" * 11})

        assert (await frame(ws))["code"] == "too_large"
        assert small.store.runs == {}


async def test_a_client_id_with_another_message_is_refused(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session()))
    await ws.send_json({"type": "send_message", "message": "Hi", "client_id": "c"})
    await frames(ws, 3)

    await ws.send_json({"type": "send_message", "message": "Ho", "client_id": "c"})

    assert (await frame(ws))["code"] == "conflict"
    assert len(on_stage.store.runs) == 1


async def test_a_stop_with_nothing_to_stop_is_no_fault(on_stage: Stage):
    ws = await on_stage.open(path(await on_stage.session()))
    await frame(ws)

    await ws.send_json({"type": "stop"})
    await ws.send_json({"type": "ping"})

    assert await frame(ws) == {"type": "pong"}


async def test_a_stop_between_two_replies_stops_the_next(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    ws = await on_stage.open(path(await on_stage.session()))
    await ws.send_json({"type": "send_message", "message": "first"})
    await frames(ws, 3)
    await ws.send_json({"type": "send_message", "message": "second"})
    await frame(ws)
    await on_stage.store.latest()
    first, second = on_stage.store.runs
    monkeypatch.setattr(on_stage.store, "_dispatch", AsyncMock())
    await on_stage.store.end(first, "one")
    await frames(ws, 2)

    await ws.send_json({"type": "stop"})
    await ws.send_json({"type": "ping"})

    assert await frame(ws) == {"type": "pong"}
    assert on_stage.store.runs[second].cancelled


async def test_who_joins_before_the_first_word_is_told_that_it_is_being_thought_of(
    on_stage: Stage,
):
    session_id = await on_stage.session()
    early = await on_stage.open(path(session_id))
    await early.send_json({"type": "send_message", "message": "Hi"})
    await frames(early, 3)
    run_id = await on_stage.store.latest()

    late = await on_stage.open(path(session_id))
    greeted = await frames(late, 2)
    await on_stage.store.claim(run_id)
    await on_stage.store.write(run_id, 0, "One")

    assert greeted[1] == TYPING
    assert await frame(late) == chunk("One", "One")


async def test_who_joins_a_session_at_rest_is_greeted_and_told_nothing_more(on_stage: Stage):
    session_id = await on_stage.session()
    early = await on_stage.open(path(session_id))
    await early.send_json({"type": "send_message", "message": "Hi"})
    await frames(early, 3)
    await on_stage.store.end(await on_stage.store.latest(), "Hello!")
    await frames(early, 2)

    late = await on_stage.open(path(session_id).rstrip("/"))
    await late.send_json({"type": "ping"})

    kinds = [f["type"] for f in await frames(late, 2)]
    assert sorted(kinds) == ["connection_established", "pong"]


async def test_sockets_of_two_gateways_see_the_same_events_in_the_same_order(
    nats_server: NatsServer,
):
    async with (
        stage(nats_server.url) as here,
        stage(nats_server.url, store=here.store) as there,
    ):
        session_id = await here.session()
        sockets = [await at.open(path(session_id)) for at in (here, there, there)]
        seen = [await frames(ws, 1) for ws in sockets]

        await sockets[0].send_json({"type": "send_message", "message": "first", "client_id": "1"})
        await until(sockets[0], seen[0], "user_message", 1)
        run_id = await here.store.latest()
        await sockets[1].send_json({"type": "send_message", "message": "second"})
        await until(sockets[0], seen[0], "user_message", 2)
        await here.store.claim(run_id)
        await here.store.write(run_id, 0, "Once ")
        await sockets[2].send_json({"type": "send_message", "message": "third"})
        await until(sockets[0], seen[0], "user_message", 3)
        await here.store.latest()
        await here.store.claim(run_id)
        await here.store.write(run_id, 0, "Twice ")
        _, second, third = here.store.runs
        await here.store.end(run_id, "Twice told")
        await here.store.end(second, "", status="cancelled")
        await here.store.end(third, "Third")
        for ws, events in zip(sockets, seen, strict=True):
            await until(ws, events, "ai_message_complete", 3)

    quiet = ("ai_message_chunk", "ai_typing")  # a reset is told to those who saw what is void
    loud = [[event for event in events if event["type"] not in quiet] for events in seen]
    assert loud[0] == loud[1] == loud[2]
    for events in seen:
        assert written(events) == ["Twice told", "", "Third"]


async def until(
    ws: aiohttp.ClientWebSocketResponse, seen: list[dict[str, Any]], kind: str, count: int
) -> None:
    """Read on until so many events of a kind were seen."""
    while sum(event["type"] == kind for event in seen) < count:
        seen.append(await frame(ws))


def written(seen: list[dict[str, Any]]) -> list[str]:
    """The replies as they were put together; every piece fits the one before."""
    replies, text = [], ""
    for event in seen:
        if event["type"] == "ai_message_chunk":
            text = text + event["content"] if event["full_content"] else ""
            assert text == event["full_content"]
        elif event["type"] == "ai_message_complete":
            assert text == event["message"]["content"]
            replies.append(text)
            text = ""
    return replies


async def test_typing_is_told_at_every_gateway_but_to_the_own_socket(nats_server: NatsServer):
    async with (
        stage(nats_server.url) as here,
        stage(nats_server.url, store=here.store) as there,
    ):
        session_id = await here.session()
        one, two = await here.open(path(session_id)), await there.open(path(session_id))
        elsewhere = await there.open(path(await here.session()))
        for ws in (one, two, elsewhere):
            await frame(ws)

        await one.send_json({"type": "typing"})
        event = await frame(two)
        for ws in (one, elsewhere):
            await ws.send_json({"type": "ping"})

        assert event == {"type": "user_typing", "user": LOCAL_USER, "typing": True}
        assert [await frame(one), await frame(elsewhere)] == [{"type": "pong"}] * 2
