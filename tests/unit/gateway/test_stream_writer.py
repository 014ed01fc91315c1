"""A request waits for what is new: until there is some, its time is over, or the gateway stops."""

import asyncio
from types import SimpleNamespace
from typing import Any

from services.gateway.http.stream_writer import Line, Waiter


class Source:
    """Has something new when it is given it."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)

    async def read(self) -> list[str]:
        found, self.pieces = self.pieces, []
        return found


class Transport:
    """Takes what is written; ``unread`` bytes of it wait for the client."""

    def __init__(self, *, unread: int = 0, closing: bool = False) -> None:
        self.written: list[bytes] = []
        self.aborted = False
        self._unread = unread
        self._closing = closing

    def get_write_buffer_size(self) -> int:
        return self._unread

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def line_on(transport: Transport) -> Line:
    request: Any = SimpleNamespace(transport=transport)
    return Line(request)


def must_not_be_made() -> bytes:
    raise AssertionError


async def test_a_client_that_keeps_up_is_written_to_at_once():
    transport = Transport()

    assert line_on(transport).write_at_once(lambda: b"new")

    assert transport.written == [b"new"]


async def test_for_a_client_that_does_not_keep_up_nothing_is_even_made():
    for transport in (Transport(unread=1), Transport(closing=True)):
        assert not line_on(transport).write_at_once(must_not_be_made)
        assert transport.written == []


async def test_where_nothing_is_made_nothing_is_written():
    transport = Transport()

    assert not line_on(transport).write_at_once(bytes)

    assert (transport.written, transport.aborted) == ([], False)


async def test_a_frame_that_cannot_be_made_is_the_end_of_its_line_alone():
    transport = Transport()

    assert line_on(transport).write_at_once(must_not_be_made)

    assert (transport.written, transport.aborted) == ([], True)


async def test_what_is_there_already_comes_at_once():
    waiter, source = Waiter(), Source("a", "b")

    assert await waiter.next(source.read) == ["a", "b"]


async def test_it_waits_until_there_is_something_new():
    waiter, source = Waiter(), Source()
    waiting = asyncio.create_task(waiter.next(source.read))
    waiter.wake()
    await asyncio.sleep(0)

    source.pieces.append("a")
    waiter.wake()

    assert await waiting == ["a"]


async def test_a_wake_up_while_it_reads_is_not_lost():
    waiter, source = Waiter(), Source()

    async def read() -> list[str]:
        found = await source.read()
        if not found:
            source.pieces.append("came meanwhile")
            waiter.wake()
        return found

    assert await waiter.next(read) == ["came meanwhile"]


async def test_what_is_new_when_the_gateway_stops_still_comes():
    waiter, source = Waiter(), Source("last")
    waiter.stop()

    assert await waiter.next(source.read) == ["last"]
    assert await waiter.next(source.read) == []


async def test_when_its_time_is_over_it_comes_back_with_nothing():
    waiter, source = Waiter(), Source()

    assert await waiter.next(source.read, within=0.01) == []
    assert not waiter.stopping
