"""The socket that tells the Channels front ends which of their sessions changed."""

import pytest

from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, close_code, frame, stage

PATH = "/ws/ai-chat/sessions/"
REST = "/ai-chat/api/sessions/"


async def test_sessions_of_every_dialect_are_announced_changed_and_deleted(on_stage: Stage):
    ws = await on_stage.open(PATH)
    assert (await frame(ws))["type"] == "connection_established"

    session_id = await on_stage.session(title="One")
    created = await frame(ws)
    async with on_stage.http.patch(f"{REST}{session_id}/", json={"title": "Two"}) as answer:
        assert answer.status == 200
    updated = await frame(ws)
    async with on_stage.http.delete(f"{REST}{session_id}/") as answer:
        assert answer.status == 204
    deactivated = await frame(ws)
    async with on_stage.http.delete(f"/api/v1/chat/sessions/{session_id}") as answer:
        assert answer.status == 204
    deleted = await frame(ws)

    assert (created["type"], created["session"]["title"]) == ("session_created", "One")
    assert (updated["type"], updated["session"]["title"]) == ("session_updated", "Two")
    assert deactivated["type"] == "session_deleted"
    assert deactivated["session"]["is_active"] is False
    assert deleted == {"type": "session_deleted", "session": {"id": session_id}}


async def test_what_a_call_without_a_session_makes_is_not_announced(on_stage: Stage):
    ws = await on_stage.open(PATH)
    await frame(ws)

    await on_stage.session(mode="adhoc")
    await ws.send_json({"type": "ping"})

    assert await frame(ws) == {"type": "pong"}


async def test_what_was_never_announced_is_not_announced_when_it_is_erased(on_stage: Stage):
    ws = await on_stage.open(PATH)
    await frame(ws)
    hidden = await on_stage.session(mode="adhoc")

    async with on_stage.http.delete(f"/api/v1/chat/sessions/{hidden}") as answer:
        assert answer.status == 204
    await ws.send_json({"type": "ping"})

    assert await frame(ws) == {"type": "pong"}


async def test_a_session_that_comes_back_is_told_as_updated(on_stage: Stage):
    session_id = await on_stage.session()
    url = f"{REST}{session_id}/"
    ws = await on_stage.open(PATH)
    await frame(ws)

    async with on_stage.http.patch(url, json={"is_active": False}) as answer:
        assert answer.status == 200
    gone = await frame(ws)
    async with on_stage.http.patch(url, json={"is_active": True}) as answer:
        back = await answer.json()

    assert (gone["type"], gone["session"]["is_active"]) == ("session_deleted", False)
    assert await frame(ws) == {"type": "session_updated", "session": back}


async def test_a_message_and_its_reply_update_their_session(on_stage: Stage):
    session_id = await on_stage.session()
    ws = await on_stage.open(PATH)
    chat = await on_stage.open(f"/ws/ai-chat/session/{session_id}/")
    await frame(ws)

    await chat.send_json({"type": "send_message", "message": "Hi"})
    accepted = await frame(ws)
    await on_stage.store.end(await on_stage.store.latest(), "Hello!")
    answered = await frame(ws)

    for event in (accepted, answered):
        assert (event["type"], event["session"]["id"]) == ("session_updated", session_id)


async def test_sessions_are_told_at_every_gateway(nats_server: NatsServer):
    async with (
        stage(nats_server.url) as here,
        stage(nats_server.url, store=here.store) as there,
    ):
        ws = await there.open(PATH.rstrip("/"))
        await frame(ws)

        async with here.http.post(REST, json={"title": "One"}) as answer:
            made = await answer.json()

        assert await frame(ws) == {"type": "session_created", "session": made}


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"type": "send_message"}', '{"type": 1}'])
async def test_a_bad_message_is_answered_and_the_socket_stays(on_stage: Stage, text: str):
    ws = await on_stage.open(PATH)
    await frame(ws)

    await ws.send_str(text)
    refusal = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert (refusal["type"], refusal["code"]) == ("error", "invalid_request")
    assert await frame(ws) == {"type": "pong"}


async def test_a_binary_frame_closes_the_socket(on_stage: Stage):
    ws = await on_stage.open(PATH)

    await ws.send_bytes(b"{}")

    assert await close_code(ws) == 4400
