"""A request waits for what is new: until there is some, its time is over, or the gateway stops."""

import asyncio

from services.gateway.http.stream_writer import Waiter


class Source:
    """Has something new when it is given it."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)

    async def read(self) -> list[str]:
        found, self.pieces = self.pieces, []
        return found


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
