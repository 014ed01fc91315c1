"""Native sockets while the store dies as it accepts: every reply is begun once, and whole."""

import asyncio
import hashlib
import json
from typing import Any

import aiohttp

from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.running import Running

SOCKETS, KILLS = 6, 6
BETWEEN = 10
"""Messages that each socket sends between two kills."""
PATH = "/api/v1/chat/ws"


class Page:
    """A front end of one session: it begins a bubble at ``message_start``, and adds to it."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.started: list[str] = []
        self.subscribed = asyncio.Event()
        self.ended = asyncio.Event()
        self._bubble = ""

    async def has_sent(self, count: int) -> None:
        """Wait until so many more replies are complete."""
        until = len(self.started) + count
        while len(self.started) < until:
            self.ended.clear()
            await self.ended.wait()

    async def talk(self, natterlog: Running, over: asyncio.Event) -> None:
        """Send one message after the other, each once the reply before it is complete."""
        url = natterlog.system.url + PATH
        async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
            await ws.send_json({"type": "subscribe", "session_id": self.session_id})
            assert json.loads(await ws.receive_str())["type"] == "subscribed"
            self.subscribed.set()
            while not over.is_set():
                await self._exchange(ws, f"m{len(self.started)}")
                self.ended.set()

    async def _exchange(self, ws: aiohttp.ClientWebSocketResponse, client_id: str) -> None:
        message = {"type": "send", "session_id": self.session_id, "content": "tokens=8 rate=200"}
        await ws.send_json(message | {"client_id": client_id})
        while True:
            event = json.loads(await ws.receive_str())
            match event["type"]:
                case "message_start":
                    assert event["client_id"] == client_id
                    self.started.append(event["run_id"])
                    self._bubble = ""
                case "chunk":
                    self._bubble += event["content"]
                case "message_complete":
                    digest = hashlib.sha256(self._bubble.encode()).hexdigest()
                    assert digest == event["sha256"], self._bubble
                    return
                case "error":
                    await self._send_again(ws, message, client_id, event)
                case _:
                    pass

    async def _send_again(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        message: dict[str, Any],
        client_id: str,
        error: dict[str, Any],
    ) -> None:
        """What a page does that was told to try again: it may have been accepted, or not."""
        assert (error["code"], error["client_id"]) == ("provider_unavailable", client_id)
        await asyncio.sleep(error.get("retry_after", 1.0) / 4)  # as a page would
        await ws.send_json(message | {"client_id": client_id})


async def test_each_reply_begins_once_on_a_socket_although_the_store_dies_as_it_accepts(
    natterlog: Running,
):
    pages = [Page(await natterlog.client.session()) for _ in range(SOCKETS)]
    store = natterlog.system.one("store")

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        over = asyncio.Event()
        for page in pages:
            group.create_task(page.talk(natterlog, over))
        await asyncio.gather(*(page.subscribed.wait() for page in pages))
        for _ in range(KILLS):
            await asyncio.gather(*(page.has_sent(BETWEEN) for page in pages))
            await store.kill()
            await store.start()
        over.set()

    runs = await wait_until_all_ended(natterlog.bus)
    for run in runs.values():
        check_run(run)
    started = [run_id for page in pages for run_id in page.started]
    assert sorted(started) == sorted(runs)
