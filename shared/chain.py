"""The run chain and the session chain: how a fact becomes true, exactly once.

The server stores a fact only if its publisher knew the chain's head, so of
several possible next facts one is stored (architecture.md, law 3).  What the publisher
does not hear back, it reads: every fact carries a nonce, and finding one's own
nonce in the chain means that it was stored.  A conflict is never answered by
trying again with a new expectation; the caller decides anew on what it finds.
"""

import asyncio
from contextlib import suppress

import msgspec

from shared.bus import FRAME, Bus, BusError, NoAnswer, WrongSequence
from shared.events import Fact, encode
from shared.ids import new_id
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, pack, unpack
from shared.subjects import EVENTS, Scope, chain_filter

_PAUSE = 0.05
"""Seconds before it is asked again whether a fact was stored."""


class Overtaken(Exception):
    """Other facts came first, so this one was not stored; decide again on ``entries``."""

    def __init__(self, entries: list[LogEntry]) -> None:
        super().__init__(
            ", ".join(f"{entry.seq}: {type(entry.fact).__name__}" for entry in entries)
        )
        self.entries = entries


async def extend(
    bus: Bus,
    subject: str,
    fact: Fact,
    *,
    expected: int,
    scope: Scope = Scope.RUN,
    tries: int | None = None,
) -> int:
    """Append ``fact`` after ``expected`` and answer its sequence.

    While the bus is away it waits and asks again, ``tries`` times at most (None:
    for ever, which suits a worker that holds a reply).

    Raises:
        Overtaken: the chain went on without it.
        NoAnswer: after ``tries`` tries it is still unknown whether it was stored.
        NotKept: one of its fields is too large for a fact, and FILES refused it.
    """
    fact = msgspec.structs.replace(fact, prev=expected, nonce=new_id())
    data = encode(fact)
    while True:
        try:
            if len(data) > FRAME:
                data = await pack(bus, subject, data)
            return await bus.append(subject, data, expected=expected, scope=scope)
        except (WrongSequence, NoAnswer) as error:
            known, entries = await _look(bus, subject, expected, scope, tries)
            for entry in entries:
                if entry.fact.nonce == fact.nonce:
                    return entry.seq
            if entries or (known and isinstance(error, WrongSequence)):
                raise Overtaken(entries) from error
            tries = _one_less(tries, error)
            await bus.wait_connected()
            await asyncio.sleep(_PAUSE)


async def read_chain(bus: Bus, subject_filter: str, after: int = 0) -> list[LogEntry]:
    """The chain's facts after ``after``, from the leader.

    A hard delete erases a fact's fields before the fact: one that is half gone
    is left out, as it will be in a moment.

    Raises:
        BusError: they could not be read.
    """
    entries: list[LogEntry] = []
    for stored in await bus.facts_after(EVENTS, subject_filter, after):
        with suppress(ObjectMissing):
            data = await unpack(bus, stored.data)
            entries.append(LogEntry.read(stored.seq, stored.subject, data))
    return entries


async def _look(
    bus: Bus, subject: str, after: int, scope: Scope, tries: int | None
) -> tuple[bool, list[LogEntry]]:
    """What the chain holds after ``after``; False when it could not be read this time."""
    try:
        return True, await read_chain(bus, chain_filter(subject, scope), after)
    except BusError:
        if tries is not None:
            return False, []
        await bus.wait_connected()
        return False, []


def _one_less(tries: int | None, error: BusError) -> int | None:
    if tries is None:
        return None
    if tries <= 1:
        raise NoAnswer("it is not known whether the fact was stored") from error
    return tries - 1
