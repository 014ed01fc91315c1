"""HTTP as it should be, and as it should not: one request and its answer on a connection."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import aiohttp
import pytest

from services.llm_worker.providers import exchange as exchange_module
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.exchange import LONGEST_HEAD, Exchange
from services.llm_worker.providers.outbound import Outbound
from shared.settings import Settings
from tests.support.raw_server import Answering, RawServer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DEADLINE = 10.0


class KeptServer:
    """Answers every request on every connection with the same bytes, and counts both."""

    def __init__(self, answer: bytes, rest: bytes = b"") -> None:
        self.connections = self.requests = 0
        self.go_on = asyncio.Event()
        """``rest`` follows once this is set."""
        self.closed = asyncio.Event()
        """Some connection ended."""
        self._answer = answer
        self._rest = rest

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.go_on.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                writer.write(self._answer)
                if self._rest:
                    await self.go_on.wait()
                    writer.write(self._rest)
        writer.close()
        self.closed.set()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    opened = Connections(Outbound(Settings()))
    yield opened
    await opened.aclose()


def pieces(*data: bytes, ends: bool = True) -> Answering:
    """An answer in these writes, after which the connection ends, or stays."""

    async def answer(path: str) -> AsyncIterable[bytes]:
        del path
        for piece in data:
            yield piece
            await asyncio.sleep(0)
        if not ends:
            await asyncio.Event().wait()

    return answer


async def read(exchange: Exchange) -> bytes:
    """All of the body."""
    body = bytearray()

    def take(data: bytes) -> bool:
        body.extend(data)
        return False

    async with asyncio.timeout(DEADLINE):
        await exchange.read_into(take)
    exchange.leave()
    return bytes(body)


async def given_back(exchange: Exchange) -> None:
    """Wait until its connection is another's, or closed."""
    done = asyncio.Event()
    exchange._connection.add_callback(done.set)
    async with asyncio.timeout(DEADLINE):
        await done.wait()


async def body_from(connections: Connections, answer: Answering) -> bytes:
    async with RawServer(answer) as server, asyncio.timeout(DEADLINE):
        return await read(await connections.request("GET", server.url, {}))


# -- bodies -------------------------------------------------------------------------------


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
CUT_CHUNKS = [b"2;x=y\r\nhe", b"\r\n3\r\nl", b"lo\r\n0\r\nTrailer: x\r\n\r\n"]


@pytest.mark.parametrize(
    "answer",
    [
        pieces(OK + b"Content-Length: 5\r\n\r\nhello", ends=False),
        pieces(CHUNKED + b"5\r\nhello\r\n" + END, ends=False),
        pieces(CHUNKED, *CUT_CHUNKS, ends=False),
        pieces(OK + b"\r\nhel", b"lo"),
        pieces(b"HTTP/1.0 200 OK\r\n\r\nhello"),
        pieces(b"HTTP/1.1 100 Continue\r\n\r\n", HINTS, OK + b"\r\nhello"),
    ],
    ids=["length", "chunks", "cut chunks", "to the end", "old", "after others"],
)
async def test_a_body_is_read_to_its_end(connections: Connections, answer: Answering):
    assert await body_from(connections, answer) == b"hello"


async def test_every_cut_of_an_answer_reads_alike(connections: Connections):
    whole = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n" + END

    for at in range(1, len(whole)):
        assert await body_from(connections, pieces(whole[:at], whole[at:])) == b"hello world"


async def test_a_second_answer_for_which_nobody_asked_is_no_part_of_the_first(
    connections: Connections,
):
    first = OK + b"X-Is: first\r\nContent-Length: 5\r\n\r\nhello"
    second = b"HTTP/1.1 500 No\r\nX-Is: second\r\nContent-Length: 3\r\n\r\nbad"

    async with RawServer(pieces(first + second, ends=False)) as server:
        exchange = await connections.request("GET", server.url, {})
        body = await read(exchange)

    assert (exchange.status, exchange.headers["x-is"], body) == (200, "first", b"hello")


@pytest.mark.parametrize(
    "answer",
    [
        pieces(OK + b"Content-Length: 9\r\n\r\nhello"),
        pieces(CHUNKED + b"9\r\nhello"),
        pieces(CHUNKED + b"5\r\nhello\r\n"),
        pieces(CHUNKED + b"5\r\nhelloXX", ends=False),
        pieces(CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\nhello", ends=False),
        pieces(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello"),
    ],
    ids=["short", "cut chunk", "no last chunk", "no chunk", "huge chunk", "two lengths"],
)
async def test_a_body_that_breaks_off_or_lies_is_an_error(
    connections: Connections, answer: Answering
):
    with pytest.raises(aiohttp.ClientError):
        await body_from(connections, answer)


@pytest.mark.parametrize(
    "start",
    [OK, CHUNKED + b"5\r\nhello\r\n0\r\n"],
    ids=["head", "trailer"],
)
async def test_fields_without_end_are_given_up_on(connections: Connections, start: bytes):
    field = b"X-More: " + b"x" * 1000 + b"\r\n"

    with pytest.raises(aiohttp.ClientError, match="no end"):
        await body_from(connections, pieces(start, *[field] * (2 * LONGEST_HEAD // len(field))))


async def test_the_heads_of_chunks_do_not_add_up(connections: Connections):
    size = b"%x;%b\r\n" % (5, b"x" * 1000)
    count = 2 * LONGEST_HEAD // len(size)
    server = KeptServer(CHUNKED)

    async with server.serving() as url:
        exchange = await connections.request("GET", url, {})
        for _ in range(count):
            exchange.data_received(size)
            exchange.data_received(b"hello\r\n")
        exchange.data_received(END)

        assert await read(exchange) == b"hello" * count


# -- connections ----------------------------------------------------------------------------


async def test_a_connection_is_used_again_after_the_whole_answer(connections: Connections):
    server = KeptServer(CHUNKED + b"5\r\nhello\r\n" + END)

    async with server.serving() as url:
        for _ in range(3):
            assert await read(await connections.request("GET", url, {})) == b"hello"

    assert (server.connections, server.requests) == (1, 3)


async def test_a_connection_is_used_again_when_the_end_comes_soon_after_who_read_has_enough(
    connections: Connections,
):
    server = KeptServer(CHUNKED + b"5\r\nhello\r\n", rest=END)

    async with server.serving() as url:
        first = await connections.request("GET", url, {})
        await first.read_into(lambda _: True)
        first.leave()
        server.go_on.set()
        await given_back(first)
        (await connections.request("GET", url, {})).leave()

    assert (server.connections, server.requests) == (1, 2)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        OK + b"Content-Length: 5\r\n\r\nhelloand more",
    ],
    ids=["closing", "too much"],
)
async def test_a_connection_that_cannot_be_trusted_is_closed(
    connections: Connections, answer: bytes
):
    server = KeptServer(answer)

    async with server.serving() as url:
        for _ in range(2):
            assert await read(await connections.request("GET", url, {})) == b"hello"

    assert server.connections == 2


async def test_an_answer_that_is_left_early_closes_its_connection(connections: Connections):
    server = KeptServer(CHUNKED + b"5\r\nhello\r\n", rest=END)

    async with server.serving() as url, asyncio.timeout(DEADLINE):
        (await connections.request("GET", url, {})).leave()
        server.go_on.set()

        await server.closed.wait()


async def test_an_end_that_does_not_come_is_not_waited_for(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exchange_module, "LINGER", 0.01)
    server = KeptServer(CHUNKED + b"5\r\nhello\r\n", rest=END)

    async with server.serving() as url:
        first = await connections.request("GET", url, {})
        await first.read_into(lambda _: True)
        first.leave()
        await given_back(first)
        (await connections.request("GET", url, {})).leave()

    assert server.connections == 2


# -- who takes ------------------------------------------------------------------------------


async def test_what_a_taker_raises_is_raised_where_the_body_is_waited_for(
    connections: Connections,
):
    def take(data: bytes) -> bool:
        raise LookupError(data)

    async with RawServer(pieces(CHUNKED, b"5\r\nhello\r\n", ends=False)) as server:
        exchange = await connections.request("GET", server.url, {})
        with pytest.raises(LookupError, match="hello"):
            await exchange.read_into(take)
        exchange.leave()


async def test_a_taker_is_called_in_the_context_of_who_waits(connections: Connections):
    run = ContextVar("run", default="none")
    seen: list[str] = []

    def take(data: bytes) -> bool:
        del data
        seen.append(run.get())
        return False

    server = KeptServer(CHUNKED + b"5\r\nhello\r\n" + END)
    async with server.serving() as url:
        for name in ("first", "second"):
            run.set(name)
            exchange = await connections.request("GET", url, {})
            await exchange.read_into(take)
            exchange.leave()

    assert (seen, server.connections) == (["first", "second"], 1)
