"""Work on process todos: one step of a run's plan at a time.

The table ``STEPS`` says what this processor can do.  A run that asks for
something else ends at once and says so, instead of waiting for ever.
"""

import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from shared.bus import Bus
from shared.chain import Overtaken, extend
from shared.consumer import Delivery, Rejected
from shared.events import CancelRequested, Fault, RunEnded, TodoProcess
from shared.ids import now
from shared.log import get_logger

log = get_logger()

Step = Callable[[Delivery, TodoProcess], Awaitable[None]]

STEPS: dict[str, Step] = {}
"""Files and pipelines put their steps here."""


async def process(delivery: Delivery, *, bus: Bus) -> None:
    """Do the step that the todo names.

    Raises:
        Rejected: the fact is no process todo.
    """
    todo = delivery.fact
    if not isinstance(todo, TodoProcess):
        raise Rejected(f"not a process todo: {delivery.subject}")
    step = STEPS.get(todo.step)
    if step is None:
        return await _refuse(delivery, todo, bus)
    return await step(delivery, todo)


async def _refuse(delivery: Delivery, todo: TodoProcess, bus: Bus) -> None:
    fault = Fault(code="invalid_request", message=f"No processor knows the step “{todo.step}”.")
    final = RunEnded(
        at=now(),
        status="failed",
        attempt=0,
        text="",
        length=0,
        sha256=hashlib.sha256(b"").hexdigest(),
        error=fault,
    )
    head = delivery.seq
    while True:
        try:
            await extend(bus, delivery.address.fact("final"), final, expected=head)
        except Overtaken as overtaken:
            links = overtaken.links
            if not links or not all(isinstance(link.fact, CancelRequested) for link in links):
                return log.info("run.passed_on", run_id=delivery.address.run)
            # A cancel that came first wins, and still somebody has to end the run.
            head = links[-1].seq
            final = msgspec.structs.replace(final, status="cancelled", error=None)
        else:
            return log.warning("run.refused", run_id=delivery.address.run, step=todo.step)
