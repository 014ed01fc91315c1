"""What the processor does with what it cannot do, over the in-memory server."""

from collections.abc import AsyncIterator

import pytest

from services.processor import processor
from services.processor.processor import process
from shared.bus import Bus
from shared.chain import extend, read_chain
from shared.consumer import Delivery, Rejected
from shared.events import (
    CancelRequested,
    Fault,
    RunClaimed,
    RunEnded,
    TodoChat,
    TodoProcess,
    Turn,
)
from shared.ids import new_id, now
from shared.streams import ensure_streams
from shared.subjects import Address, what
from tests.support.memory_bus import MemoryBus
from tests.support.plans import a_document

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


async def a_todo(bus: Bus, step: str = "from the future") -> Delivery:
    run = Address(new_id(), new_id(), new_id())
    fact = TodoProcess(at=now(), n=0, priority=3, step=step, plan=a_document())
    subject = run.todo_process(3, 0)
    seq = await extend(bus, subject, fact, expected=0)
    return Delivery(seq, subject, run, fact, 1)


async def test_a_step_that_nobody_knows_ends_its_run(bus: Bus):
    todo = await a_todo(bus)

    await process(todo, bus=bus)

    _, link = await read_chain(bus, todo.address.facts)
    assert link.fact == RunEnded(
        at=link.fact.at,
        prev=todo.seq,
        nonce=link.fact.nonce,
        status="failed",
        attempt=0,
        text="",
        length=0,
        sha256=EMPTY,
        error=Fault(
            code="invalid_request", message="No processor knows the step “from the future”."
        ),
    )


async def test_a_step_that_is_known_is_done(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    done: list[tuple[Delivery, TodoProcess]] = []

    async def step(delivery: Delivery, todo: TodoProcess) -> None:
        done.append((delivery, todo))

    monkeypatch.setitem(processor.STEPS, "known", step)
    todo = await a_todo(bus, "known")

    await process(todo, bus=bus)

    assert done == [(todo, todo.fact)]


async def test_a_second_delivery_changes_nothing(bus: Bus):
    todo = await a_todo(bus)
    await process(todo, bus=bus)
    before = await read_chain(bus, todo.address.facts)

    await process(todo, bus=bus)

    assert await read_chain(bus, todo.address.facts) == before


async def test_a_cancel_that_came_first_wins_and_the_run_ends(bus: Bus):
    todo = await a_todo(bus)
    await extend(bus, todo.address.fact("cancel"), CancelRequested(at=now()), expected=todo.seq)

    await process(todo, bus=bus)

    chain = await read_chain(bus, todo.address.facts)
    assert [what(link.subject) for link in chain] == ["todo.process.3.0", "cancel", "final"]
    final = chain[-1].fact
    assert isinstance(final, RunEnded)
    assert (final.status, final.error) == ("cancelled", None)


async def test_a_run_that_another_processor_claimed_is_left_to_it(bus: Bus):
    todo = await a_todo(bus)
    claim = RunClaimed(at=now(), worker="newer", todo=todo.seq, prompt=None)
    await extend(bus, todo.address.fact("claim"), claim, expected=todo.seq)

    await process(todo, bus=bus)

    chain = await read_chain(bus, todo.address.facts)
    assert [what(link.subject) for link in chain] == ["todo.process.3.0", "claim"]


async def test_a_fact_that_is_no_process_todo_is_rejected(bus: Bus):
    turn = Turn(user_message_id="u", assistant_message_id="a", content="?")
    todo = await a_todo(bus)

    with pytest.raises(Rejected):
        await process(todo._replace(fact=TodoChat(at=now(), n=0, turn=turn)), bus=bus)
