"""The native API's streams: they begin, are cut, go on and end without a doubled character."""

from typing import Any

from tests.support.native_client import events_of
from tests.support.stage import Stage

MESSAGES = "/api/v1/chat/messages?stream=true"


async def test_a_message_is_streamed_from_its_start_to_its_end(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}

    async with on_stage.http.post(MESSAGES, json=body) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = events_of(answer)
        start, _ = await anext(events)
        run_id = start["run_id"]
        assert answer.headers["X-Run-Id"] == run_id
        await on_stage.store.claim(run_id)
        await on_stage.store.write(run_id, 0, "Good ")
        first, _ = await anext(events)
        await on_stage.store.write(run_id, 5, "day")
        second, _ = await anext(events)
        final = await on_stage.store.end(run_id, "Good day")
        rest = [event async for event, _ in events]

    assert start["type"] == "message_start"
    assert start["user_message"]["content"] == "Hello"
    assert [first, second] == [
        {"type": "chunk", "content": "Good "},
        {"type": "chunk", "content": "day"},
    ]
    assert len(rest) == 1
    assert rest[0]["type"] == "message_complete"
    assert rest[0]["sha256"] == final.sha256
    assert rest[0]["message"] == (await messages_of(on_stage, session_id))[-1]


async def messages_of(stage: Stage, session_id: str) -> list[dict[str, Any]]:
    async with stage.http.get(f"/api/v1/chat/messages/{session_id}") as answer:
        return (await answer.json())["items"]
