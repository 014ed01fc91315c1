"""Clients that cost next to nothing, so that what is measured gets the machine.

Each is an ``asyncio.Protocol`` of its own: no task, no timer and no future a
frame.  They read what the servers here send and nothing else.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

Heard = Callable[[int, bytes], None]
"""(microseconds of the monotonic clock, what came)"""

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: bmF0dGVybG9nIGJlbmNobQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_POST = (
    "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    "Content-Length: {size}\r\n\r\n"
)
_NO_MASK = b"\0\0\0\0"  # a client must mask; with zeros the bytes stay as they are


class WebSocket(asyncio.Protocol):
    """Hands each text frame to ``heard``, and answers pings."""

    def __init__(self, path: str, heard: Heard) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = heard
        self._path = path
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods
        host, port = self._transport.get_extra_info("peername")[:2]
        self._transport.write(_HANDSHAKE.format(path=self._path, host=host, port=port).encode())

    def send(self, message: bytes) -> None:
        self._write(0x81, message)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns() // 1000
        if self._rest:
            data = self._rest + data
        start = 0
        if not self.opened.done():
            start = data.find(b"\r\n\r\n") + 4
            if start < 4:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(data.decode(errors="replace")))
                return
            self.opened.set_result(None)
        self._rest = data[self._frames(data, start, at) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed before it was opened"))

    def _frames(self, data: bytes, start: int, at: int) -> int:
        """Hand out every whole frame from ``start`` on; where the rest begins."""
        end = len(data)
        while end - start >= 2:
            size, body = data[start + 1], start + 2
            if size == 126:
                body += 2
                size = int.from_bytes(data[start + 2 : body], "big")
            elif size == 127:
                body += 8
                size = int.from_bytes(data[start + 2 : body], "big")
            if body + size > end:
                break
            payload = data[body : body + size]
            if data[start] == 0x81:
                self.heard(at, payload)
            elif data[start] == 0x89:
                self._write(0x8A, payload)
            start = body + size
        return start

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        if self._transport is not None:
            self._transport.write(b"".join((bytes([kind]), length, _NO_MASK, payload)))


class EventStream(asyncio.Protocol):
    """Posts once it is told to, and hands each ``data:`` line of the answer to ``heard``."""

    def __init__(self, path: str, body: bytes, heard: Heard) -> None:
        self._path = path
        self._body = body
        self._heard = heard
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods

    def ask(self) -> None:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("peername")[:2]
        size = len(self._body)
        head = _POST.format(path=self._path, host=host, port=port, size=size)
        self._transport.write(head.encode() + self._body)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns() // 1000
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._heard(at, line)
