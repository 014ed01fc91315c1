"""Everything that a processor reacts to, and with what."""

from collections.abc import Awaitable, Callable
from functools import partial

from services.processor.processor import Processor
from services.processor.progress import ProgressWriter
from shared.bus import Bus, Incoming
from shared.consumer import Delivery
from shared.events import CancelRequested, Fact, TodoProcess
from shared.ownership import RunOwnership
from shared.subjects import live_facts, owns

Owned = RunOwnership[ProgressWriter]

TODOS: dict[type[Fact], Callable[[Processor, Delivery], Awaitable[None]]] = {
    TodoProcess: Processor.handle,
}
"""Facts of which each is handed to one processor, until it is acked."""

LIVE_FACTS: dict[type[Fact], Callable[[Owned, Incoming], None]] = {
    CancelRequested: Owned.on_cancel,
}
"""Facts that every processor hears of once they are stored."""

SIGNALS: dict[Callable[[str], str], Callable[[Owned, Incoming], None]] = {
    owns: Owned.on_owns,
}
"""Signals to a processor, by how their subject is made of its id."""


async def listen(bus: Bus, owned: Owned) -> None:
    """Subscribe to the signals and to the live facts."""
    for subject_of, react in SIGNALS.items():
        await bus.listen(subject_of(owned.worker_id), partial(react, owned))
    for kind, react in LIVE_FACTS.items():
        await bus.listen_live(live_facts(kind), partial(react, owned))
