"""Jobs for later: the server itself keeps the todo, and appends it when it is due.

A schedule is a message on ``sched.<user>.<session>.<run>`` (ADR-51 of NATS): a
second one on the subject replaces the first, and one whose time has passed
fires at once.  What it fires is checked against no chain, so it may come twice,
or after a cancel; whoever reads a run's chain counts only the first
(architecture.md, law 4).  It holds nobody's words: they would stay in the stream's file
after it fired, out of reach of an erase.
"""

import hashlib
from datetime import UTC, datetime

import msgspec

from services.store.rows import RunRow
from shared import objects
from shared.bus import Bus
from shared.events import Plan, TodoProcess, encode
from shared.ids import new_id
from shared.objects import ObjectMissing, erase_message
from shared.plans import step_names
from shared.subjects import EVENTS, Address


async def publish(bus: Bus, run: RunRow, plan: Plan, due: datetime) -> int:
    """Let the server append the run's first todo at ``due``; answers the schedule's sequence.

    Raises:
        NoAnswer, ApiError: it is not known to be kept.
    """
    address = Address(run.user_id, run.session_id, run.id)
    todo = TodoProcess(
        at=due,
        prev=run.first_seq,
        nonce=new_id(),
        n=0,
        priority=run.priority,
        step=step_names(plan)[0],
        plan=plan,
    )
    data = await _without_text(bus, address, encode(todo))
    target = address.subject_of(todo)
    return await bus.schedule(address.schedule, data, at=due.astimezone(UTC), target=target)


async def find(bus: Bus, address: Address) -> int | None:
    """The sequence of the run's schedule; None when there is none, or it has fired.

    Raises:
        NoAnswer, ApiError: it could not be asked.
    """
    stored = await bus.head(EVENTS, address.schedule)
    return stored.seq if stored else None


async def delete(bus: Bus, subject_filter: str) -> None:
    """Let whatever is scheduled there never fire.

    Raises:
        NoAnswer, ApiError: it is not known to be gone.
    """
    for stored in await bus.facts_after(EVENTS, subject_filter, 0):
        await erase_message(bus, EVENTS, stored.seq)


async def _without_text(bus: Bus, address: Address, data: bytes) -> bytes:
    """The todo with its plan in FILES, however small it is."""
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    plan = bytes(fields["plan"])
    key = f"{address.session}/{hashlib.sha256(plan).hexdigest()}"
    try:  # once is enough, and a second copy's chunks would be out of reach of an erase
        await objects.get(bus, key)
    except ObjectMissing:
        await objects.put(bus, key, plan)
    fields["plan"] = msgspec.Raw(msgspec.json.encode({"$file": key}))
    return msgspec.json.encode(fields)
