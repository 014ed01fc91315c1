"""The log as commands append to it: decided on what is known, refused when more came first.

A decision is made on rows that have taken in the chain up to some fact, and its own fact
is stored only if that is the chain's head still.  So correctness comes from the chain
alone, however many stores decide at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from services.store.hotlog import HotLog
from services.store.memory import Memory
from services.store.watermark import Watermark
from shared.bus import Bus
from shared.chain import Overtaken, extend, read_chain
from shared.errors import Unavailable
from shared.events import AnyFact
from shared.log_entry import LogEntry
from shared.subjects import EVENTS, Address, Scope, everybodys

ROUNDS = 20
"""How often a decision is made anew before the store gives up."""

T = TypeVar("T")

Decide = Callable[[], Awaitable[AnyFact | None]]
"""Answers the fact that is to be appended; None: nothing need happen."""


class Chains:
    """Appends to the chains of the log, and decides again where another fact came first."""

    def __init__(self, bus: Bus, hot: HotLog, applied: Watermark, memory: Memory) -> None:
        self._bus = bus
        self._hot = hot
        self._applied = applied
        self._memory = memory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """A lock of that name: it only spares one store from overtaking itself."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def decide(
        self, name: str, attempt: Callable[[], Awaitable[T]], *, where: str = "here"
    ) -> T:
        """What ``attempt`` answers, once no other fact came in between.

        Raises:
            Unavailable: in each of many rounds one did.
        """
        async with self.lock(name):
            for _ in range(ROUNDS):
                try:
                    return await attempt()
                except Overtaken as overtaken:
                    await self.catch_up(overtaken)
        raise Unavailable(f"Too much is happening {where}; please try again.", retry_after=1.0)

    async def append(
        self, address: Address, fact: AnyFact, *, expected: int, scope: Scope = Scope.SESSION
    ) -> int:
        """Append a fact after the chain's last known one; answers its sequence.

        Memory has taken it in when this returns.

        Raises:
            Overtaken: the chain has gone on since.
            NoAnswer: it is not known whether it was stored.
        """
        subject = address.subject_of(fact)
        seq = await extend(
            self._bus,
            subject,
            fact,
            expected=self._hot.expected(expected),
            scope=scope,
            tries=2,
        )
        self._applied.note(seq)
        if scope is Scope.SESSION:
            self._memory.took(LogEntry(seq, subject, address, b"", fact))
        else:  # facts of the session's other runs may have come before it
            self._memory.doubt_session(address.session)
        return seq

    async def catch_up(self, overtaken: Overtaken) -> None:
        """Know of what came first: the facts found, or an old end that was cut off elsewhere."""
        for entry in overtaken.entries:
            self._applied.note(entry.seq)
            self._memory.doubt_session(entry.address.session)
        if not overtaken.entries:
            await self._hot.refresh()

    async def check_latest(self, address: Address, last_seq: int) -> None:
        """Make sure that the session's last known fact is its last one.

        Raises:
            Overtaken: a newer one is there; decide again.
        """
        after = self._hot.expected(last_seq)
        entries = await read_chain(self._bus, address.session_facts, after)
        if entries:
            raise Overtaken(entries)

    async def append_outside(
        self, address: Address, decide: Decide, *, scope: Scope = Scope.SESSION, kind: str = ""
    ) -> int:
        """Append what ``decide`` answers, outside any session → the sequence that is applied then.

        Rows there do not know their chain's head, so the leader is asked for it.  With the
        scope ``EVERYBODY`` the chain is that of a kind of fact, of all users.

        Raises:
            NatterlogError: what ``decide`` raises, or :class:`Unavailable`.
            BusError: the log cannot be reached.
        """
        chain = everybodys(kind) if scope is Scope.EVERYBODY else address.session_facts

        async def attempt() -> int:
            last = await self._bus.head(EVENTS, chain)
            head = last.seq if last else 0
            await self._applied.wait_for(head)
            fact = await decide()
            if fact is None:
                return head
            return await self.append(address, fact, expected=head, scope=scope)

        seq = await self.decide(chain, attempt)
        await self._applied.wait_for(seq)
        return seq
