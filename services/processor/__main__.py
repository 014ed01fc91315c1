"""Start a processor: what it consumes."""

from functools import partial

from services.processor.processor import process
from shared.consumer import Consumer
from shared.lifecycle import running
from shared.settings import Settings
from shared.subjects import PROCESS_TODOS

SLOTS = 4
"""Steps that one processor works on at a time: they cost CPU, not waiting."""


async def main(settings: Settings) -> None:
    """Work on steps until told to stop; then finish those that run, within the grace period."""
    async with (
        running(settings, "processor") as life,
        Consumer(
            life.bus, "process", [PROCESS_TODOS], partial(process, bus=life.bus), slots=SLOTS
        ) as steps,
    ):
        life.ready()
        await life.stopping.wait()
        await steps.stop(life.grace)
