"""A job's part of the log: its facts, and the deltas and progress of its attempts."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from services.gateway.jobs.state import JobState, state_of_record
from shared.bus import Bus, Stored
from shared.errors import NotFound
from shared.events import (
    RunFact,
    RunScheduled,
    TodoProcess,
    decode_fact,
    decode_token_event,
)
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, unpack
from shared.records import Job
from shared.session_facts import read_hot, read_session, users_facts
from shared.store_client import StoreClient
from shared.subjects import EVENTS, TOKENS, Address, session_address


class JobLog:
    """Reads the jobs of one user, and follows none of them."""

    def __init__(self, bus: Bus, store: StoreClient, user: str) -> None:
        self._bus = bus
        self._store = store
        self._user = user

    async def state_of(self, record: Job) -> JobState:
        """How the job stands, as far as the log has it by now.

        Raises:
            Unavailable, BusError: the store or the log cannot be asked.
        """
        run = record.run
        if run.status == "completed" or (run.ended_at is None and not run.attempt):
            return state_of_record(record)
        state = JobState(run.id, run.session_id, record.plan)
        for seq, fact in await self.facts_after(state):
            state.apply(seq, fact)
        await self.merge_token_events(state)  # an ended one's say how far it had got
        return state

    async def facts_after(self, state: JobState) -> list[tuple[int, RunFact]]:
        """The job's facts after those that its state knows; the store is asked for trimmed ones."""
        subjects = session_address(self._user, state.session_id).session_facts
        hot = await _of_run(state, read_hot(self._bus, subjects, state.seq))
        if hot and _follows(hot[0][1], state.seq):
            return hot
        cold = users_facts(self._store, self._user, state.session_id)
        with suppress(NotFound):  # erased meanwhile
            return await _of_run(state, read_session(cold, self._bus, subjects, state.seq))
        return hot

    async def merge_token_events(self, state: JobState) -> None:
        """Merge everything that TOKENS holds of the job into its state."""
        address = Address(self._user, state.session_id, state.run_id)
        after = 0
        while batch := await self._bus.read(TOKENS, address.tokens, after=after):
            after = batch[-1].seq
            token_events = [decode_token_event(message.data) for message in batch]
            for token_event in sorted(token_events, key=lambda one: getattr(one, "offset", 0)):
                state.merge(token_event)

    async def head(self, state: JobState) -> Stored | None:
        """The job's last fact, if its state does not know it."""
        address = Address(self._user, state.session_id, state.run_id)
        last = await self._bus.head(EVENTS, address.facts)
        return last if last is not None and last.seq > state.seq else None

    async def unpacked(self, data: bytes) -> RunFact | None:
        """The fact in ``data``; None where it is no run's, or was erased meanwhile."""
        with suppress(ObjectMissing):
            fact = decode_fact(await unpack(self._bus, data))
            if isinstance(fact, RunFact):
                return fact
        return None


async def _of_run(state: JobState, entries: AsyncGenerator[LogEntry]) -> list[tuple[int, RunFact]]:
    return [
        (entry.seq, entry.fact)
        async for entry in entries
        if entry.address.run == state.run_id and isinstance(entry.fact, RunFact)
    ]


def _follows(fact: RunFact, seq: int) -> bool:
    """Whether nothing of its job lies between ``seq`` and the fact."""
    if seq == 0:  # what a job begins with comes after its session's facts
        return isinstance(fact, RunScheduled) or (isinstance(fact, TodoProcess) and fact.n == 0)
    return fact.prev == seq
