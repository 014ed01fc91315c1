"""A document front end, written from its own document and nothing else.

What it knows: POST ``/api/upload`` with a file and a prompt, a socket that tells of all
jobs, and ``/api/jobs/{job_id}``.  When the socket breaks it comes back, five times at most.
"""

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.browser import BROKEN, Browser

RECONNECTS = 5
INTERVAL = 1.0
"""Seconds between two connections (3 in a browser)."""

Frame = dict[str, Any]


@dataclass
class Answer:
    """What the interface shows of one file."""

    progress: int = 0
    seen: list[int] = field(default_factory=list[int])
    """Every progress that was told."""
    steps: list[str] = field(default_factory=list[str])
    text: str = ""
    chunks: int = 0
    resets: int = 0
    end: Frame | None = None

    def take(self, frame: Frame) -> None:
        match frame["type"]:
            case "job_update":
                assert self.progress <= frame["progress"] <= 100
                self.progress = frame["progress"]
                self.seen.append(self.progress)
                if frame["step"] not in self.steps:
                    self.steps.append(frame["step"])
            case "ai_chunk":
                self.chunks += 1
                whole = frame["chunk"] == frame["partial"]  # also what a new connection starts with
                if whole and self.text and not frame["partial"].startswith(self.text):
                    self.resets += 1
                self.text = frame["partial"] if whole else self.text + frame["chunk"]
                assert self.text == frame["partial"]
            case "job_completed" | "job_failed":
                self.end = frame
            case kind:
                raise AssertionError(f"{kind} is not in the document")


class DocumentsClient:
    """``lib/api.ts`` and ``lib/websocket.ts``; ``urls`` are what ``NEXT_PUBLIC_API_URL`` names.

    ``NEXT_PUBLIC_WS_URL`` is the same address with ``/ws``.  With a token the client is the
    one that was modified to send it.
    """

    def __init__(self, *urls: str, token: str | None = None, reconnects: int = RECONNECTS) -> None:
        self.urls = list(urls)
        self._most_reconnects = reconnects
        self.answers: dict[str, Answer] = {}
        self.reconnects = 0
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

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

    async def upload(
        self, data: bytes, prompt: str, *, name: str = "file.txt", **fields: str
    ) -> str:
        """Send a file; answers the job's id."""
        status, body = await self.uploaded(data, name=name, prompt=prompt, **fields)
        assert status == 200, body
        assert body["success"], body
        job = body["data"]
        assert set(job) == {"job_id", "status", "progress", "message"}
        assert (job["progress"], job["message"]) == (0, "File uploaded successfully")
        self.expect(job["job_id"])
        return job["job_id"]

    def expect(self, job_id: str) -> Answer:
        """What will be shown of a job that was begun in another way."""
        answer = self.answers[job_id] = Answer()
        return answer

    async def uploaded(self, data: bytes, *, name: str, **fields: str) -> tuple[int, Any]:
        """(status, body) of an upload."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", io.BytesIO(data), filename=name)
        for key, value in fields.items():
            form.add_field(key, value)
        return await self.call("POST", "/api/upload", data=form)

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        return await self.browser.call(method, self.url + path, headers=self._headers, **options)

    async def watch(self, until: Callable[[], object] | None = None) -> None:
        """Listen until every uploaded file has its answer, or until something is true."""

        def take(frame: Frame) -> bool:
            if frame["job_id"] in self.answers:
                self.answers[frame["job_id"]].take(frame)
            ended = all(answer.end for answer in self.answers.values())
            return bool(until()) if until is not None else ended

        await self._listen(take)

    async def _listen(self, take: Callable[[Frame], bool]) -> None:
        """Hand every message to ``take`` until it says that this was the last."""
        query = f"?token={self._token}" if self._token else ""
        while True:
            try:
                async with self.browser.socket(f"{self.url}/ws{query}") as socket:
                    async for message in socket:
                        if take(json.loads(message.data)):
                            return
            except BROKEN:
                pass
            self.reconnects += 1
            assert self.reconnects <= self._most_reconnects, "gave up, as the front end would"
            await asyncio.sleep(INTERVAL)  # what the front end does
