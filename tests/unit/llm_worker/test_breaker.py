"""The circuit breaker, on records in memory and by a clock that is moved by hand."""

import asyncio
import re

import pytest

from services.llm_worker.breaker import FORGOTTEN, Breaker, BreakerStoreUnavailable
from services.llm_worker.providers.base import ProviderError
from shared.offers import Circuit, OpenCircuit

THRESHOLD = 3
COOLDOWN = 60.0
BUSY = ProviderError("busy", transient=True)
GONE = ProviderError("cannot be reached", transient=True, whole=True)
REFUSED = ProviderError("refused", transient=False)


class MemoryBreakerStore:
    """Values with revisions; counts what it was asked; ``down`` makes it unreachable."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.gets = self.puts = 0
        self.down = False

    async def get(self, key: str) -> tuple[bytes | None, int]:
        self.gets += 1
        await self._travel()
        return self.values.get(key, (None, 0))

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        self.puts += 1
        await self._travel()
        if self.values.get(key, (None, 0))[1] != revision:
            return False
        self.values[key] = (value, revision + 1)
        return True

    async def every_value(self) -> list[bytes]:
        await self._travel()
        return [value for value, _ in self.values.values()]

    async def _travel(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise BreakerStoreUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> MemoryBreakerStore:
    return MemoryBreakerStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(store: MemoryBreakerStore, clock: Clock) -> Breaker:
    return worker(store, clock)


def worker(store: MemoryBreakerStore, clock: Clock) -> Breaker:
    """One worker's breaker."""
    return Breaker(store, threshold=THRESHOLD, cooldown=COOLDOWN, clock=clock)


async def trip(breaker: Breaker, fault: ProviderError = BUSY) -> None:
    for _ in range(THRESHOLD):
        await breaker.failed("openai", "m", fault)


async def whole_provider(breaker: Breaker) -> Circuit:
    """How the circuit of the provider as a whole is."""
    circuits = await breaker.open_circuits()
    states: list[Circuit] = [each.state for each in circuits if each.model is None]
    return states[0] if states else "closed"


async def is_let_through(breaker: Breaker, provider: str = "openai", model: str = "m") -> bool:
    try:
        await breaker.admit(provider, model)
    except ProviderError:
        return False
    return True


async def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker):
    for _ in range(THRESHOLD - 1):
        await breaker.failed("openai", "m", BUSY)
    before = await is_let_through(breaker)

    await breaker.failed("openai", "m", BUSY)

    assert (before, await is_let_through(breaker)) == (True, False)


async def test_an_open_circuit_says_when_to_come_back(breaker: Breaker, clock: Clock):
    await trip(breaker)
    clock.now += 20

    with pytest.raises(ProviderError) as raised:
        await breaker.admit("openai", "m")

    fault = raised.value
    assert (fault.code, fault.transient, fault.retry_after) == ("provider_unavailable", True, 40)
    assert fault.message.endswith(" is left alone for a while. Try again in 40 s.")


async def test_an_open_circuit_names_the_failure_and_the_run_but_not_what_the_provider_said(
    breaker: Breaker,
):
    for run in ("first", "last"):
        fault = ProviderError("no “my secret plan” today", transient=True, status=500)
        await breaker.failed("openai", "m", fault, run=run)
    await breaker.failed("openai", "m", BUSY, run="that opened it")

    with pytest.raises(ProviderError) as raised:
        await breaker.admit("openai", "m")

    assert raised.value.message == (
        "The model 'm' of openai has failed 3 times in a row, last with provider_error in run "
        "that opened it, and is left alone for a while. Try again in 60 s."
    )


async def test_one_provider_s_failures_are_not_another_s(breaker: Breaker):
    await trip(breaker)
    await trip(breaker, GONE)

    assert await is_let_through(breaker, "anthropic")


async def test_a_broken_model_is_left_alone_and_the_others_of_its_provider_are_not(
    breaker: Breaker,
):
    await trip(breaker)

    assert not await is_let_through(breaker)
    assert await is_let_through(breaker, model="another")
    assert await whole_provider(breaker) == "closed"


async def test_a_provider_that_cannot_be_reached_is_left_alone_with_all_its_models(
    breaker: Breaker, clock: Clock
):
    for model in "abc":
        await breaker.failed("openai", model, GONE)

    assert not await is_let_through(breaker, model="another")
    assert await whole_provider(breaker) == "open"
    clock.now += COOLDOWN
    assert await is_let_through(breaker, model="another")
    assert not await is_let_through(breaker, model="a")
    assert await whole_provider(breaker) == "half_open"


async def test_a_failing_model_shows_that_its_provider_is_there(breaker: Breaker, clock: Clock):
    await trip(breaker, GONE)
    clock.now += COOLDOWN
    await breaker.admit("openai", "m")

    await breaker.failed("openai", "m", BUSY)

    assert await whole_provider(breaker) == "closed"
    assert await is_let_through(breaker, model="another")


async def test_a_probe_that_both_circuits_wait_for_is_one_call(
    store: MemoryBreakerStore, clock: Clock
):
    workers = [worker(store, clock) for _ in range(10)]
    await trip(workers[0])
    await trip(workers[0], GONE)
    clock.now += COOLDOWN

    let_through = await asyncio.gather(*(is_let_through(each) for each in workers))
    await workers[0].succeeded("openai", "m")

    assert let_through.count(True) == 1
    clock.now += 1
    assert [await is_let_through(each) for each in workers] == [True] * 10


async def test_a_probe_that_is_won_of_one_circuit_alone_is_given_back(
    breaker: Breaker, store: MemoryBreakerStore, clock: Clock
):
    await trip(breaker)
    await trip(breaker, GONE)
    clock.now += COOLDOWN
    [of_model] = [key for key in store.values if key != "openai"]
    put, late = store.put, [of_model]

    async def put_late(key: str, value: bytes, revision: int) -> bool:
        stored = await put(key, value, revision)
        if key in late:  # it was another worker that has stored it
            late.remove(key)
            return False
        return stored

    store.put = put_late
    let_through = await is_let_through(breaker)

    assert not let_through
    assert await is_let_through(breaker, model="another")


async def test_names_of_models_are_no_keys_and_are_forgotten_in_time(
    breaker: Breaker, store: MemoryBreakerStore, clock: Clock
):
    evil = "a.b c>*\n" * 10_000
    for _ in range(THRESHOLD):
        await breaker.failed("openai", evil, BUSY)
    shut = not await is_let_through(breaker, model=evil)

    clock.now += FORGOTTEN + COOLDOWN + 1

    assert shut
    assert all(re.fullmatch(r"[\w.]{1,60}", key) for key in store.values)
    assert await is_let_through(breaker, model=evil)
    assert store.puts == THRESHOLD


async def test_what_is_left_alone_is_listed_by_any_worker_with_when_it_is_tried_again(
    store: MemoryBreakerStore, clock: Clock
):
    one, other = worker(store, clock), worker(store, clock)
    await trip(one)
    await trip(one, GONE)
    await one.failed("openai", "healthy", BUSY)
    clock.now += 20

    listed = await other.open_circuits()

    assert listed == [
        OpenCircuit(provider="openai", model=None, state="open", retry_after=40),
        OpenCircuit(provider="openai", model="m", state="open", retry_after=40),
    ]


async def test_what_recovered_is_not_listed_and_what_is_tried_is_half_open(
    breaker: Breaker, clock: Clock
):
    await trip(breaker)
    clock.now += COOLDOWN
    await breaker.admit("openai", "m")

    tried = await breaker.open_circuits()
    await breaker.succeeded("openai", "m")

    assert [(each.model, each.state) for each in tried] == [("m", "half_open")]
    assert await breaker.open_circuits() == []


async def test_a_success_starts_the_count_again(breaker: Breaker):
    await breaker.failed("openai", "m", BUSY)
    await breaker.failed("openai", "m", BUSY)
    await breaker.succeeded("openai", "m")
    await breaker.failed("openai", "m", BUSY)

    assert await is_let_through(breaker)


async def test_a_refused_request_is_no_failure_of_the_provider(breaker: Breaker):
    for _ in range(THRESHOLD * 2):
        await breaker.failed("openai", "m", REFUSED)

    assert await is_let_through(breaker)


async def test_workers_count_together(store: MemoryBreakerStore, clock: Clock):
    workers = [worker(store, clock) for _ in range(THRESHOLD)]

    await asyncio.gather(*(each.failed("openai", "m", BUSY) for each in workers))

    clock.now += 1
    assert [await is_let_through(each) for each in workers] == [False] * THRESHOLD


async def test_after_the_cooldown_exactly_one_probe_is_let_through(
    store: MemoryBreakerStore, clock: Clock
):
    workers = [worker(store, clock) for _ in range(10)]
    await trip(workers[0])
    clock.now += COOLDOWN

    let_through = await asyncio.gather(*(is_let_through(each) for each in workers for _ in "ab"))

    assert let_through.count(True) == 1


async def test_a_probe_that_succeeds_closes_the_circuit(store: MemoryBreakerStore, clock: Clock):
    one, other = worker(store, clock), worker(store, clock)
    await trip(one)
    clock.now += COOLDOWN
    await one.admit("openai", "m")

    await one.succeeded("openai", "m")

    assert await is_let_through(other)
    assert await is_let_through(one)


async def test_a_probe_that_is_refused_closes_it_too_for_the_provider_did_answer(
    breaker: Breaker, clock: Clock
):
    await trip(breaker)
    clock.now += COOLDOWN
    await breaker.admit("openai", "m")

    await breaker.failed("openai", "m", REFUSED)

    assert await is_let_through(breaker)


async def test_a_probe_that_fails_opens_it_for_another_cooldown(breaker: Breaker, clock: Clock):
    await trip(breaker)
    clock.now += COOLDOWN
    await breaker.admit("openai", "m")

    await breaker.failed("openai", "m", BUSY)

    clock.now += COOLDOWN - 1
    assert not await is_let_through(breaker)
    clock.now += 1
    assert await is_let_through(breaker)


async def test_a_probe_whose_worker_died_is_up_for_winning_again(
    store: MemoryBreakerStore, clock: Clock
):
    dead, living = worker(store, clock), worker(store, clock)
    await trip(dead)
    clock.now += COOLDOWN
    await dead.admit("openai", "m")

    clock.now += COOLDOWN

    assert await is_let_through(living)
    assert not await is_let_through(living)


async def test_late_news_of_calls_before_it_opened_change_nothing(breaker: Breaker):
    await trip(breaker)

    await breaker.succeeded("openai", "m")
    await breaker.failed("openai", "m", BUSY)

    assert not await is_let_through(breaker)


async def test_a_healthy_model_costs_two_reads_a_second(
    breaker: Breaker, store: MemoryBreakerStore, clock: Clock
):
    for _ in range(100):
        await breaker.admit("openai", "m")
        await breaker.succeeded("openai", "m")

    assert (store.gets, store.puts) == (2, 0)
    clock.now += 1
    await breaker.admit("openai", "m")
    assert (store.gets, store.puts) == (4, 0)


async def test_when_the_breakers_store_is_down_everything_is_let_through(
    breaker: Breaker, store: MemoryBreakerStore, clock: Clock
):
    await trip(breaker)
    store.down = True
    clock.now += 1

    assert await is_let_through(breaker)
    await breaker.failed("openai", "m", BUSY)
    await breaker.succeeded("openai", "m")
    assert await whole_provider(breaker) == "closed"
