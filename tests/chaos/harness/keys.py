"""The same message, sent several times at once under one key: one turn, paid for once."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand, objections
from tests.chaos.harness.native import MovingReply, note_reply
from tests.chaos.harness.scene import Scene, concluded
from tests.chaos.harness.world import World
from tests.support.native_client import NativeClient, events_of

MOST = 5
"""Sends at once."""
DEADLINE = 60.0
_AT_ONCE = 4


async def send_again_and_again(made: World, *, messages: int) -> Scene:
    """So many messages, each 1 to 5 times at once, in any dialect that has a key, anywhere."""
    errands = [
        Errand("keys", number, chooser(number, "keys"), list(made.urls))
        for number in range(messages)
    ]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(errand: Errand) -> None:
        async with slots:
            await _send(errand)

    await asyncio.gather(*(one(errand) for errand in errands))
    sends = sum(len(errand.shown) for errand in errands)
    return await concluded("keys", made, errands, {"messages": messages, "sends": sends})


async def _send(errand: Errand) -> None:
    mark, rng = errand.mark(1), errand.rng
    async with NativeClient(*errand.urls) as client:
        session_id = await client.session()
    errand.sessions.add(session_id)
    sends = [rng.choice(list(_WAYS)) for _ in range(rng.randint(1, MOST))]
    content = f"mark={mark} tokens={rng.randint(1, 60)} rate={rng.choice((0, 60))}"
    await asyncio.gather(*(_send_by(errand, way, session_id, content) for way in sends))
    runs = {shown.run_id for shown in errand.shown}
    if len(runs) > 1:
        errand.shown[0].problem = f"one key began {len(runs)} runs"


async def _send_by(errand: Errand, way: str, session_id: str, content: str) -> None:
    mark = errand.mark(1)
    shown, reply = errand.begin("assistant", way, mark=mark), MovingReply()
    async with NativeClient(errand.rng.choice(errand.urls)) as client:
        with objections(shown):
            async with asyncio.timeout(DEADLINE):
                await _WAYS[way](client, reply, session_id, content, mark)
    note_reply(shown, reply)


# -- the ways in which a message with a key is sent -------------------------------------------


async def _by_stream(
    client: NativeClient, reply: MovingReply, session_id: str, content: str, mark: str
) -> None:
    body, headers = _body(session_id, content, mark)
    url = client.url("/messages?stream=true")
    async with client.http.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for event, cursor in events_of(response):
            reply.take(event, cursor)


async def _by_post(
    client: NativeClient, reply: MovingReply, session_id: str, content: str, mark: str
) -> None:
    body, headers = _body(session_id, content, mark)
    status, turn = await client.call("POST", "/messages", json=body, headers=headers)
    assert status == 201, turn
    reply.keep(turn["assistant_message"])


async def _by_socket(
    client: NativeClient, reply: MovingReply, session_id: str, content: str, mark: str
) -> None:
    message = {"type": "send", "session_id": session_id, "content": content, "client_id": mark}
    async with client.http.ws_connect(client.url("/ws"), max_msg_size=0) as ws:
        await ws.send_json(message)
        while reply.end is None:
            event = json.loads(await ws.receive_str())
            assert event["type"] != "error", event
            reply.take(event, event.get("cursor", ""))


async def _by_page(
    client: NativeClient, reply: MovingReply, session_id: str, content: str, mark: str
) -> None:
    """A channels front end, whose messages name no run."""
    path = f"/ai-chat/api/sessions/{session_id}/send_message/"
    body = {"message": content, "client_id": mark}
    async with client.http.post(client.urls[0] + path, json=body) as response:
        turn = await response.json()
        assert response.status == 200, turn
        run_id = response.headers["X-Run-Id"]
    reply.keep({**turn["ai_message"], "run_id": run_id})


def _body(session_id: str, content: str, mark: str) -> tuple[dict[str, str], dict[str, str]]:
    """A body, and headers with the key that sockets make of a client's id."""
    body = {"session_id": session_id, "content": content}
    return body, {"Idempotency-Key": f"{session_id}:{mark}"}


Way = Callable[[NativeClient, MovingReply, str, str, str], Awaitable[None]]
_WAYS: dict[str, Way] = {
    "stream": _by_stream,
    "post": _by_post,
    "socket": _by_socket,
    "channels": _by_page,
}
