"""A small TCP proxy: connections through it may be slow, fall silent, or break at any byte."""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, NamedTuple, Self

End = Literal["reset", "close", "silence"]
"""``reset`` RST; ``close`` FIN; ``silence`` half-open: nothing more comes, until it is reset."""

_CHUNK = 65536
_SILENCE = 2.0
"""Seconds; more would only be waiting, because some clients have no clock of their own."""
_DRIP, _DRIPPED = 7, 300
"""Bytes of a drop, and bytes after which the line is in order again."""
_NO_LINGER = struct.pack("ii", 1, 0)


class Fate(NamedTuple):
    """What becomes of one connection."""

    end: End | None = None
    """How it ends before its time, if it does."""
    after: int = 0
    """Bytes of the answer after which it ends."""
    delay: float = 0.0
    """Seconds by which each read is late."""
    drips: bool = False
    """Whether its first bytes come a few at a time."""


GOOD = Fate()


def draw_fate(rng: random.Random) -> Fate:
    """One of three connections is good; the others break at a random byte, or are slow."""
    match rng.randrange(6):
        case 0 | 1:
            return GOOD
        case 2:
            return Fate(delay=rng.uniform(0.01, 0.08))
        case 3:
            return Fate(drips=True)
        case _:
            end = rng.choice(("reset", "close", "silence"))
            return Fate(end=end, after=int(2 ** rng.uniform(0, 14)), drips=rng.random() < 0.2)


class Line:
    """``async with Line("gateway-0", port) as line``: ``line.port`` leads to ``port``.

    ``fate`` says what becomes of the n-th connection; from :meth:`calm` on all are good.
    """

    def __init__(
        self,
        name: str,
        target: int,
        fate: Callable[[int], Fate] = lambda _: GOOD,
        *,
        silent_for: float = _SILENCE,
    ) -> None:
        self.name = name
        self.silent_for = silent_for
        """Seconds for which a connection that falls silent stays half-open."""
        self.broken: Counter[str] = Counter()
        """What was done to connections, by kind."""
        self._target = target
        self._fate = fate
        self._count = 0
        self._calm = False
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        """Of all connections, those too that are not through to the other side yet."""
        self._opened = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await asyncio.sleep(0)  # a connection of this very moment has its task begun
        for connection in self._open:
            connection.break_off()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def calm(self) -> None:
        """Nothing is broken any more, neither now nor later."""
        self._calm = True
        for connection in self._open:
            connection.fate = GOOD

    def reset(self) -> None:
        """Break every connection."""
        for connection in list(self._open):
            self.note("reset")
            connection.break_off()

    async def connected(self, count: int) -> None:
        """Wait until so many connections are open."""
        while len(self._open) < count:
            self._opened.clear()
            await self._opened.wait()

    async def silence(self, seconds: float) -> None:
        """Let nothing through for a while, then break every connection that was there."""
        silent = list(self._open)
        for connection in silent:
            connection.audible.clear()
        await asyncio.sleep(seconds)
        for connection in silent:
            self.note("silence")
            connection.audible.set()
            connection.break_off()

    def note(self, kind: str) -> None:
        self.broken[kind] += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        fate = GOOD if self._calm else self._fate(self._count)
        self._count += 1
        try:
            await self._connect(fate, reader, writer)
        except OSError:  # nobody listens there just now
            _reset(writer)
        except asyncio.CancelledError:
            _reset(writer)  # the line is closed; asyncio would log a cancelled task
        finally:
            self._tasks.discard(task)

    async def _connect(
        self, fate: Fate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        connection = _Connection(fate, writer, onward, self)
        self._open.add(connection)
        self._opened.set()
        try:
            await connection.run(reader, there)
        finally:
            self._open.discard(connection)


class _Connection:
    """One connection, and the one behind it."""

    def __init__(
        self,
        fate: Fate,
        writer: asyncio.StreamWriter,
        onward: asyncio.StreamWriter,
        line: Line,
    ) -> None:
        self.fate = fate
        self.audible = asyncio.Event()
        """Set, unless nothing comes through."""
        self.audible.set()
        self._writers = writer, onward
        self._line = line
        self._passed = 0
        if fate.delay:
            line.note("delay")
        if fate.drips:
            line.note("drip")

    async def run(self, reader: asyncio.StreamReader, there: asyncio.StreamReader) -> None:
        """Pass on what comes, until one side has closed or it breaks."""
        writer, onward = self._writers
        both = [
            asyncio.create_task(self._pass_on(reader, onward)),
            asyncio.create_task(self._pass_on(there, writer, is_answer=True)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for each in self._writers:
                each.close()

    def break_off(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_answer: bool = False,
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self.audible.wait()
                if self.fate.delay:
                    await asyncio.sleep(self.fate.delay)
                if is_answer and self.fate.end and self._passed + len(data) >= self.fate.after:
                    writer.write(data[: self.fate.after - self._passed])
                    await self._end(self.fate.end)
                    return
                await self._write(writer, data, drips=is_answer and self.fate.drips)
                self._passed += len(data) * is_answer

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, *, drips: bool) -> None:
        slow = max(0, _DRIPPED - self._passed) if drips else 0
        for start in range(0, min(slow, len(data)), _DRIP):
            writer.write(data[start : min(start + _DRIP, slow)])
            await writer.drain()
            await asyncio.sleep(0.002)
        if rest := data[slow:]:
            writer.write(rest)
            await writer.drain()

    async def _end(self, end: End) -> None:
        self._line.note(f"cut by {end}")
        writer, _ = self._writers
        with suppress(ConnectionError):
            await writer.drain()
        if end == "silence":
            self.audible.clear()
            await asyncio.sleep(self._line.silent_for)
        if end != "close":
            self.break_off()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close it with a RST, as a crash or a broken NAT does."""
    if (sock := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
