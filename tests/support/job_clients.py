"""Front ends of file jobs and pipelines as their own documents describe them, and no wiser.

Both know nothing of natterlog: a base URL, the messages, and to come back a few
times when the socket breaks.
"""

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

RECONNECTS = 5
INTERVAL = 1.0
"""Seconds between two connections (3 in a browser)."""

Frame = dict[str, Any]
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


class _Client:
    """An HTTP client, and a socket that is opened anew when it breaks."""

    def __init__(self, *urls: str) -> None:
        self.urls = list(urls)
        self.reconnects = 0

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    @property
    def url(self) -> str:
        return self.urls[self.reconnects % len(self.urls)]

    async def listen(self, path: str, take: Callable[[Frame], bool]) -> None:
        """Hand every message to ``take`` until it says that this was the last."""
        while True:
            try:
                async with self.http.ws_connect(self.url + path) as ws:
                    async for message in ws:
                        if take(json.loads(message.data)):
                            return
            except _BROKEN:
                pass
            self.reconnects += 1
            assert self.reconnects <= RECONNECTS, "gave up, as the front end would"
            await asyncio.sleep(INTERVAL)  # what the front end does


@dataclass
class Answer:
    """What the interface shows of one file."""

    progress: int = 0
    steps: list[str] = field(default_factory=list)
    text: str = ""
    resets: int = 0
    end: Frame | None = None

    def take(self, frame: Frame) -> None:
        match frame["type"]:
            case "job_update":
                assert self.progress <= frame["progress"] <= 100
                self.progress = frame["progress"]
                if frame["step"] not in self.steps:
                    self.steps.append(frame["step"])
            case "ai_chunk":
                whole = frame["chunk"] == frame["partial"]  # also what a new connection starts with
                if whole and self.text and not frame["partial"].startswith(self.text):
                    self.resets += 1
                self.text = frame["partial"] if whole else self.text + frame["chunk"]
                assert self.text == frame["partial"]
            case "job_completed" | "job_failed":
                self.end = frame


class DocumentsClient(_Client):
    """``lib/api.ts`` and ``lib/websocket.ts`` of the document front end."""

    def __init__(self, *urls: str) -> None:
        super().__init__(*urls)
        self.answers: dict[str, Answer] = {}

    async def upload(
        self, data: bytes, prompt: str, *, name: str = "file.txt", **fields: str
    ) -> str:
        """Send a file; answers the job's id."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", io.BytesIO(data), filename=name)
        for key, value in ({"prompt": prompt} | fields).items():
            form.add_field(key, value)
        async with self.http.post(f"{self.url}/api/upload", data=form) as response:
            body = await response.json()
        assert body["success"], body
        self.answers[body["data"]["job_id"]] = Answer()
        return body["data"]["job_id"]

    async def call(self, method: str, path: str) -> tuple[int, Any]:
        async with self.http.request(method, self.url + path) as response:
            return response.status, await response.json()

    async def watch(self, until: Callable[[], object] | None = None) -> None:
        """Listen until every uploaded file has its answer, or until something is true."""

        def take(frame: Frame) -> bool:
            if frame.get("job_id") in self.answers:
                self.answers[frame["job_id"]].take(frame)
            ended = all(answer.end for answer in self.answers.values())
            return bool(until()) if until is not None else ended

        await self.listen("/ws", take)


class ContentClient(_Client):
    """``useContentGeneration`` and ``useWebSocketStream`` of the content front end."""

    def __init__(self, *urls: str) -> None:
        super().__init__(*urls)
        self.connections: list[list[Frame]] = []
        self.end: Frame | None = None

    async def start(self, **fields: str) -> str:
        """Start a job; answers where to listen."""
        body = {"topic": "Botox Safety", "query": "Make it reassuring", "platform": "Instagram"}
        async with self.http.post(f"{self.url}/chat/start", json=body | fields) as response:
            answer = await response.json()
        assert response.status == 200, answer
        return answer["websocket_url"]

    async def watch(self, path: str, until: Callable[[Frame], object] | None = None) -> None:
        """Listen to the end, or until a message for which ``until`` is true."""
        count = -1

        def take(frame: Frame) -> bool:
            nonlocal count
            if count != self.reconnects:
                count = self.reconnects
                self.connections.append([])
            self.connections[-1].append(frame)
            if frame["type"] in ("result", "error"):
                self.end = frame
            return self.end is not None or bool(until and until(frame))

        await self.listen(f"{path}?token=anything", take)

    def steps(self) -> list[list[str]]:
        """The completed steps that each connection was told."""
        return [
            [frame["step"] for frame in frames if frame["type"] == "progress"]
            for frames in self.connections
        ]
