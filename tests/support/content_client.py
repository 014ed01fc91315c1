"""A content front end, written from its own document and nothing else.

What it knows: POST ``/chat/start`` with its token in a header, and a socket with the
token in its address that tells the steps and the result.  That it comes back when the
socket breaks is what its document plans for.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.browser import BROKEN, Browser

TOKEN = "aesthetics-secret-key-2025"
"""The one that is written into the front end."""
RECONNECTS = 5
INTERVAL = 1.0
"""Seconds between two connections."""

Frame = dict[str, Any]


class ContentClient:
    """``useContentGeneration`` and ``useWebSocketStream``."""

    def __init__(self, *urls: str, token: str = TOKEN, reconnects: int = RECONNECTS) -> None:
        self.urls = list(urls)
        self._most_reconnects = reconnects
        self.reconnects = 0
        self.connections: list[list[Frame]] = []
        self.closed_with: int | None = None
        self.session_id = ""
        self.end: Frame | None = None
        self._token = token
        self._numbers = itertools.count(int(time.time() * 1000))

    async def __aenter__(self) -> Self:
        self.browser = await Browser().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.browser.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        return self.urls[self.reconnects % len(self.urls)]

    @property
    def http(self) -> aiohttp.ClientSession:
        return self.browser.http

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of one request with the token."""
        headers = {"X-API-Token": self._token}
        return await self.browser.call(method, self.url + path, headers=headers, **options)

    async def start(self, **fields: str) -> str:
        """Start a job; answers where to listen."""
        status, answer = await self.started(**fields)
        assert status == 200, answer
        assert set(answer) == {"message", "session_id", "websocket_url"}
        assert answer["message"] == "Job started successfully..."
        self.session_id = answer["session_id"]
        assert answer["websocket_url"] == f"/ws/chat/{self.session_id}"
        return answer["websocket_url"]

    async def started(self, **fields: str) -> tuple[int, Any]:
        """(status, body) of a start; each has a reference of its own."""
        body = {
            "topic": "Botox Safety",
            "query": "Make it reassuring",
            "platform": "Instagram",
            "session_id": f"job_{next(self._numbers)}",
        }
        return await self.call("POST", "/chat/start", json=body | fields)

    async def watch(self, path: str, until: Callable[[Frame], object] | None = None) -> None:
        """Listen to the end, or until a message for which ``until`` is true."""
        while True:
            self.connections.append([])
            try:
                if await self._listen(path, until):
                    return
            except BROKEN:
                pass
            if not self.connections[-1]:
                self.connections.pop()
            self.reconnects += 1
            assert self.reconnects <= self._most_reconnects, "gave up, as the front end would"
            await asyncio.sleep(INTERVAL)  # what the front end does

    async def _listen(self, path: str, until: Callable[[Frame], object] | None) -> bool:
        """Whether it ended, or was left, by the message that was waited for."""
        url = f"{self.url}{path}?token={self._token}"
        async with self.browser.socket(url) as socket:
            async for message in socket:
                frame = json.loads(message.data)
                self.connections[-1].append(frame)
                match frame["type"]:
                    case "progress":
                        assert frame["message"] == f"Completed step: {frame['step']}"
                    case "result" | "error":
                        self.end = frame
                    case kind:
                        raise AssertionError(f"{kind} is not in the document")
                if until and until(frame):
                    return True
            self.closed_with = socket.close_code
        return self.end is not None

    def steps(self) -> list[list[str]]:
        """The completed steps that each connection was told."""
        return [
            [frame["step"] for frame in frames if frame["type"] == "progress"]
            for frames in self.connections
        ]
