"""A client of the native API that never gives up: it takes its stream up again where it was cut."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

API = "/api/v1/chat"
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.IncompleteReadError)
_NOT_NOW = (502, 503, 504)


@dataclass
class Reply:
    """What one client has been told of one reply, put together as a front end would."""

    run_id: str = ""
    text: str = ""
    cursor: str = ""
    resets: int = 0
    cuts: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None

    def take(self, event: dict[str, Any], cursor: str) -> None:
        assert self.end is None, f"an event after the end: {event}"
        self.cursor = cursor or self.cursor
        self.events.append(event)
        match event["type"]:
            case "message_start":
                self.run_id = event["run_id"]
            case "chunk":
                self.text += event["content"]
            case "reset":
                self.text = ""
                self.resets += 1
            case "message_complete" | "error":
                self.end = event

    def check(self) -> None:
        """Every character is there, once, and of one attempt: the final's digest says so."""
        assert self.end is not None
        assert self.end["type"] == "message_complete", self.end
        assert hashlib.sha256(self.text.encode()).hexdigest() == self.end["sha256"]
        assert self.end["message"]["content"] == self.text


class NativeClient:
    """``async with NativeClient(url) as client``; ``urls`` may name several gateways.

    A line that is silent for ``silence`` seconds counts as dead.
    """

    def __init__(self, *urls: str, silence: float = 45.0) -> None:
        self.urls = list(urls)
        self._silence = silence
        self._next = 0

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._silence)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self.http = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    def url(self, path: str) -> str:
        """The path at the gateway whose turn it is."""
        return self.urls[self._next % len(self.urls)] + API + path

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of one request."""
        async with self.http.request(method, self.url(path), **options) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else None

    async def session(self, **fields: Any) -> str:
        """Open a session; answers its id."""
        status, body = await self.call("POST", "/sessions", json=fields)
        assert status == 201, body
        return body["id"]

    async def send(self, session_id: str, content: str, **fields: Any) -> Reply:
        """Send a message and follow its reply to the end, whatever is cut meanwhile."""
        reply = Reply()
        await self.start(reply, session_id, content, **fields)
        await self.follow(reply)
        return reply

    async def start(self, reply: Reply, session_id: str, content: str, **fields: Any) -> None:
        """Send a message and read up to its ``message_start``; retried with one key."""
        key = f"{session_id}:{hash(content)}"
        body = json.dumps({"session_id": session_id, "content": content, **fields}).encode()
        await self._begin(reply, "/messages?stream=true", key, body)

    async def go_on(self, reply: Reply, message_id: str) -> None:
        """Have a message go on, and read up to its ``message_start``; retried with one key."""
        key = f"{message_id}:{id(reply)}"
        await self._begin(reply, f"/messages/{message_id}/continue?stream=true", key)

    async def _begin(self, reply: Reply, path: str, key: str, body: bytes = b"") -> None:
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        while not reply.run_id:
            try:
                async with self.http.post(
                    self.url(path), data=io.BytesIO(body), headers=headers
                ) as response:
                    if response.status in _NOT_NOW:
                        raise aiohttp.ClientError("not now")
                    assert response.status == 200, await response.text()
                    async for event, cursor in events_of(response):
                        reply.take(event, cursor)
                        if reply.run_id:
                            return
            except _BROKEN:
                await self.go_elsewhere()

    async def follow(self, reply: Reply, *, until: int | None = None) -> None:
        """Read on from the reply's cursor to its end, or until that many characters are there."""
        while reply.end is None and (until is None or len(reply.text) < until):
            try:
                headers = {"Last-Event-ID": reply.cursor}
                async with self.http.get(
                    self.url(f"/runs/{reply.run_id}/stream"), headers=headers
                ) as response:
                    if response.status in _NOT_NOW:
                        raise aiohttp.ClientError("not now")
                    assert response.status == 200, (response.status, await response.text())
                    async for event, cursor in events_of(response):
                        reply.take(event, cursor)
                        if reply.end or (until is not None and len(reply.text) >= until):
                            return
                reply.cuts += 1
            except _BROKEN:
                reply.cuts += 1
                await self.go_elsewhere()

    async def go_elsewhere(self) -> None:
        """As a browser would: a short pause, then the next gateway."""
        self._next += 1
        await asyncio.sleep(0.05)  # a real client's pause, not a wait for something


async def lines_of(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Every line of a response, however long; aiohttp's own have 128 KiB at most."""
    rest = bytearray()
    async for data in response.content.iter_any():
        rest += data
        if b"\n" in data:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in lines:
                yield line.decode().rstrip("\r")


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[dict[str, Any], str]]:
    """(event, cursor) of every event of an SSE response."""
    cursor, data = "", ""
    async for line in lines_of(response):
        if line.startswith("id:"):
            cursor = line[3:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield json.loads(data), cursor
            data = ""
