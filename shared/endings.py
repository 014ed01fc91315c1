"""How a run ends: its one final, made here whoever appends it."""

import hashlib

import msgspec

from shared.bus import Bus
from shared.chain import Overtaken, extend
from shared.deltas import NOTHING, read_attempt
from shared.events import EndStatus, Fault, RunEnded
from shared.ids import now
from shared.subjects import EVENTS, Address, what


def ended(
    status: EndStatus,
    text: str = "",
    *,
    attempt: int = 0,
    error: Fault | None = None,
    fraction: float = 0.0,
) -> RunEnded:
    """The final of a run that ends now with this text."""
    return RunEnded(
        at=now(),
        status=status,
        attempt=attempt,
        text=text,
        length=len(text),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        error=error,
        fraction=fraction,
    )


async def end_unhandled(
    bus: Bus, address: Address, error: Fault, *, although_claimed: bool
) -> bool:
    """End a run whose todo nobody can handle, so that nothing waits for it for ever.

    Only the subjects of its facts are looked at, because a fact may be what
    cannot be read.  False when the run is over already, or gone, or claimed by
    somebody who can perhaps handle it.

    Raises:
        BusError: it is not known to be ended.
    """
    while True:
        chain = await bus.facts_after(EVENTS, address.facts, 0)
        said = [what(fact.subject) for fact in chain]
        if not chain or "final" in said:
            return False
        if "claim" in said and not although_claimed:
            return False
        claims = [fact.seq for fact in chain if what(fact.subject) == "claim"]
        attempt = max(claims, default=0)
        written = await read_attempt(bus, address, attempt) if attempt else NOTHING
        status = "cancelled" if "cancel" in said else "failed"
        final = msgspec.structs.replace(
            ended(
                status,
                written.text,
                attempt=attempt,
                error=None if status == "cancelled" else error,
                fraction=written.fraction,
            ),
            timeline=written.timeline,
            progress=written.progress,
        )
        try:
            await extend(bus, address.fact("final"), final, expected=chain[-1].seq, tries=2)
        except Overtaken:
            continue
        return True
