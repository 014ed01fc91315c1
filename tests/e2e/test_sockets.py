"""Sockets of one session: the same events in the same order, however fast each one reads."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

Frame = dict[str, Any]


async def open_chat(natterlog: Running, session_id: str) -> aiohttp.ClientWebSocketResponse:
    """A channels socket, greeted."""
    url = f"{natterlog.system.url}/ws/ai-chat/session/{session_id}/"
    socket = await natterlog.client.http.ws_connect(url, max_msg_size=0)
    greeting = await socket.receive_json(timeout=10)
    assert greeting == {
        "type": "connection_established",
        "session_id": session_id,
        "message": "Connected to chat session",
    }
    return socket


async def frames_until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> list[Frame]:
    """Everything that comes, up to a frame of that kind."""
    frames: list[Frame] = []
    async with asyncio.timeout(60):
        while not frames or frames[-1]["type"] != kind:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.TEXT, message
            frames.append(json.loads(message.data))
    return frames


async def test_a_message_and_its_reply_on_the_session_socket(natterlog: Running):
    session_id = await natterlog.client.session()
    socket = await open_chat(natterlog, session_id)

    await socket.send_json({"type": "send_message", "message": "tokens=8 rate=50"})
    frames = await frames_until(socket, "ai_message_complete")

    user, typing, *chunks, complete = frames
    assert user["type"] == "user_message"
    assert user["message"]["content"] == "tokens=8 rate=50"
    assert typing == {"type": "ai_typing", "message": "AI is thinking..."}
    text = ""
    for chunk in chunks:
        text += chunk["content"]
        assert chunk == {"type": "ai_message_chunk", "content": chunk["content"]} | {
            "full_content": text
        }
    assert complete["message"]["content"] == text
    assert complete["message"]["role"] == "assistant"
    await socket.close()


async def test_two_sockets_of_a_session_see_the_same_events_in_the_same_order(natterlog: Running):
    session_id = await natterlog.client.session()
    one, two = await open_chat(natterlog, session_id), await open_chat(natterlog, session_id)

    await one.send_json({"type": "send_message", "message": "tokens=30 rate=60"})
    seen_by_one, seen_by_two = await asyncio.gather(
        frames_until(one, "ai_message_complete"), frames_until(two, "ai_message_complete")
    )

    def without_chunks(frames: list[Frame]) -> list[Frame]:
        return [frame for frame in frames if frame["type"] != "ai_message_chunk"]

    assert without_chunks(seen_by_one) == without_chunks(seen_by_two)
    assert seen_by_one[-2]["full_content"] == seen_by_two[-2]["full_content"]


async def test_a_slow_reader_gets_larger_pieces_and_loses_none(natterlog: Running):
    session_id = await natterlog.client.session()
    fast, slow = await open_chat(natterlog, session_id), await open_chat(natterlog, session_id)

    await fast.send_json({"type": "send_message", "message": "tokens=4000 rate=1000"})
    seen_by_fast = await frames_until(fast, "ai_message_complete")
    seen_by_slow = await frames_until(slow, "ai_message_complete")

    text = seen_by_fast[-1]["message"]["content"]
    assert "".join(f["content"] for f in seen_by_fast if f["type"] == "ai_message_chunk") == text
    assert "".join(f["content"] for f in seen_by_slow if f["type"] == "ai_message_chunk") == text
    assert seen_by_slow[-1] == seen_by_fast[-1]
    assert len(seen_by_slow) < len(seen_by_fast)


async def test_a_socket_that_comes_late_gets_the_text_so_far_and_then_the_rest(natterlog: Running):
    session_id = await natterlog.client.session()
    early = await open_chat(natterlog, session_id)
    await early.send_json({"type": "send_message", "message": "tokens=120 rate=60"})
    await frames_until(early, "ai_message_chunk")

    late = await open_chat(natterlog, session_id)
    frames = await frames_until(late, "ai_message_complete")

    assert frames[0]["type"] == "ai_typing"
    chunks = [frame["content"] for frame in frames if frame["type"] == "ai_message_chunk"]
    assert "".join(chunks) == frames[-1]["message"]["content"]


async def test_a_stop_ends_the_reply_for_every_socket(natterlog: Running):
    session_id = await natterlog.client.session()
    one, two = await open_chat(natterlog, session_id), await open_chat(natterlog, session_id)
    await one.send_json({"type": "send_message", "message": "tokens=5000 rate=60"})
    await frames_until(two, "ai_message_chunk")

    await two.send_json({"type": "stop"})

    for socket in (one, two):
        frames = await frames_until(socket, "ai_message_complete")
        assert frames[-2]["type"] == "ai_message_cancelled"
        assert frames[-2]["message"] == frames[-1]["message"]
        assert frames[-1]["message"]["status"] == "cancelled"
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)


async def test_the_native_socket_takes_many_sessions_and_cursors(natterlog: Running):
    sessions = [await natterlog.client.session() for _ in range(3)]
    socket = await natterlog.client.http.ws_connect(f"{natterlog.system.url}/api/v1/chat/ws")
    for session_id in sessions:
        await socket.send_json({"type": "subscribe", "session_id": session_id})
    for session_id in sessions:
        await socket.send_json(
            {"type": "send", "session_id": session_id, "content": "tokens=20 rate=60"}
        )

    texts, cursors, ended = dict.fromkeys(sessions, ""), {}, set()
    async with asyncio.timeout(30):
        while len(ended) < 3:
            frame = await socket.receive_json()
            if "cursor" in frame:
                cursors[frame["session_id"]] = frame["cursor"]
            if frame["type"] == "chunk":
                texts[frame["session_id"]] += frame["content"]
            if frame["type"] == "message_complete":
                assert frame["message"]["content"] == texts[frame["session_id"]]
                ended.add(frame["session_id"])
    await socket.close()

    again = await natterlog.client.http.ws_connect(f"{natterlog.system.url}/api/v1/chat/ws")
    await again.send_json(
        {"type": "subscribe", "session_id": sessions[0], "cursor": cursors[sessions[0]]}
    )
    await again.send_json({"type": "ping"})
    kinds = []
    async with asyncio.timeout(10):
        while "pong" not in kinds:
            kinds.append((await again.receive_json())["type"])
    assert kinds == ["subscribed", "pong"]
