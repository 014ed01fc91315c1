"""The native API's streams: they begin, are cut, go on and end without a doubled character."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from services.gateway.http.follow_run import wait_of
from shared.commands import CancelRun
from shared.endings import ended
from shared.events import Fault
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


async def test_a_cut_stream_goes_on_from_its_cursor_without_a_doubled_character(on_stage: Stage):
    run_id, cursor = await half_a_reply(on_stage, "Good ")

    async with on_stage.http.get(
        f"/api/v1/chat/runs/{run_id}/stream", headers={"Last-Event-ID": cursor}
    ) as answer:
        await on_stage.store.write(run_id, 5, "day")
        await on_stage.store.end(run_id, "Good day")
        events = [event async for event, _ in events_of(answer)]

    assert "".join(e["content"] for e in events if e["type"] == "chunk") == "day"
    assert events[-1]["type"] == "message_complete"


async def test_who_comes_back_to_a_new_attempt_is_told_to_start_over(on_stage: Stage):
    run_id, cursor = await half_a_reply(on_stage, "Good ")
    await on_stage.store.claim(run_id)
    await on_stage.store.end(run_id, "Better")

    async with on_stage.http.get(f"/api/v1/chat/runs/{run_id}/stream?cursor={cursor}") as answer:
        events = [event async for event, _ in events_of(answer)]

    assert [e["type"] for e in events] == ["reset", "chunk", "message_complete"]
    assert events[1]["content"] == "Better"


async def test_an_ended_run_is_streamed_again_from_its_start_and_its_last_id_is_the_end(
    on_stage: Stage,
):
    run_id, _ = await half_a_reply(on_stage, "Good ")
    await on_stage.store.end(run_id, "Good day")
    url = f"/api/v1/chat/runs/{run_id}/stream/"

    async with on_stage.http.get(url) as answer:
        events = [(event["type"], cursor) async for event, cursor in events_of(answer)]
    async with on_stage.http.get(url, headers={"Last-Event-ID": events[-1][1]}) as last:
        assert last.status == 204
    async with on_stage.http.get(url, headers={"Last-Event-ID": events[-2][1]}) as before:
        assert [e["type"] async for e, _ in events_of(before)] == ["message_complete"]

    assert [kind for kind, _ in events] == ["message_start", "chunk", "message_complete"]


@pytest.mark.parametrize("cursor", ["nonsense", "000000000000-1-0-0", "{epoch}-999999999-0-0"])
async def test_a_cursor_that_leads_nowhere_brings_everything_anew(on_stage: Stage, cursor: str):
    run_id, known = await half_a_reply(on_stage, "Good ")
    await on_stage.store.end(run_id, "Good day")

    async with on_stage.http.get(
        f"/api/v1/chat/runs/{run_id}/stream",
        headers={"Last-Event-ID": cursor.format(epoch=known.split("-")[0])},
    ) as answer:
        events = [event async for event, _ in events_of(answer)]

    assert [e["type"] for e in events] == ["reset", "message_start", "chunk", "message_complete"]
    assert events[2]["content"] == "Good day"


async def test_the_same_key_gives_the_same_turn_from_its_start(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}
    headers = {"Idempotency-Key": "k"}
    async with on_stage.http.post(MESSAGES, json=body, headers=headers) as answer:
        first, _ = await anext(events_of(answer))
    await on_stage.store.end(first["run_id"], "Hi")

    async with on_stage.http.post(MESSAGES, json=body, headers=headers) as answer:
        events = [event async for event, _ in events_of(answer)]
    other = {**body, "content": "Something else"}
    async with on_stage.http.post(MESSAGES, json=other, headers=headers) as refused:
        assert refused.status == 422
        assert (await refused.json())["code"] == "conflict"

    assert events[0] == first
    assert [e["type"] for e in events] == ["message_start", "chunk", "message_complete"]
    assert len(on_stage.store.runs) == 1


async def test_a_client_that_goes_away_cancels_nothing(on_stage: Stage):
    run_id, _ = await half_a_reply(on_stage, "Good ")

    await on_stage.store.end(run_id, "Good day")

    assert not any(isinstance(request, CancelRun) for request in on_stage.store.requests)


async def test_without_a_stream_the_answer_waits_for_the_reply(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}

    async def reply() -> None:
        run_id = await on_stage.store.latest()
        await on_stage.store.claim(run_id)
        await on_stage.store.end(run_id, "Hi")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reply())
        async with on_stage.http.post("/api/v1/chat/messages", json=body) as answer:
            assert answer.status == 201
            turn = await answer.json()

    question, replied = await messages_of(on_stage, session_id)
    assert turn == {"user_message": question, "assistant_message": replied}
    assert answer.headers["X-Run-Id"] == replied["run_id"]


async def test_a_failed_run_is_a_status_or_an_error_event(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}
    fault = Fault(code="provider_unavailable", message="Nobody answers.", retryable=True)

    async def fail() -> None:
        await on_stage.store.end(await on_stage.store.latest(), "", status="failed", error=fault)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        async with on_stage.http.post("/api/v1/chat/messages", json=body) as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
            assert (await answer.json())["code"] == "provider_unavailable"
    run_id = await on_stage.store.latest()
    async with on_stage.http.get(f"/api/v1/chat/runs/{run_id}/stream") as answer:
        events = [event async for event, _ in events_of(answer)]

    assert events[-1] == {
        "type": "error",
        "message": "Nobody answers.",
        "code": "provider_unavailable",
        "retryable": True,
    }


async def test_a_providers_wish_to_be_left_alone_is_passed_on(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}
    fault = Fault(code="provider_unavailable", message="Busy.", retryable=True, retry_after=3600.0)

    async def fail() -> None:
        await on_stage.store.end(await on_stage.store.latest(), "", status="failed", error=fault)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        async with on_stage.http.post("/api/v1/chat/messages", json=body) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "3600")
    run_id = await on_stage.store.latest()
    async with on_stage.http.get(f"/api/v1/chat/runs/{run_id}/stream") as answer:
        events = [event async for event, _ in events_of(answer)]

    assert events[-1] == {
        "type": "error",
        "message": "Busy.",
        "code": "provider_unavailable",
        "retryable": True,
        "retry_after": 3600.0,
    }


@pytest.mark.parametrize(
    ("age", "wish", "left"),
    [(0.0, None, None), (0.0, 90.0, 90.0), (60.0, 90.0, 30.0), (99.0, 9, 0)],
)
def test_a_wish_grows_old_with_its_final(age: float, wish: float | None, left: float | None):
    fault = Fault(code="timeout", message="", retry_after=UNSET if wish is None else wish)
    final = ended("failed", error=fault)
    final = msgspec.structs.replace(final, at=final.at - timedelta(seconds=age))

    assert wait_of(final) == (left if left is None else pytest.approx(left, abs=5.0))


async def test_a_gateway_that_stops_ends_its_streams(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}

    async with on_stage.http.post(MESSAGES, json=body) as answer:
        events = events_of(answer)
        await anext(events)
        on_stage.gateway.connections.stop()
        rest = [event async for event, _ in events]

    assert rest == []


async def half_a_reply(stage: Stage, text: str) -> tuple[str, str]:
    """A run whose stream was cut after ``text``, and the cursor of its client."""
    session_id = await stage.session()
    body = {"session_id": session_id, "content": "Hello"}
    async with stage.http.post(MESSAGES, json=body) as answer:
        events = events_of(answer)
        start, cursor = await anext(events)
        await stage.store.claim(start["run_id"])
        await stage.store.write(start["run_id"], 0, text)
        event, cursor = await anext(events)
        assert event == {"type": "chunk", "content": text}
    return start["run_id"], cursor
