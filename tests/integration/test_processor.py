"""The processor behind a real consumer: a run that nobody can work on ends."""

import asyncio
from functools import partial

from services.processor.processor import process
from shared.bus import Bus, Incoming
from shared.chain import extend, read_chain
from shared.consumer import Consumer
from shared.events import RunEnded, TodoProcess
from shared.ids import new_id, now
from shared.streams import ensure_streams
from shared.subjects import EVENTS, Address
from tests.support.nats_server import NatsServer
from tests.support.plans import a_document

DEADLINE = 20.0


async def test_a_run_with_an_unknown_step_ends_and_its_todo_is_settled(nats_server: NatsServer):
    run = Address(new_id(), new_id(), new_id())
    name = f"test-{run.user}"
    ended: asyncio.Queue[Incoming] = asyncio.Queue()
    todo = TodoProcess(at=now(), n=0, priority=3, step="unknown", plan=a_document())

    async with Bus(nats_server.url, name="test") as bus, asyncio.timeout(DEADLINE):
        await ensure_streams(bus)
        await bus.listen_live(f"live.{run.fact('final')}", ended.put_nowait)
        await extend(bus, run.todo_process(3, 0), todo, expected=0)
        filters = [f"evt.{run.user}.*.*.todo.process.*.*"]
        async with Consumer(bus, name, filters, partial(process, bus=bus), slots=1) as steps:
            await ended.get()
            await steps.stop(grace=DEADLINE)
        final = (await read_chain(bus, run.facts))[-1].fact
        info = await bus.api(f"CONSUMER.INFO.{EVENTS}.{name}")

    assert isinstance(final, RunEnded)
    assert (final.status, final.error and final.error.code) == ("failed", "invalid_request")
    assert (info["num_ack_pending"], info["num_pending"]) == (0, 0)
