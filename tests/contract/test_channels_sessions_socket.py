"""The socket that tells the Channels front ends which of their sessions changed."""

from tests.support.stage import Stage, frame

PATH = "/ws/ai-chat/sessions"
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
