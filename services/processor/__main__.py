"""Start a processor: what it consumes, and what it listens to."""

import asyncio
from functools import partial

from services.processor import handlers
from services.processor.processor import Processor
from shared.child import sweep_directories
from shared.events import TodoProcess
from shared.ids import new_id
from shared.lifecycle import running
from shared.priorities import PriorityConsumer
from shared.settings import Settings
from shared.subjects import process_todos


async def main(settings: Settings) -> None:
    """Work on steps until told to stop; then finish those that run, within the grace period."""
    worker_id = new_id()
    await asyncio.to_thread(sweep_directories)
    async with running(settings, "processor") as life:
        processor = Processor(life.bus, worker_id, silent_deaths=settings.silent_deaths)
        await handlers.listen(life.bus, processor.owned)
        life.bus.on_reconnect(processor.owned.on_reconnect)
        await life.bus.serve("processor", {})  # it says that it is there, and nothing else
        watching = asyncio.create_task(processor.owned.watch(), name="watch")
        async with PriorityConsumer(
            *(life.bus, "process", process_todos, partial(handlers.TODOS[TodoProcess], processor)),
            slots=settings.steps,
            lease=settings.lease,
        ) as steps:
            life.add_check("todos", steps.check, own=True)
            life.ready(worker=worker_id)  # which claims name
            await life.stopping.wait()
            await steps.stop(life.grace)
        watching.cancel()
