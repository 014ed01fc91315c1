"""Which of the waiting jobs a worker gets, on the real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shared.bus import Bus
from shared.chain import extend
from shared.consumer import Delivery, RetryLater
from shared.events import TodoProcess
from shared.ids import new_id, now
from shared.priorities import PriorityConsumer
from shared.streams import ensure_streams
from shared.subjects import EVENTS, PRIORITIES, Address
from tests.support.nats_server import NatsServer
from tests.support.plans import a_document

DEADLINE = 30.0


class Desk:
    """One user's jobs, and what workers at them were given."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.user = new_id()
        self.name = f"test-{self.user}"
        self.taken: asyncio.Queue[int] = asyncio.Queue()
        self.handled: list[int] = []
        self.go_on = asyncio.Event()

    def consumer(
        self,
        handler: Callable[[Delivery], Awaitable[None]] | None = None,
        *,
        slots: int = 1,
        bus: Bus | None = None,
    ) -> PriorityConsumer:
        async def note(delivery: Delivery) -> None:
            assert isinstance(delivery.fact, TodoProcess)
            self.taken.put_nowait(delivery.fact.priority)
            if handler is not None:
                await handler(delivery)
            self.handled.append(delivery.seq)

        return PriorityConsumer(bus or self.bus, self.name, self.todos, note, slots=slots)

    def todos(self, priority: int) -> str:
        return f"evt.{self.user}.*.*.todo.process.{priority}.*"

    async def todo(self, priority: int) -> int:
        address = Address(self.user, new_id(), new_id())
        todo = TodoProcess(at=now(), n=0, priority=priority, step="extract", plan=a_document())
        return await extend(self.bus, address.todo_process(priority, 0), todo, expected=0)

    async def wait(self, _: Delivery) -> None:
        await self.go_on.wait()

    async def next(self) -> int:
        """The priority of the next job that was taken."""
        async with asyncio.timeout(DEADLINE):
            return await self.taken.get()

    async def settled(self) -> None:
        """Wait until the server has nothing to hand out and nothing to hear of."""
        async with asyncio.timeout(DEADLINE):
            while await self._unsettled():  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.02)

    async def _unsettled(self) -> int:
        infos = [
            await self.bus.api(f"CONSUMER.INFO.{EVENTS}.{self.name}-{level}")
            for level in PRIORITIES
        ]
        return sum(info["num_ack_pending"] + info["num_pending"] for info in infos)


@pytest.fixture
async def desk(nats_server: NatsServer) -> AsyncIterator[Desk]:
    async with Bus(nats_server.url, name="test") as bus:
        await ensure_streams(bus)
        yield Desk(bus)


async def test_a_free_worker_takes_the_highest_that_waits(desk: Desk):
    for priority in (0, 5, 9, 5, 1):
        await desk.todo(priority)

    async with desk.consumer():
        taken = [await desk.next() for _ in range(5)]

    assert taken == [9, 5, 5, 1, 0]


async def test_a_worker_that_becomes_free_takes_the_highest_that_came_meanwhile(desk: Desk):
    async with desk.consumer(desk.wait):
        await desk.todo(0)
        first = await desk.next()
        for priority in (2, 8, 3):
            await desk.todo(priority)
        desk.go_on.set()
        rest = [await desk.next() for _ in range(3)]

    assert (first, rest) == (0, [8, 3, 2])


async def test_an_idle_worker_gets_a_job_of_any_priority_at_once(desk: Desk):
    async with desk.consumer():
        for priority in (0, 9, 4):
            await desk.todo(priority)
            assert await desk.next() == priority


async def test_every_slot_is_filled_the_highest_first(desk: Desk):
    for priority in (1, 7, 3, 9):
        await desk.todo(priority)

    async with desk.consumer(desk.wait, slots=3):
        taken = [await desk.next() for _ in range(3)]
        desk.go_on.set()
        last = await desk.next()

    assert (taken, last) == ([9, 7, 3], 1)


async def test_nothing_is_lost_or_handled_twice(desk: Desk):
    todos = [await desk.todo(n % 10) for n in range(60)]

    async with desk.consumer(slots=3), desk.consumer(slots=2):
        todos += [await desk.todo(n % 10) for n in range(60)]
        await desk.settled()

    assert sorted(desk.handled) == sorted(todos)


async def test_what_is_to_be_retried_comes_again(desk: Desk):
    async def fail_once(delivery: Delivery) -> None:
        if delivery.delivered == 1:
            raise RetryLater(0.1, "not now")

    todo = await desk.todo(6)
    async with desk.consumer(fail_once):
        await desk.settled()

    assert desk.handled == [todo]


async def test_what_runs_when_the_grace_is_over_goes_to_another(
    desk: Desk, nats_server: NatsServer
):
    todo = await desk.todo(3)
    async with desk.consumer(desk.wait) as stopped:
        await desk.next()
        await stopped.stop(grace=0)

    async with Bus(nats_server.url, name="other") as bus, desk.consumer(bus=bus):
        await desk.next()
        await desk.settled()

    assert desk.handled == [todo]


async def test_it_goes_on_after_the_server_was_killed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        await ensure_streams(bus)
        desk = Desk(bus)
        async with desk.consumer():
            before = await desk.todo(2)
            await desk.next()
            await own_nats_server.kill()
            await own_nats_server.start()
            await bus.wait_connected()
            after = [await desk.todo(priority) for priority in (1, 9)]
            await desk.next()
            await desk.next()
            await desk.settled()

    assert set(desk.handled) == {before, *after}
