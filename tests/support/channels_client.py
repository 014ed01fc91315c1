"""A chat front end as the document of the Channels front ends describes it, and no wiser.

It knows a base URL, the routes and messages of that document, its token, to come back
when its socket breaks or falls silent, and to read ``messages/`` whenever it has connected.
"""

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.browser import BROKEN, Browser

HEARTBEAT = 1.0
"""Seconds between two pings (30 in a browser)."""
SILENCE = 15.0
"""Seconds without a pong after which the line counts as dead."""
RECONNECT = 0.3
"""Seconds until the next try (3 in a browser)."""


class ChatClient:
    """``useAiChat`` of the front end: one session, its messages, and the reply being written."""

    def __init__(self, *urls: str, token: str = "any") -> None:
        self.urls = list(urls)
        self._token = token
        self.session_id = ""
        self.messages: dict[str, dict[str, Any]] = {}
        self.typing = False
        self.streaming = ""
        """All of the reply so far, as the last chunk said it."""
        self.order: list[tuple[str, str]] = []
        """Type and message id of what came, chunks left out."""
        self.typing_signals: list[tuple[str, bool]] = []
        """Who of the session's other pages began or stopped to type."""
        self.pongs = 0
        self.chunks = 0
        self.connections = 0
        self.resets = 0
        self.errors: list[dict[str, Any]] = []
        self._fresh = False
        self._failed = False
        """An error may have been the reply's end: what comes next may begin anew."""
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self.browser = await Browser().__aenter__()
        self._listening: asyncio.Task[None] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self.browser.__aexit__(kind, error, trace)

    # -- what the interface does ------------------------------------------------------

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of a request below ``/ai-chat/api``."""
        headers = {"Authorization": f"Token {self._token}"}
        timeout = aiohttp.ClientTimeout(10, sock_connect=5)
        return await self.browser.call(
            method, f"{self._url}/ai-chat/api{path}", headers=headers, timeout=timeout, **options
        )

    async def create_session(self, **fields: Any) -> str:
        status, session = await self.call("POST", "/sessions/", json=fields)
        assert status == 201, session
        return session["id"]

    async def open(self, session_id: str) -> None:
        """Connect, and stay connected whatever happens."""
        self.session_id = session_id
        self._listening = asyncio.create_task(self._stay_connected())
        await self.until(lambda: self.connections)

    @property
    def connected(self) -> bool:
        return self._socket is not None and not self._socket.closed

    async def send(self, message: str) -> None:
        await self.send_frame("send_message", message=message)

    async def send_frame(self, kind: str, **fields: str) -> None:
        assert self._socket is not None
        await self._socket.send_json({"type": kind, **fields})

    async def until(self, wanted: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until what is shown is as wanted."""
        assert self._listening is not None
        async with asyncio.timeout(seconds), self._changed:
            while not wanted():
                if self._listening.done():
                    self._listening.result()
                await self._changed.wait()

    def replies(self) -> list[dict[str, Any]]:
        return [m for m in self.messages.values() if m["role"] == "assistant"]

    # -- the socket -------------------------------------------------------------------

    @property
    def _url(self) -> str:
        return self.urls[self.connections % len(self.urls)]

    async def _stay_connected(self) -> None:
        try:
            while True:
                try:
                    await self._listen()
                except BROKEN:
                    pass
                finally:
                    self._socket = None
                await asyncio.sleep(RECONNECT)  # what the front end does
        finally:  # whoever waits is to hear what the page objects to
            async with self._changed:
                self._changed.notify_all()

    async def _listen(self) -> None:
        url = f"{self._url}/ws/ai-chat/session/{self.session_id}/?token={self._token}"
        async with self.browser.socket(url) as socket:
            beating = asyncio.create_task(self._beat(socket))
            try:
                self._fresh = True
                while True:
                    message = await socket.receive(timeout=SILENCE)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    await self._take(json.loads(message.data), socket)
            finally:
                beating.cancel()

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while not socket.closed:
            await socket.send_json({"type": "ping"})
            await asyncio.sleep(HEARTBEAT)

    async def _take(self, event: dict[str, Any], socket: aiohttp.ClientWebSocketResponse) -> None:
        match event["type"]:
            case "connection_established":
                assert event["session_id"] == self.session_id
                assert event["message"] == "Connected to chat session"
                await self._read_messages()
                self._socket = socket
                self.connections += 1
            case "user_message" | "ai_message_complete":
                self._show(event)
            case "ai_typing":
                assert event["message"] == "AI is thinking..."
                self.typing = True
            case "ai_message_chunk":
                self._grow(event["content"], event["full_content"])
            case "error":
                self.errors.append(event)
                self._failed = True
            case "user_typing":
                self.typing_signals.append((event["user"], event["typing"]))
            case "pong":
                self.pongs += 1
            case kind:
                raise AssertionError(f"{kind} is not in the document")
        async with self._changed:
            self._changed.notify_all()

    def _show(self, event: dict[str, Any]) -> None:
        message = event["message"]
        self.order.append((event["type"], message["id"]))
        if event["type"] == "ai_message_complete":
            assert message["content"] == self.streaming
            self._end()
        self.messages[message["id"]] = message

    def _grow(self, content: str, whole: str) -> None:
        """``full_content`` is what counts; every piece must fit it."""
        self.chunks += 1
        if self._fresh:  # all so far: what was shown before, unless it starts over
            assert content == whole
            self.resets += not whole.startswith(self.streaming)
        elif not whole:
            self.resets += 1
        elif self._failed and content == whole:
            pass  # the first piece of another reply
        else:
            assert self.streaming + content == whole
        self._fresh = self._failed = False
        self.streaming = whole

    def _end(self) -> None:
        self.typing, self.streaming = False, ""

    async def _read_messages(self) -> None:
        status, page = await self.call("GET", f"/sessions/{self.session_id}/messages/")
        if status != 200:
            raise aiohttp.ClientError("not now")
        known = {m["id"] for m in self.replies()}
        self.messages |= {message["id"]: message for message in page["results"]}
        late = [m for m in self.replies() if m["id"] not in known]
        if late:  # it ended while the line was dead; what was shown is its beginning, or void
            self.resets += not late[-1]["content"].startswith(self.streaming)
            self._end()
