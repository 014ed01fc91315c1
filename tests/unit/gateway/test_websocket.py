"""A socket's heartbeat: who is gone is dropped, who is only slow is waited for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp.http_websocket import WebSocketWriter

from services.gateway.connections import STALLED
from services.gateway.http.websocket import PING_EVERY, Socket, on_the_wire


class Line:
    """Plays the transport and the upgraded response."""

    def __init__(self) -> None:
        self.aborted = False
        self.pings = 0
        self.writing = asyncio.Event()

    def abort(self) -> None:
        self.aborted = True

    async def ping(self) -> None:
        self.pings += 1

    async def send_frame(self, frame: bytes, kind: object) -> None:
        """Wait for a client that reads nothing."""
        del frame, kind
        self.writing.set()
        await asyncio.Event().wait()


def socket_on(line: Line) -> tuple[Socket, float]:
    """A socket, and the time of its birth."""
    ws: Any = line
    request: Any = SimpleNamespace(transport=line)
    socket = Socket(ws, request)
    return socket, socket._next_ping - PING_EVERY


class Written:
    """Plays a transport that takes everything."""

    def __init__(self) -> None:
        self.frames = b""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.frames += data


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_a_frame_is_as_aiohttp_writes_it(size: int):
    text, there = b"x" * size, Written()
    protocol: Any = SimpleNamespace(transport=there, _paused=False)
    transport: Any = there

    await WebSocketWriter(protocol, transport, limit=2**30).send_frame(text, WSMsgType.TEXT)

    assert on_the_wire(text) == there.frames


async def test_two_pings_without_an_answer_are_the_end():
    line = Line()
    socket, born = socket_on(line)

    for ping in (1, 2):
        socket.beat(born + ping * PING_EVERY)
        assert not line.aborted
    socket.beat(born + 3 * PING_EVERY)

    assert line.aborted


async def test_between_two_pings_nothing_happens():
    line = Line()
    socket, born = socket_on(line)

    for second in range(int(PING_EVERY)):
        socket.beat(born + second)

    assert not socket._ping_due


async def test_a_write_that_waits_too_long_is_the_end():
    line = Line()
    socket, _ = socket_on(line)
    socket.reply(b"frame")
    writing = asyncio.create_task(socket.write())
    await line.writing.wait()
    began = asyncio.get_running_loop().time()

    socket.beat(began + STALLED - 1)
    assert not line.aborted
    socket.beat(began + STALLED + 1)

    assert line.aborted
    writing.cancel()
