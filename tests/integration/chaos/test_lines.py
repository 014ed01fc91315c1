"""A line passes everything on, until it breaks at exactly the byte that was drawn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.harness.lines import GOOD, End, Fate, Line
from tests.support.system import free_port

PAGE = bytes(range(256)) * 400
DEADLINE = 10.0


@asynccontextmanager
async def line(fate: Fate = GOOD) -> AsyncIterator[Line]:
    """A line to a server that answers whatever comes with a page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.write(PAGE)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Line("line", port, lambda _: fate, silent_for=0.05) as leading:
        yield leading


@asynccontextmanager
async def client(port: int, *, sends: bool = True) -> AsyncIterator[asyncio.StreamReader]:
    """A client that asks for the page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if sends:
        writer.write(b"hello")
    try:
        yield reader
    finally:
        writer.transport.abort()


async def read_to_the_end(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """What came, and whether the connection was reset."""
    got = b""
    async with asyncio.timeout(DEADLINE):
        try:
            while data := await reader.read(4096):
                got += data
        except ConnectionResetError:
            return got, True
    return got, False


@pytest.mark.parametrize("fate", [GOOD, Fate(delay=0.01), Fate(drips=True)])
async def test_a_line_that_is_only_slow_loses_nothing(fate: Fate):
    async with line(fate) as leading, asyncio.timeout(DEADLINE), client(leading.port) as reader:
        got = await reader.readexactly(len(PAGE))

    assert got == PAGE


@pytest.mark.parametrize("after", [0, 1, 700, 65_537])
@pytest.mark.parametrize(("end", "reset"), [("close", False), ("reset", True), ("silence", True)])
async def test_a_line_breaks_at_its_byte(after: int, end: End, reset: bool):
    async with line(Fate(end=end, after=after)) as leading, client(leading.port) as reader:
        got, was_reset = await read_to_the_end(reader)

    assert PAGE[:after].startswith(got)
    assert was_reset or got == PAGE[:after]  # a reset may overtake what was sent before
    assert was_reset is reset
    assert leading.broken[f"cut by {end}"] == 1


async def test_a_silent_line_is_heard_again_only_by_whoever_comes_later():
    async with line() as leading, asyncio.timeout(DEADLINE):
        async with client(leading.port, sends=False) as early:
            await leading.connected(1)
            await leading.silence(0.05)
            got, was_reset = await read_to_the_end(early)
        async with client(leading.port) as late:
            page = await late.readexactly(len(PAGE))

    assert (got, was_reset) == (b"", True)
    assert page == PAGE


async def test_after_the_calm_no_line_breaks():
    async with line(Fate(end="reset", after=1)) as leading, asyncio.timeout(DEADLINE):
        leading.calm()
        async with client(leading.port) as reader:
            page = await reader.readexactly(len(PAGE))

    assert page == PAGE


async def test_a_line_to_nobody_is_reset():
    async with Line("nowhere", free_port()) as nowhere, client(nowhere.port) as reader:
        _, was_reset = await read_to_the_end(reader)

    assert was_reset
