"""What a consumer makes of a handler's outcomes, over the real server and the twin."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from shared.bus import Bus, NoAnswer
from shared.chain import extend
from shared.consumer import LEASE, DeadLetter, Delivery, Handler, Rejected, RetryLater
from shared.events import RunEnded, TodoChat, Turn, decode_fact
from shared.ids import new_id, now
from shared.pulling import Consumer
from shared.streams import DEAD, ensure_streams
from shared.subjects import EVENTS, Address, dead_letters
from tests.support.memory_bus import Connect, MemoryBus, connector
from tests.support.nats_server import NatsServer

DEADLINE = 20.0


@pytest.fixture(params=["twin", "server"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return connector(request)


@pytest.fixture
async def bus(connect: Connect) -> AsyncIterator[Bus]:
    async with connect() as bus:
        await ensure_streams(bus)
        yield bus


@pytest.fixture
async def twin() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


class Desk:
    """One user's todos and the durable consumer of them; what was delivered lies in a queue."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.user = new_id()
        self.name = f"test-{self.user}"
        self.delivered: asyncio.Queue[Delivery] = asyncio.Queue()
        self.go_on = asyncio.Event()

    def consumer(
        self, handler: Handler, *, slots: int = 4, lease: float = LEASE, bus: Bus | None = None
    ) -> Consumer:
        async def note(delivery: Delivery) -> None:
            self.delivered.put_nowait(delivery)
            await handler(delivery)

        todos = f"evt.{self.user}.*.*.todo.chat.*"
        return Consumer(bus or self.bus, self.name, [todos], note, slots=slots, lease=lease)

    async def todo(self) -> int:
        address = Address(self.user, new_id(), new_id())
        turn = Turn(user_message_id="u", assistant_message_id="a", content="?")
        todo = TodoChat(at=now(), n=0, turn=turn)
        return await extend(self.bus, address.todo_chat(0), todo, expected=0)

    async def next(self) -> Delivery:
        async with asyncio.timeout(DEADLINE):
            return await self.delivered.get()

    async def unsettled(self) -> int:
        """Deliveries that the server still waits to hear of, and todos not delivered yet."""
        if isinstance(self.bus, MemoryBus):
            durable = self.bus.server.streams[EVENTS].durables[self.name]
            return len(durable.unacked)
        info = await self.bus.api(f"CONSUMER.INFO.{EVENTS}.{self.name}")
        return info["num_ack_pending"] + info["num_pending"]

    async def settled(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while await self.unsettled():  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.01)

    async def letters(self) -> list[DeadLetter]:
        stored = await self.bus.read(DEAD, dead_letters(self.name))
        return [msgspec.json.decode(letter.data, type=DeadLetter) for letter in stored]

    async def wait(self, _: Delivery) -> None:
        await self.go_on.wait()


async def nothing(_: Delivery) -> None:
    pass


def fails(*faults: Exception) -> Handler:
    """Raises one after the other, then returns."""
    left = list(faults)

    async def handle(_: Delivery) -> None:
        if left:
            raise left.pop(0)

    return handle


# -- outcomes -----------------------------------------------------------------------


async def test_a_handler_that_returns_is_done(bus: Bus):
    desk = Desk(bus)
    seq = await desk.todo()

    async with desk.consumer(nothing):
        delivery = await desk.next()
        await desk.settled()

    assert (delivery.seq, delivery.delivered, delivery.address.user) == (seq, 1, desk.user)
    assert isinstance(delivery.fact, TodoChat)
    assert (desk.delivered.empty(), await desk.letters()) == (True, [])


@pytest.mark.parametrize("fault", [RetryLater(0.05, "busy"), NoAnswer("away"), OSError("a defect")])
async def test_a_handler_that_fails_is_asked_again(twin: MemoryBus, fault: Exception):
    desk = Desk(twin)
    seq = await desk.todo()

    async with desk.consumer(fails(fault)):
        first = await desk.next()
        await asyncio.sleep(0)
        twin.server.advance(2.0)
        second = await desk.next()
        await desk.settled()

    assert [(d.seq, d.delivered) for d in (first, second)] == [(seq, 1), (seq, 2)]
    assert await desk.letters() == []


async def test_what_can_never_be_sent_is_not_tried_again_and_its_run_ends(bus: Bus):
    desk = Desk(bus)
    seq = await desk.todo()

    async def sends_too_much(_: Delivery) -> None:
        bus.post("sig.test", bytes(9 * 1024 * 1024))

    async with desk.consumer(sends_too_much):
        delivery = await desk.next()
        await desk.settled()

    [letter] = await desk.letters()
    [stored] = await bus.facts_after(EVENTS, delivery.address.facts, seq)
    final = decode_fact(stored.data)
    assert isinstance(final, RunEnded)
    assert final.status == "failed"
    assert (letter.seq, letter.kind) == (seq, "rejected")
    assert "more than nats-server's max_payload" in letter.reason
    assert desk.delivered.empty()


async def test_a_dead_letter_is_short_whatever_its_reason_quotes(bus: Bus):
    desk = Desk(bus)
    await desk.todo()

    async with desk.consumer(fails(Rejected("\x01" * 10_000_000))):
        await desk.next()
        await desk.settled()

    [letter] = await desk.letters()
    assert letter.reason == "\x01" * 2_000 + " …"


async def test_a_handler_says_how_soon_it_is_asked_again(bus: Bus):
    desk = Desk(bus)
    seq = await desk.todo()

    async with desk.consumer(fails(RetryLater(0.05, "busy"))):
        first = await desk.next()
        turn_the_clock(bus, 0.05)
        second = await desk.next()
        await desk.settled()

    assert [(d.seq, d.delivered) for d in (first, second)] == [(seq, 1), (seq, 2)]


async def test_what_no_try_can_handle_becomes_a_dead_letter(bus: Bus):
    desk = Desk(bus)
    seq = await desk.todo()

    async with desk.consumer(fails(Rejected("not mine"))):
        delivery = await desk.next()
        await desk.settled()

    [letter] = await desk.letters()
    assert letter == DeadLetter(
        consumer=desk.name,
        seq=seq,
        subject=delivery.subject,
        reason="not mine",
        at=letter.at,
        kind="rejected",
        deliveries=1,
        errors=0,
    )
    assert desk.delivered.empty()


async def test_a_run_whose_todo_nobody_can_handle_ends_failed(bus: Bus):
    desk = Desk(bus)
    address = Address(desk.user, new_id(), new_id())
    await bus.append(address.todo_chat(0), b'{"type": "from.the.future"}', expected=0)

    async with desk.consumer(nothing):
        await desk.todo()
        await desk.next()
        await desk.settled()

    head = await bus.head(EVENTS, address.facts)
    assert head is not None
    final = decode_fact(head.data)
    assert isinstance(final, RunEnded)
    assert (final.status, final.attempt, final.text) == ("failed", 0, "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"type": "from.the.future"}', "from.the.future"),
        (b'{"type": "cancel"}', "missing required field"),
        (b"no JSON", "malformed"),
        (b'{"type": "\xff"}', "codec can't decode"),
        (b'{"type": "cancel", "at": {"$file":', "truncated"),
    ],
)
async def test_a_fact_that_does_not_decode_becomes_a_dead_letter_at_once(
    bus: Bus, data: bytes, reason: str
):
    desk = Desk(bus)
    address = Address(desk.user, new_id(), new_id())
    seq = await bus.append(address.todo_chat(0), data, expected=0)

    async with desk.consumer(nothing):
        await desk.todo()
        await desk.next()
        await desk.settled()

    [letter] = await desk.letters()
    assert (letter.seq, letter.kind) == (seq, "undecodable")
    assert reason in letter.reason


async def test_a_fact_whose_fields_were_erased_becomes_a_dead_letter(bus: Bus):
    desk = Desk(bus)
    address = Address(desk.user, new_id(), new_id())
    gone = b'{"type": "cancel", "at": "2026-01-01T00:00:00Z", "reason": {"$file": "none"}}'
    seq = await bus.append(address.todo_chat(0), gone, expected=0)

    async with desk.consumer(nothing):
        await desk.todo()
        await desk.next()
        await desk.settled()

    assert [letter.seq for letter in await desk.letters()] == [seq]


async def test_a_defect_becomes_a_dead_letter_after_ten_times(twin: MemoryBus):
    desk = Desk(twin)
    seq = await desk.todo()

    async with desk.consumer(fails(*(ZeroDivisionError(n) for n in range(20)))):
        await desk.next()
        for _ in range(9):
            await asyncio.sleep(0)
            twin.server.advance(30.0)
            await desk.next()
        await desk.settled()

    assert [(letter.seq, letter.reason) for letter in await desk.letters()] == [
        (seq, "ZeroDivisionError(9)")
    ]


async def test_being_put_off_does_not_count_as_failing(twin: MemoryBus):
    desk = Desk(twin)
    await desk.todo()
    busy = [RetryLater(1.0, "busy") for _ in range(20)]

    async with desk.consumer(fails(*busy, OSError("once"))):
        delivered: list[int] = []
        for _ in range(22):
            delivered.append((await desk.next()).delivered)
            await asyncio.sleep(0)
            twin.server.advance(3.0)
        await desk.settled()

    assert (delivered[-1], await desk.letters()) == (22, [])


async def test_a_dead_letter_that_cannot_be_stored_is_tried_again(twin: MemoryBus):
    desk = Desk(twin)
    await desk.todo()
    twin.server.refuse(1)

    async with desk.consumer(fails(Rejected("1"), Rejected("2"))):
        await desk.next()
        await asyncio.sleep(0.01)
        twin.server.advance(30.0)
        await desk.next()
        await desk.settled()

    assert [letter.reason for letter in await desk.letters()] == ["2"]


async def test_a_consumer_that_stopped_asking_says_so(bus: Bus):
    desk = Desk(bus)

    async with desk.consumer(nothing) as consumer:
        before = await consumer.check()
        assert consumer._tending is not None
        consumer._tending.cancel()
        await asyncio.wait({consumer._tending})
        after = await consumer.check()

    assert (before, after) == (None, f"{desk.name} todos are not asked for any more")


# -- slots --------------------------------------------------------------------------


async def test_no_more_than_the_slots_are_worked_on_and_all_are_done(bus: Bus):
    desk = Desk(bus)
    todos = {await desk.todo() for _ in range(20)}
    most = at_it = 0

    async def handle(_: Delivery) -> None:
        nonlocal most, at_it
        at_it += 1
        most = max(most, at_it)
        await bus.head(EVENTS, "evt.>")
        at_it -= 1

    async with desk.consumer(handle, slots=3):
        done = {(await desk.next()).seq for _ in range(20)}
        await desk.settled()

    assert (done, most) == (todos, 3)


async def test_two_workers_share_the_todos(bus: Bus, connect: Connect):
    desk = Desk(bus)
    async with (
        connect() as other,
        desk.consumer(desk.wait, slots=2),
        desk.consumer(desk.wait, slots=2, bus=other),
    ):
        todos = [await desk.todo() for _ in range(4)]
        at_work = {(await desk.next()).seq for _ in range(4)}
        desk.go_on.set()
        await desk.settled()

    assert at_work == set(todos)
    assert desk.delivered.empty()


# -- redelivery ---------------------------------------------------------------------


def turn_the_clock(bus: Bus, seconds: float) -> None:
    """Make it happen now on the twin; the real server takes its time."""
    if isinstance(bus, MemoryBus):
        asyncio.get_running_loop().call_later(0.01, bus.server.advance, seconds)


async def test_the_todo_of_a_worker_that_vanished_is_delivered_to_another(
    bus: Bus, connect: Connect
):
    desk = Desk(bus)
    seq = await desk.todo()
    async with connect() as other:
        vanishing = desk.consumer(desk.wait, slots=1, lease=1.0, bus=other)
        await vanishing.__aenter__()
        await desk.next()
        for task in (vanishing._tending, vanishing._work._alive):
            assert task is not None
            task.cancel()  # it neither keeps alive nor hands back
    async with desk.consumer(nothing, lease=1.0):
        turn_the_clock(bus, 1.0)
        again = await desk.next()
        await desk.settled()

    assert (again.seq, again.delivered) == (seq, 2)
    desk.go_on.set()


async def test_a_long_work_is_kept_alive(twin: MemoryBus):
    lease = 0.03
    desk = Desk(twin)
    await desk.todo()
    alive = asyncio.Event()
    await twin.listen("$JS.ACK.>", lambda m: alive.set() if m.data == b"+WPI" else None)

    async with desk.consumer(desk.wait, lease=lease):
        await desk.next()
        for _ in range(5):
            twin.server.advance(0.9 * lease)
            alive.clear()
            async with asyncio.timeout(DEADLINE):
                await alive.wait()
        desk.go_on.set()
        await desk.settled()

    assert desk.delivered.empty()


async def test_a_pull_that_expired_is_followed_by_another(twin: MemoryBus):
    desk = Desk(twin)

    async with desk.consumer(nothing):
        await asyncio.sleep(0)
        for _ in range(3):
            twin.server.advance(31.0)
            await desk.todo()
            await desk.next()
        await desk.settled()

    assert desk.delivered.empty()


# -- stopping -----------------------------------------------------------------------


async def test_a_stop_lets_the_work_at_hand_finish(bus: Bus):
    desk = Desk(bus)
    await desk.todo()

    async with desk.consumer(desk.wait) as consumer:
        await desk.next()
        stopping = asyncio.create_task(consumer.stop(grace=DEADLINE))
        await bus.head(EVENTS, "evt.>")
        desk.go_on.set()
        await stopping

    await desk.settled()
    assert desk.delivered.empty()


async def test_a_stop_hands_back_at_once_what_does_not_finish(bus: Bus, connect: Connect):
    desk = Desk(bus)
    seqs = {await desk.todo() for _ in range(3)}
    async with connect() as other, desk.consumer(desk.wait, bus=other) as consumer:
        for _ in range(3):
            await desk.next()
        async with asyncio.timeout(LEASE / 2):  # so it was not the server that gave up
            await consumer.stop(grace=0)
            async with desk.consumer(nothing):
                again = {(await desk.next()).seq for _ in range(3)}
                await desk.settled()

    assert again == seqs


async def test_a_consumer_that_stops_takes_nothing_more(bus: Bus, connect: Connect):
    desk = Desk(bus)
    await desk.todo()
    async with connect() as other, desk.consumer(desk.wait, slots=4, bus=other) as draining:
        await desk.next()
        stopping = asyncio.create_task(draining.stop(grace=DEADLINE))
        await asyncio.sleep(0)
        async with desk.consumer(nothing):
            late = await desk.todo()
            taken = await desk.next()
            desk.go_on.set()
            await stopping
            await desk.settled()

    assert taken.seq == late


# -- a bad day ----------------------------------------------------------------------


async def until_delivered(desk: Desk, wanted: int) -> None:
    while (await desk.next()).seq != wanted:
        pass


async def test_a_consumer_goes_on_after_its_server_was_killed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        await ensure_streams(bus)
        desk = Desk(bus)
        async with desk.consumer(nothing, slots=2):
            await until_delivered(desk, await desk.todo())
            await own_nats_server.kill()
            await own_nats_server.start()
            await bus.wait_connected()

            for _ in range(5):  # more than the slots, so it asked for more as well
                await until_delivered(desk, await desk.todo())
            await desk.settled()


async def test_a_consumer_goes_on_after_its_connection_was_cut(twin: MemoryBus):
    desk = Desk(twin)

    async with desk.consumer(nothing, slots=2):
        for _ in range(3):
            await twin.disconnect()
            await twin.reconnect()
            for _ in range(3):
                await until_delivered(desk, await desk.todo())
        await desk.settled()
        await twin.head(EVENTS, "evt.>")  # so the last pull has arrived

        assert twin.server.streams[EVENTS].durables[desk.name].owed == 2


async def test_a_consumer_that_was_deleted_is_made_anew(bus: Bus):
    desk = Desk(bus)

    async with desk.consumer(nothing):
        await until_delivered(desk, await desk.todo())
        await desk.settled()
        await bus.api(f"CONSUMER.DELETE.{EVENTS}.{desk.name}")

        await until_delivered(desk, await desk.todo())
        await desk.settled()
