"""Whose publish goes when."""

import asyncio

from services.llm_worker.pacer import Pacer

DEADLINE = 10.0
ONE = 1 / 64
"""Seconds for one publish, where the rate is 64."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns() -> None:
    """Let the pacer tick at least once: a later timer fires after its own."""
    await asyncio.sleep(0.02)


async def test_what_the_rate_allows_goes_at_once():
    gone: list[int] = []
    pacer = Pacer(500, Clock())  # a burst of five

    for n in range(5):
        pacer.ask(lambda n=n: gone.append(n))

    assert gone == [0, 1, 2, 3, 4]


async def test_what_the_rate_does_not_allow_waits_its_turn():
    gone: list[int] = []
    clock = Clock()
    pacer = Pacer(500, clock)
    for n in range(8):
        pacer.ask(lambda n=n: gone.append(n))
    at_first = list(gone)

    await turns()
    while_time_stands_still = list(gone)
    clock.now += 0.004
    await turns()

    assert at_first == while_time_stands_still == [0, 1, 2, 3, 4]
    assert gone == [0, 1, 2, 3, 4, 5, 6]


async def test_no_time_saves_up_more_than_a_burst():
    gone: list[int] = []
    clock = Clock()
    pacer = Pacer(500, clock)
    clock.now = 3600.0

    for n in range(8):
        pacer.ask(lambda n=n: gone.append(n))

    assert gone == [0, 1, 2, 3, 4]


async def test_a_first_delta_does_not_wait_but_it_counts():
    gone: list[str] = []
    clock = Clock()
    pacer = Pacer(64, clock)  # one at a time
    pacer.ask(lambda: gone.append("one"))
    pacer.ask(lambda: gone.append("queued"))

    pacer.ask(lambda: gone.append("first"), first=True)
    at_once = list(gone)
    clock.now += ONE
    await turns()
    after_one_turn = list(gone)
    clock.now += ONE
    await turns()

    assert at_once == after_one_turn == ["one", "first"]
    assert gone == ["one", "first", "queued"]


async def test_nobody_who_asks_later_overtakes_the_queue():
    gone: list[str] = []
    clock = Clock()
    pacer = Pacer(64, clock)
    pacer.ask(lambda: gone.append("one"))
    pacer.ask(lambda: gone.append("two"))
    clock.now += ONE

    pacer.ask(lambda: gone.append("three"))
    clock.now += ONE
    await turns()
    clock.now += ONE
    await turns()

    assert gone == ["one", "two", "three"]


async def test_one_that_fails_does_not_keep_the_others_from_their_turn():
    gone = asyncio.Event()
    reported: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(repr(context.get("exception"))))
    clock = Clock()
    pacer = Pacer(64, clock)
    pacer.ask(lambda: None)
    pacer.ask(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    pacer.ask(gone.set)

    clock.now += ONE
    await turns()
    clock.now += ONE

    async with asyncio.timeout(DEADLINE):
        await gone.wait()
    assert reported == ["ZeroDivisionError('division by zero')"]
