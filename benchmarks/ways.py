"""The three ways from the provider to a client: read directly, through the relay, natterlog."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from benchmarks.provider import MODEL
from benchmarks.wire import EventStream, Heard, WebSocket

HOST = "127.0.0.1"
CHAT = "/api/v1/chat"
CONTENT = b'"content":"'

Ask = Callable[[], None]
"""Asks for the reply, now."""
Prepare = Callable[[int, "Reply"], Awaitable[Ask]]
"""Does what comes before: opens the connection to this port, makes the session."""


class Reply:
    """One reply as its reader gets it."""

    def __init__(self, tokens: int, rate: float) -> None:
        self.prompt = f"tokens={tokens} rate={rate:g}"
        self.sent_at = 0
        self.pieces: list[tuple[int, bytes]] = []
        """(came at, text); times are microseconds of the monotonic clock."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tokens = tokens

    def take(self, at: int, frame: bytes) -> None:
        """Keep the text of a frame, which is digits and spaces, so nothing is escaped."""
        start = frame.find(CONTENT) + len(CONTENT)
        if text := frame[start : frame.find(b'"', start)]:
            self.pieces.append((at, text))

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def tokens(self) -> list[tuple[int, int]]:
        """(sent at, came at) of each token; a piece may end in the middle of one."""
        found: list[tuple[int, int]] = []
        rest = b""
        for at, text in self.pieces:
            *whole, rest = (rest + text).split(b" ")
            found.extend((int(token), at) for token in whole)
        return found

    @property
    def lost(self) -> int:
        return self._tokens - len(self.tokens())


async def direct(port: int, reply: Reply) -> Ask:
    """The provider's own stream: what no back end can beat."""
    body: dict[str, Any] = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": reply.prompt}],
    }

    def heard(at: int, line: bytes) -> None:
        if CONTENT in line:
            reply.take(at, line)
        elif b"[DONE]" in line:
            reply.end()

    stream = EventStream("/v1/chat/completions", msgspec.json.encode(body), heard)
    await _connect(stream, port)
    return stream.ask


async def relay(port: int, reply: Reply) -> Ask:
    """:mod:`benchmarks.relay`, a socket for each reply."""

    def heard(at: int, frame: bytes) -> None:
        if CONTENT in frame:
            reply.take(at, frame)
        else:
            reply.end()

    socket = await open_socket(port, "/ws", heard)
    message = msgspec.json.encode({"content": reply.prompt})
    return lambda: socket.send(message)


async def natterlog(port: int, reply: Reply) -> Ask:
    """The native WebSocket; a session and a socket for each reply."""

    def heard(at: int, frame: bytes) -> None:
        match _type(frame):
            case "chunk":
                reply.take(at, frame)
            case "message_complete":
                reply.end()
            case "error":
                sys.stderr.write(f"{frame.decode()}\n")
                reply.end()
            case _:
                pass

    session_id = await new_session(port)
    socket = await watch(port, session_id, heard)
    message = {"type": "send", "session_id": session_id, "content": reply.prompt}
    encoded = msgspec.json.encode(message)
    return lambda: socket.send(encoded)


WAYS: dict[str, Prepare] = {"direct": direct, "relay": relay, "natterlog": natterlog}


# -- steps ------------------------------------------------------------------------


async def new_session(port: int) -> str:
    """A session of natterlog's."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://{HOST}:{port}{CHAT}/sessions", json={}) as answer,
    ):
        answer.raise_for_status()
        session: dict[str, str] = await answer.json()
        return session["id"]


async def watch(port: int, session_id: str, heard: Heard) -> WebSocket:
    """A socket that is subscribed to a session of natterlog's."""
    subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def first(_: int, frame: bytes) -> None:
        if _type(frame) == "subscribed":
            socket.heard = heard
            subscribed.set_result(None)
        elif _type(frame) == "error":
            subscribed.set_exception(RuntimeError(frame.decode()))

    socket = await open_socket(port, f"{CHAT}/ws", first)
    socket.send(msgspec.json.encode({"type": "subscribe", "session_id": session_id}))
    await subscribed
    return socket


async def open_socket(port: int, path: str, heard: Heard) -> WebSocket:
    socket = WebSocket(path, heard)
    await _connect(socket, port)
    await socket.opened
    return socket


async def _connect(protocol: asyncio.Protocol, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: protocol, HOST, port)


class _Frame(msgspec.Struct):
    type: str


_decode = msgspec.json.Decoder(_Frame).decode


def _type(frame: bytes) -> str:
    return _decode(frame).type
