"""Work on process todos: one step of a run's plan at a time.

The table ``STEPS`` says what this processor can do.  A run that asks for
something else ends at once and says so, instead of waiting for ever.
"""

from collections.abc import Awaitable, Callable

from shared.bus import Bus
from shared.consumer import Delivery, Rejected
from shared.endings import end_unhandled
from shared.events import Fault, TodoProcess
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
    if await end_unhandled(bus, delivery.address, fault, although_claimed=False):
        log.warning("run.refused", run_id=delivery.address.run, step=todo.step)
