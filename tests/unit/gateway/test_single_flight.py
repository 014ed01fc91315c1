"""Work that many wait for is done once, and nobody who leaves breaks it off."""

import asyncio

import pytest

from services.gateway.single_flight import SingleFlight


class Work:
    """Counts how often it was begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.end = asyncio.Event()
        self.flights = SingleFlight(self._do, name="work")

    async def _do(self, key: str) -> str:
        self.begun.append(key)
        await self.end.wait()
        if key == "bad":
            raise ValueError(key)
        return f"done {key}"


async def test_whoever_asks_meanwhile_shares_the_answer():
    work = Work()
    waiting = [asyncio.create_task(work.flights.of(key).result()) for key in ("a", "a", "b")]
    await asyncio.sleep(0)

    work.end.set()

    assert await asyncio.gather(*waiting) == ["done a", "done a", "done b"]
    assert work.begun == ["a", "b"]


async def test_who_leaves_breaks_nothing_off():
    work = Work()
    leaving = asyncio.create_task(work.flights.of("a").result())
    staying = asyncio.create_task(work.flights.of("a").result())
    await asyncio.sleep(0)

    leaving.cancel()
    work.end.set()

    assert await staying == "done a"


async def test_when_it_is_over_it_is_done_anew():
    work = Work()
    work.end.set()
    await work.flights.of("a").result()
    await asyncio.sleep(0)

    await work.flights.of("a").result()

    assert work.begun == ["a", "a"]


async def test_a_failure_is_everybodys_and_is_not_kept():
    work = Work()
    flight = work.flights.of("bad")
    work.end.set()

    with pytest.raises(ValueError, match="bad"):
        await flight.result()

    assert not await flight.landed()
    assert work.flights.under_way("bad") is None


async def test_waiting_for_it_can_be_cut_short():
    work = Work()

    assert not await work.flights.of("a").landed(within=0.01)
    assert work.flights.under_way("a") is not None

    work.flights.cancel()
