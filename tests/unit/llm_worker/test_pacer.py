"""Whose publish goes when."""

import asyncio

from services.llm_worker.pacer import BEAT, FEW, Pacer

DEADLINE = 10.0
ONE = 1 / 64
"""Seconds for one publish, where the rate is 64."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def turns() -> None:
    """Let the pacer's beat come at least once: a later timer fires after its own."""
    await asyncio.sleep(2 * BEAT)


async def test_what_few_ask_goes_at_once():
    gone: list[int] = []
    pacer = Pacer(1_000_000, Clock())

    for n in range(FEW):
        pacer.request(lambda n=n: gone.append(n))

    assert gone == list(range(FEW))


async def test_what_many_ask_goes_together_on_a_beat_until_few_do_again():
    gone: list[str] = []
    beat = asyncio.Event()
    pacer = Pacer(1_000_000)
    for _ in range(FEW):
        pacer.request(lambda: None)

    pacer.request(beat.set)
    one_too_many_went_at_once = beat.is_set()
    await beat.wait()
    pacer.request(lambda: gone.append("after many"))
    after_many = list(gone)
    await turns()
    pacer.request(lambda: gone.append("after few"))

    assert not one_too_many_went_at_once
    assert after_many == []
    assert gone == ["after many", "after few"]


async def test_what_the_rate_does_not_allow_waits_its_turn():
    gone: list[int] = []
    clock = Clock()
    pacer = Pacer(200, clock)  # five in a beat
    for n in range(8):
        pacer.request(lambda n=n: gone.append(n))
    at_first = list(gone)

    await turns()
    while_time_stands_still = list(gone)
    clock.now += 0.01
    await turns()

    assert at_first == while_time_stands_still == [0, 1, 2, 3, 4]
    assert gone == [0, 1, 2, 3, 4, 5, 6]


async def test_no_time_saves_up_more_than_a_beat():
    gone: list[int] = []
    clock = Clock()
    pacer = Pacer(200, clock)
    clock.now = 3600.0

    for n in range(8):
        pacer.request(lambda n=n: gone.append(n))

    assert gone == [0, 1, 2, 3, 4]


async def test_a_first_delta_does_not_wait_but_it_counts():
    gone: list[str] = []
    clock = Clock()
    pacer = Pacer(64, clock)  # one at a time
    pacer.request(lambda: gone.append("one"))
    pacer.request(lambda: gone.append("queued"))

    pacer.request(lambda: gone.append("first"), first=True)
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
    pacer.request(lambda: gone.append("one"))
    pacer.request(lambda: gone.append("two"))
    clock.now += ONE

    pacer.request(lambda: gone.append("three"))
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
    pacer.request(lambda: None)
    pacer.request(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    pacer.request(gone.set)

    clock.now += ONE
    await turns()
    clock.now += ONE

    async with asyncio.timeout(DEADLINE):
        await gone.wait()
    assert reported == ["ZeroDivisionError('division by zero')"]
