"""``?replay=``: what was sent is sent again, byte for byte, and nothing is begun by it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from services.gateway.http.websocket import GONE, NORMAL
from shared.events import Fault
from shared.ids import new_id
from shared.subjects import EVENTS
from tests.support.stage import DEADLINE, Stage, close_code, frame

API = "/api/v1/chat"


def replaying(run_id: str, speed: str = "max") -> str:
    return f"replay={run_id}&speed={speed}"


async def texts(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    """The socket's next messages, as they are on the wire."""
    return [await ws.receive_str(timeout=DEADLINE) for _ in range(count)]


async def a_session(on_stage: Stage) -> tuple[str, str]:
    """(session, run) of a reply that is still to be written."""
    session_id = await on_stage.session()
    body = {"session_id": session_id, "content": "Hello"}
    async with on_stage.http.post(f"{API}/messages?stream=true", json=body) as answer:
        return session_id, answer.headers["X-Run-Id"]


CHANNELS = {"chunk": 1, "reset": 2, "end": 2}
"""Frames that the channels dialect has for what happens; the native one has others."""
NATIVE = {"chunk": 1, "reset": 1, "end": 2}


async def write_it(on_stage: Stage, run_id: str) -> AsyncIterator[str]:
    """A reply with a lost attempt; yields what clients are to be shown before it goes on."""
    store = on_stage.store
    await store.claim(run_id)
    await store.write(run_id, 0, "Once ")
    yield "chunk"
    await store.write(run_id, 5, "upon")
    yield "chunk"
    await store.claim(run_id)
    yield "reset"
    await store.write(run_id, 0, "Hé🙂")
    yield "chunk"
    await store.end(run_id, "Hé🙂!")
    yield "end"


async def finished(on_stage: Stage) -> tuple[str, str]:
    """(session, run) of a reply that is over."""
    session_id, run_id = await a_session(on_stage)
    async for _ in write_it(on_stage, run_id):
        pass
    return session_id, run_id


async def body_of(on_stage: Stage, path: str, **options: Any) -> bytes:
    async with on_stage.http.get(path, **options) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


# -- calls --------------------------------------------------------------------------


def without_times(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream but for when each piece was sent."""
    found = [json.loads(line[6:]) for line in stream.splitlines() if line]
    for event in found[:-1]:
        del event["created_at"]
    return found


async def a_call(on_stage: Stage, *, lost: bool) -> tuple[str, bytes]:
    """(run, stream) of an interview front end's prompt; ``lost``: in the middle of its words."""
    session_id = await on_stage.session()
    body = {"prompt": "Hi", "model": "demo", "session_id": session_id}
    posting = asyncio.create_task(on_stage.http.post("/api/generate/", json=body))
    store = on_stage.store
    run_id = await store.latest()
    await store.claim(run_id)
    await store.write(run_id, 0, "Once ")
    answer = await posting
    seen = await answer.content.readuntil(b"\n\n")
    if lost:
        await store.claim(run_id)
    else:
        await store.write(run_id, 5, "upon")
        seen += await answer.content.readuntil(b"\n\n")
    await store.end(run_id, "Once upon a time")
    return run_id, seen + await answer.content.read()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_call_is_the_same_lines_again(on_stage: Stage, lost: bool):
    run_id, live = await a_call(on_stage, lost=lost)
    before = await on_stage.bus.head(EVENTS, "evt.>")

    path = f"/api/generate/?{replaying(run_id)}"
    async with on_stage.http.post(path, json={"prompt": "Not sent.", "stream": False}) as answer:
        again = await answer.read()

    assert answer.headers["X-Run-Id"] == run_id
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert without_times(again) == without_times(live)
    assert len(without_times(live)) == (2 if lost else 4)
    assert await on_stage.bus.head(EVENTS, "evt.>") == before


async def test_a_call_that_failed_before_its_words_has_the_same_status_again(on_stage: Stage):
    session_id = await on_stage.session()
    body = {"prompt": "Hi", "session_id": session_id}
    posting = asyncio.create_task(on_stage.http.post("/api/generate/", json=body))
    run_id = await on_stage.store.latest()
    await on_stage.store.claim(run_id)
    fault = Fault(code="provider_error", message="It said no.")
    await on_stage.store.end(run_id, "", status="failed", error=fault)
    async with await posting as live:
        original = live.status, await live.json()

    async with on_stage.http.post(f"/api/generate/?{replaying(run_id)}", json=body) as again:
        assert (again.status, await again.json()) == original
    assert original == (502, {"error": "It said no.", "code": "provider_error"})


async def test_a_call_replays_one_reply_that_is_over(on_stage: Stage):
    session_id, run_id = await a_session(on_stage)

    async def refused(named: str) -> tuple[int, str]:
        path = f"/api/generate/?{replaying(named)}"
        async with on_stage.http.post(path, json={}) as answer:
            return answer.status, (await answer.json())["code"]

    assert [await refused(named) for named in (run_id, session_id, new_id())] == [
        (409, "conflict"),
        (400, "invalid_request"),
        (404, "not_found"),
    ]


# -- server-sent events -------------------------------------------------------------


async def test_a_stream_is_the_same_bytes_again(on_stage: Stage):
    _, run_id = await a_session(on_stage)
    async with on_stage.http.get(f"{API}/runs/{run_id}/stream") as live:
        seen = await events(live, 2)
        async for happened in write_it(on_stage, run_id):
            seen += await events(live, NATIVE[happened])

    async with on_stage.http.get(f"{API}/runs/{run_id}/stream?{replaying(run_id)}") as again:
        replayed = await again.read()

    assert again.headers["X-Run-Id"] == run_id
    assert again.headers["Content-Type"].startswith("text/event-stream")
    assert replayed == seen
    assert replayed.count(b'"type":"reset"') == 1


async def events(stream: aiohttp.ClientResponse, count: int) -> bytes:
    """The stream's next events, as they are on the wire."""
    return b"".join([await stream.content.readuntil(b"\n\n") for _ in range(count)])


async def test_a_replay_begins_nothing(on_stage: Stage):
    session_id, run_id = await finished(on_stage)
    before = await on_stage.bus.head(EVENTS, "evt.>")
    requests_before = len(on_stage.store.requests)

    body = {"session_id": session_id, "content": "This is not sent."}
    async with on_stage.http.post(f"{API}/messages?{replaying(run_id)}", json=body) as answer:
        posted = await answer.read()
    streamed = await body_of(on_stage, f"{API}/runs/{run_id}/stream?{replaying(run_id)}")

    assert posted == streamed
    assert await on_stage.bus.head(EVENTS, "evt.>") == before
    named = {question.name for question in on_stage.store.requests[requests_before:]}
    assert named == {"get_run", "get_facts"}


async def test_a_cut_replay_goes_on_from_its_cursor(on_stage: Stage):
    _, run_id = await finished(on_stage)
    path = f"{API}/runs/{run_id}/stream?{replaying(run_id)}"
    whole = (await body_of(on_stage, path)).split(b"\n\n")
    for number in range(1, len(whole) - 2):
        cursor = whole[number].splitlines()[0].removeprefix(b"id: ").decode()

        rest = await body_of(on_stage, path, headers={"Last-Event-ID": cursor})

        assert rest.split(b"\n\n")[1:] == whole[number + 1 :]

    last = whole[-2].splitlines()[0].removeprefix(b"id: ").decode()
    async with on_stage.http.get(path, headers={"Last-Event-ID": last}) as answer:
        assert answer.status == 204


# -- sockets ------------------------------------------------------------------------


async def test_the_channels_socket_says_the_same_again(on_stage: Stage):
    session_id = await on_stage.session()
    url = f"/ws/ai-chat/session/{session_id}/"
    live = await on_stage.open(url)
    await live.send_json({"type": "send_message", "message": "Hi", "client_id": "c1"})
    seen = await texts(live, 3)
    run_id = await on_stage.store.latest()
    async for happened in write_it(on_stage, run_id):
        seen += await texts(live, CHANNELS[happened])

    for speed in ("max", "100"):
        again = await on_stage.open(f"{url}?{replaying(run_id, speed)}")

        assert await texts(again, len(seen)) == seen


async def test_the_native_socket_says_the_same_again_when_it_is_subscribed_to(on_stage: Stage):
    session_id = await on_stage.session()
    live = await on_stage.open(f"{API}/ws")
    await live.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    seen = await texts(live, 2)
    run_id = await on_stage.store.latest()
    async for happened in write_it(on_stage, run_id):
        seen += await texts(live, NATIVE[happened])

    again = await on_stage.open(f"{API}/ws?{replaying(run_id)}")
    await again.send_json({"type": "ping"})
    await again.send_json({"type": "subscribe", "session_id": session_id})

    assert await texts(again, 1 + len(seen)) == ['{"type":"pong"}', *seen]


async def test_a_whole_session_is_replayed_by_its_own_id(on_stage: Stage):
    session_id, first = await finished(on_stage)
    body = {"session_id": session_id, "content": "And then?"}
    async with on_stage.http.post(f"{API}/messages?stream=true", json=body) as answer:
        second = answer.headers["X-Run-Id"]
    async for _ in write_it(on_stage, second):
        pass

    ws = await on_stage.open(f"{API}/ws?{replaying(session_id)}")
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    events: list[dict[str, Any]] = []
    while [f["type"] for f in events].count("message_complete") < 2:
        events.append(await frame(ws))

    starts = [f["run_id"] for f in events if f["type"] == "message_start"]
    assert starts == [first, second]


async def test_a_replay_takes_no_orders(on_stage: Stage):
    session_id, run_id = await finished(on_stage)
    native = await on_stage.open(f"{API}/ws?{replaying(run_id)}")
    channels = await on_stage.open(f"/ws/ai-chat/session/{session_id}/?{replaying(run_id, '1')}")
    await frame(channels)
    before = await on_stage.bus.head(EVENTS, "evt.>")

    await native.send_json({"type": "send", "session_id": session_id, "content": "Hi"})
    await native.send_json({"type": "subscribe", "session_id": new_id()})
    await native.send_str("no JSON")
    refused = [await frame(native) for _ in range(3)]
    await channels.send_json({"type": "typing"})
    await channels.send_json({"type": "send_message", "message": "Hi"})
    answers = [await frame(channels)]
    while answers[-1]["type"] != "error":
        answers.append(await frame(channels))

    assert [(f["type"], f["code"]) for f in refused] == [
        ("error", "conflict"),
        ("error", "not_found"),
        ("error", "invalid_request"),
    ]
    assert answers[-1]["code"] == "conflict"
    assert await on_stage.bus.head(EVENTS, "evt.>") == before


# -- what cannot be replayed ----------------------------------------------------------


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", "inf", "1e3", "100000", ""])
async def test_a_speed_that_is_none_is_refused_by_its_path(on_stage: Stage, speed: str):
    _, run_id = await finished(on_stage)
    path = f"{API}/runs/{run_id}/stream?replay={run_id}&speed={speed}"

    async with on_stage.http.get(path) as answer:
        body = await answer.json()

    assert (answer.status, body["code"], body["path"]) == (400, "invalid_request", "$.speed")
    assert body["detail"] == "Expected max, or a number as 1, 10 or 0.5."


async def test_what_is_not_there_cannot_be_replayed(on_stage: Stage):
    _, run_id = await finished(on_stage)
    for named in (new_id(), "no-id"):
        async with on_stage.http.get(f"{API}/runs/{run_id}/stream?{replaying(named)}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
        for path in (
            f"{API}/ws",
            f"/ws/ai-chat/session/{new_id()}/",
            "/ws",
            f"/ws/chat/{new_id()}",
        ):
            ws = await on_stage.open(f"{path}?{replaying(named)}")
            assert await close_code(ws) == GONE


async def test_a_run_that_goes_on_is_not_replayed_yet(on_stage: Stage):
    _, run_id = await a_session(on_stage)

    async with on_stage.http.get(f"{API}/runs/{run_id}/stream?{replaying(run_id)}") as answer:
        body = await answer.json()

    assert (answer.status, body["code"]) == (409, "conflict")


async def test_another_sessions_socket_does_not_show_it(on_stage: Stage):
    _, run_id = await finished(on_stage)
    other = await on_stage.session()

    ws = await on_stage.open(f"/ws/ai-chat/session/{other}/?{replaying(run_id)}")

    assert await close_code(ws) == GONE


async def test_a_failed_run_fails_again(on_stage: Stage):
    _, run_id = await a_session(on_stage)
    await on_stage.store.claim(run_id)
    fault = Fault(code="provider_error", message="It broke.", retryable=True)
    await on_stage.store.end(run_id, "Half", status="failed", error=fault)

    replayed = await body_of(on_stage, f"{API}/runs/{run_id}/stream?{replaying(run_id)}")

    live = await body_of(on_stage, f"{API}/runs/{run_id}/stream")
    assert replayed == live
    assert b'"code":"provider_error"' in replayed


# -- jobs ---------------------------------------------------------------------------


async def test_the_documents_socket_says_the_same_again(on_stage: Stage):
    live = await on_stage.open("/ws")
    form = aiohttp.FormData()
    form.add_field("file", b"Hello", filename="a.txt")
    form.add_field("prompt", "What?")
    async with on_stage.http.post("/api/upload", data=form) as answer:
        run_id = (await answer.json())["data"]["job_id"]
    jobs, store = on_stage.store.jobs, on_stage.store
    seen = await texts(live, 1)
    await jobs.claim(run_id)
    seen += await texts(live, 1)
    for fraction in (0.2, 0.6):
        await jobs.progress(run_id, "extract", fraction)
        seen += await texts(live, 1)
    await jobs.finish_step(run_id, "Hello")
    seen += await texts(live, 1)
    await jobs.claim(run_id, max_tokens=10)
    await store.write(run_id, 0, "Good ")
    while '"partial":"Good "' not in seen[-1]:
        seen += await texts(live, 1)
    await store.write(run_id, 5, "day")
    seen += await texts(live, 2)
    await jobs.end(run_id, "Good day!")
    while "job_completed" not in seen[-1]:
        seen += await texts(live, 1)

    again = await on_stage.open(f"/ws?{replaying(run_id)}")

    assert only_last_of(await texts_until(again, "job_completed")) == only_last_of(seen)


async def texts_until(ws: aiohttp.ClientWebSocketResponse, end: str) -> list[str]:
    found = await texts(ws, 1)
    while end not in found[-1]:
        found += await texts(ws, 1)
    return found


def only_last_of(frames: list[str]) -> list[str]:
    """Without states that were over in the same moment: a live client may miss those."""
    update = '"type":"job_update"'
    return [
        frame
        for frame, after in zip(frames, [*frames[1:], ""], strict=True)
        if not (update in frame and update in after)
    ]


@pytest.mark.parametrize("stream", ["", "stream=1&"])
async def test_the_content_socket_says_the_same_again_and_closes(on_stage: Stage, stream: str):
    order = {"topic": "Botox", "query": "Calm", "platform": "Twitter"}
    async with on_stage.http.post("/chat/start", json=order) as answer:
        session_id = (await answer.json())["session_id"]
        run_id = answer.headers["X-Run-Id"]
    live = await on_stage.open(f"/ws/chat/{session_id}?{stream}")
    seen: list[str] = []
    for number, text in enumerate(("{}", "A post", "{}")):
        await on_stage.store.jobs.claim(run_id, max_tokens=10)
        await on_stage.store.write(run_id, 0, text)
        if stream:
            seen += await texts(live, 1)
        if number < 2:
            await on_stage.store.jobs.finish_step(run_id, text)
        else:
            await on_stage.store.jobs.end(run_id, text)
        seen += await texts(live, 1)
    seen += await texts(live, 1)

    again = await on_stage.open(f"/ws/chat/{session_id}?{stream}{replaying(run_id)}")

    assert await texts(again, len(seen)) == seen
    assert await close_code(again) == NORMAL


async def test_a_conversation_is_no_job(on_stage: Stage):
    session_id, run_id = await finished(on_stage)

    for path in ("/ws", f"/ws/chat/{session_id}"):
        ws = await on_stage.open(f"{path}?{replaying(run_id)}")
        assert await close_code(ws) == GONE
