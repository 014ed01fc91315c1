"""Start an llm_worker: what it consumes, and what it listens to."""

import asyncio
from contextlib import aclosing
from functools import partial

from services.llm_worker import handlers, prices
from services.llm_worker.breaker import Breaker
from services.llm_worker.breaker_store import KvBreakerStore
from services.llm_worker.offers import Offering
from services.llm_worker.providers.recorded import Recorded
from services.llm_worker.providers.registry import Registry
from services.llm_worker.worker import Worker
from shared.events import TodoChat, TodoGenerate
from shared.ids import new_id
from shared.lifecycle import running
from shared.priorities import PriorityConsumer
from shared.pulling import Consumer
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.subjects import CHAT_TODOS, generate_todos


async def main(settings: Settings) -> None:
    """Write replies until told to stop; then finish those that run, within the grace period."""
    worker_id = new_id()
    registry = Registry(settings)
    async with running(settings, "llm_worker") as life, aclosing(registry):
        registry.add(Recorded(life.bus))
        breaker = Breaker(
            KvBreakerStore(life.bus),
            settings.breaker_threshold,
            settings.breaker_cooldown,
            exempt=frozenset((Recorded.name,)),  # what fails there failed long ago
        )
        worker = Worker(life.bus, settings, registry, breaker, worker_id)
        offering = Offering(registry, breaker, StoreClient(life.bus))
        life.measure(offering.measure)
        await life.bus.serve("llm_worker", handlers.endpoints(offering))
        await handlers.listen(life.bus, worker.owned)
        life.bus.on_reconnect(worker.owned.on_reconnect)
        watching = asyncio.create_task(worker.owned.watch(), name="watch")
        chat = Consumer(
            *(life.bus, "chat", [CHAT_TODOS], partial(handlers.TODOS[TodoChat], worker)),
            slots=settings.slots,
            lease=settings.lease,
        )
        # Chats have slots of their own, so they never wait for a job.
        jobs = PriorityConsumer(
            *(life.bus, "generate", generate_todos, partial(handlers.TODOS[TodoGenerate], worker)),
            slots=settings.job_slots,
            lease=settings.lease,
        )
        async with chat, jobs:
            life.add_check("chats", chat.check, own=True)
            life.add_check("jobs", jobs.check, own=True)
            life.ready(worker=worker_id)  # which claims name
            await registry.preload()
            await asyncio.to_thread(prices.load)
            noting = asyncio.create_task(offering.refresh_at_start(), name="refresh")
            await life.stopping.wait()
            noting.cancel()
            await asyncio.gather(chat.stop(life.grace), jobs.stop(life.grace))
        watching.cancel()
