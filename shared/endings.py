"""How a run ends: its one final, made and appended here, whoever ends it."""

import asyncio
import hashlib

import msgspec

from shared.bus import Bus, Unsendable
from shared.chain import Overtaken, extend
from shared.deltas import NOTHING, read_attempt
from shared.events import EndStatus, Fault, RunEnded
from shared.ids import now
from shared.log import get_logger
from shared.objects import NotKept
from shared.subjects import EVENTS, Address, fact_kind

log = get_logger()

_AGAIN = (1.0, 3.0)
"""Seconds after which FILES is asked once more to keep a final's large fields."""


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


async def append_final(
    bus: Bus, address: Address, final: RunEnded, *, expected: int, tries: int | None = None
) -> RunEnded:
    """Append a run's final, and answer it as it is in the log.

    What cannot be kept would be written, and paid for, again and again.  So the run fails
    then: with a final that holds nothing large.

    Raises:
        Overtaken, NoAnswer, ApiError: as for :func:`shared.chain.extend`.
    """
    subject = address.subject_of(final)
    for pause in (*_AGAIN, None):
        try:
            await extend(bus, subject, final, expected=expected, tries=tries)
        except (NotKept, Unsendable) as error:
            log.warning("final.not_kept", run_id=address.run, error=str(error))
            if pause is not None:
                await asyncio.sleep(pause)
        else:
            return final
    final = not_kept(final)
    await extend(bus, subject, final, expected=expected, tries=tries)
    return final


def not_kept(final: RunEnded) -> RunEnded:
    """The final of a run that fails because what it wrote could not be kept."""
    fault = Fault(code="internal", message="What was written could not be kept; the log says why.")
    cancelled = final.status == "cancelled"
    empty = ended(
        "cancelled" if cancelled else "failed",
        attempt=final.attempt,
        error=None if cancelled else fault,
        fraction=final.fraction,
    )
    return msgspec.structs.replace(
        empty,
        model=final.model,
        provider=final.provider,
        usage=final.usage,
        cost=final.cost,
        latency_ms=final.latency_ms,
        first_delta_ms=final.first_delta_ms,
    )


def log_end(final: RunEnded, *, claims: int, **where: str) -> None:
    """Log in one line that a run ended, or why it failed, in nobody's words.

    ``claims`` are the attempts at its last todo; ``where`` names the run, unless the
    context of the log does.
    """
    if final.status != "failed":
        log.info(
            "run.ended",
            status=final.status,
            attempt=final.attempt,
            attempts=claims,
            length=final.length,
            **where,
        )
        return
    log.warning(
        "run.failed",
        code=final.error.code if final.error else "internal",
        provider=final.provider,
        model=final.model,
        attempt=final.attempt,
        attempts=claims,
        tries=len(final.tries),
        length=final.length,
        **where,
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
        kinds = [fact_kind(fact.subject) for fact in chain]
        if not chain or "final" in kinds:
            return False
        if "claim" in kinds and not although_claimed:
            return False
        claims = [fact.seq for fact in chain if fact_kind(fact.subject) == "claim"]
        attempt = max(claims, default=0)
        written = await read_attempt(bus, address, attempt) if attempt else NOTHING
        status = "cancelled" if "cancel" in kinds else "failed"
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
            await append_final(bus, address, final, expected=chain[-1].seq, tries=2)
        except Overtaken:
            continue
        log_end(final, claims=len(claims), run_id=address.run, session_id=address.session)
        return True
