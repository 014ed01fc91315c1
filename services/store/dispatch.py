"""What a session needs next, derived from its rows and never from a message that may be lost.

At start, every few seconds and after each fact that matters, a look at the
session's unfinished runs says what is to be done: begin the next waiting turn,
or end a cancelled run that nobody owns.  Everything is appended with the
expected sequence, so that looking too often, or from several stores, is harmless.
"""

import asyncio
from typing import NamedTuple

import msgspec

from services.store import queries, schedules
from services.store.chains import Chains
from services.store.database import Database
from services.store.hotlog import HotLog
from services.store.memory import Memory
from services.store.rows import RunRow, SessionRow
from services.store.watermark import Watermark
from shared import ids
from shared.bus import Bus, BusError, NoAnswer
from shared.chain import Overtaken
from shared.deltas import NOTHING, Written, read_attempt
from shared.due import LATEST
from shared.endings import ended, log_end
from shared.errors import Unavailable
from shared.events import EndStatus, Fault, RunEnded, TodoChat, Turn
from shared.log import get_logger
from shared.plans import cost_of, total
from shared.subjects import EVENTS, Address, Scope, owns

log = get_logger()

EVERY = 5.0
"""Seconds between two looks at all sessions."""
GRACE = 1.5
"""Seconds that a worker gets to end a cancelled run before it is asked about."""
ASK = 0.3
_FORGET = 60.0
_AT_ONCE = 32


# -- what is to be done: a pure function of the rows ---------------------------------


class Begin(NamedTuple):
    """The next waiting turn may go."""

    run: RunRow


class End(NamedTuple):
    """Nobody ever worked on this cancelled run, and nobody will."""

    run: RunRow


class Watch(NamedTuple):
    """A cancelled run that a worker claimed: it should end soon."""

    run: RunRow


class Lost(NamedTuple):
    """A run whose facts are gone from EVENTS, so that no worker will ever see it."""

    run: RunRow


class Schedule(NamedTuple):
    """A job for later: the server is to have its schedule."""

    run: RunRow


Step = Begin | End | Watch | Lost | Schedule


def steps(unfinished: list[RunRow], first: int) -> list[Step]:
    """What a session's unfinished runs need, given the first sequence of EVENTS."""
    found: list[Step] = []
    for run in unfinished:
        if run.cancelled and (run.attempt == 0 or run.is_unclaimed_job):
            found.append(End(run))
        elif run.status == "scheduled":
            found.append(Schedule(run))
        elif not run.waiting and _is_lost(run, first):
            found.append(Lost(run))
        elif run.cancelled:
            found.append(Watch(run))
    if unfinished and all(run.waiting for run in unfinished):
        going = [run for run in unfinished if not run.cancelled]
        if going:
            found.append(Begin(going[0]))
    return found


def _is_lost(run: RunRow, first: int) -> bool:
    # What a scheduled job began with may be trimmed before its time comes.
    return (run.first_seq if run.due is None else run.last_seq) < first


# -- doing it -------------------------------------------------------------------------


class Dispatcher:
    """Looks at sessions and appends what they need; owns the list of those to look at."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        hot: HotLog,
        chains: Chains,
        memory: Memory,
        applied: Watermark,
    ) -> None:
        self._bus = bus
        self._database = database
        self._hot = hot
        self._chains = chains
        self._memory = memory
        self._applied = applied
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._cancelled_at: dict[str, float] = {}
        """When a claimed run was first seen cancelled, on this process's clock."""
        self._schedules: dict[str, int] = {}
        """The sequence of each schedule that is known to be there, by its run."""

    def look_at(self, session_id: str) -> None:
        """Have the session looked at soon: something happened in it."""
        self._due.add(session_id)
        self._wake.set()

    async def run(self) -> None:
        """Look at whatever is due, and at everything now and then, for ever."""
        clock = asyncio.get_running_loop().time
        everything = 0.0
        while True:
            if clock() >= everything:
                everything = clock() + EVERY
                await self._find_all()
            await self._settle_due()
            await self._woken(everything - clock())

    async def _find_all(self) -> None:
        old = asyncio.get_running_loop().time() - _FORGET
        self._cancelled_at = {run: at for run, at in self._cancelled_at.items() if at > old}
        self._due |= set(await self._database.read(queries.unsettled))

    async def _settle_due(self) -> None:
        due, self._due = list(self._due), set()
        self._wake.clear()
        for start in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*map(self._settle_safely, due[start : start + _AT_ONCE]))

    async def _woken(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _settle_safely(self, session_id: str) -> None:
        try:
            await self.settle(session_id)
        except Overtaken as overtaken:  # somebody was faster: look again once that is applied
            await self._look_again(session_id, overtaken)
        except (BusError, Unavailable) as error:
            log.warning("store.dispatch_postponed", session_id=session_id, error=str(error))
        except Exception:  # one session's fault must not stop the others
            log.exception("store.dispatch_failed", session_id=session_id)

    async def _look_again(self, session_id: str, overtaken: Overtaken) -> None:
        try:
            await self._chains.catch_up(overtaken)
            if overtaken.entries:
                await self._applied.wait_for(overtaken.entries[-1].seq)
        except (BusError, Unavailable) as error:
            log.warning("store.dispatch_postponed", session_id=session_id, error=str(error))
        else:
            self.look_at(session_id)

    async def settle(self, session_id: str) -> None:
        """Do what the session needs now.

        Raises:
            Overtaken: the session went on meanwhile.
            NoAnswer: the bus is away.
        """
        found = await self._look(session_id)
        if found is None:
            return
        session, unfinished = found
        for step in steps(unfinished, self._hot.first):
            match step:
                case Begin(run):
                    await self._begin(session, run)
                case End(run):
                    await self._end(run, "cancelled")
                case Watch(run):
                    await self._watch(run)
                case Lost(run):
                    await self._end(run, "failed", error=_LOST)
                case Schedule(run):
                    await self._schedule(run)

    async def _look(self, session_id: str) -> tuple[SessionRow, list[RunRow]] | None:
        """The session and its unfinished runs: from memory if it is there, else from the tables."""
        hot = self._memory.held(session_id)
        if hot is None or hot.row is None:
            return await self._database.read(queries.dispatchable, session_id)
        return hot.session(), hot.unfinished()

    async def _begin(self, session: SessionRow, run: RunRow) -> None:
        turn = run.turn
        if turn is None:
            return
        if turn.content is not None:
            parent = await self._parent(session, turn)
            turn = msgspec.structs.replace(turn, parent_id=parent)
        fact = TodoChat(at=ids.now(), n=0, turn=turn)
        seq = await self._chains.append(_address(run), fact, expected=session.last_seq)
        log.info("store.dispatched", session_id=session.id, run_id=run.id, seq=seq)

    async def _parent(self, session: SessionRow, turn: Turn) -> str | None:
        """What the turn follows: the end of the active branch, or what the edited one follows."""
        if turn.edits is None:
            return session.active_leaf
        edited = await self._database.read(queries.find_message, session.user_id, turn.edits)
        return edited.parent_id

    async def _schedule(self, run: RunRow) -> None:
        """Make sure of a job's schedule; one whose time has passed fires at once."""
        if run.plan is None or run.due is None or run.due > LATEST:
            return  # a time beyond the server's clock would begin the job at once
        overdue = run.due < ids.now()
        if not overdue and self._schedules.get(run.id, 0) >= max(self._hot.first, 1):
            return
        address = _address(run)
        seq = await schedules.find(self._bus, address)
        if seq is None:  # looked for first, because the todo is there before it goes
            head = await self._bus.head(EVENTS, address.facts)
            if head is not None and head.seq > run.last_seq:
                return  # it has fired just now, or a cancel came
            seq = await schedules.publish(self._bus, run, run.plan, run.due)
            log.info("store.scheduled", run_id=run.id, due=run.due.isoformat(), seq=seq)
        self._schedules[run.id] = seq

    async def _watch(self, run: RunRow) -> None:
        loop = asyncio.get_running_loop()
        since = self._cancelled_at.setdefault(run.id, loop.time())
        if loop.time() < since + GRACE:
            loop.call_at(since + GRACE, self.look_at, run.session_id)
        elif not await self._is_held(run):
            written = await read_attempt(self._bus, _address(run), run.attempt)
            await self._end(run, "cancelled", written)

    async def _is_held(self, run: RunRow) -> bool:
        """Whether the worker of the latest claim says that it is writing the run."""
        try:
            answer = await self._bus.call(owns(run.worker or "_"), run.id.encode(), timeout=ASK)
        except NoAnswer:
            if not self._bus.connected:
                raise
            return False
        return answer.data == b"1"

    async def _end(
        self,
        run: RunRow,
        status: EndStatus,
        written: Written = NOTHING,
        *,
        error: Fault | None = None,
    ) -> None:
        final = ended_by_store(run, status, written.text, error, fraction=written.fraction)
        fact = msgspec.structs.replace(final, timeline=written.timeline, progress=written.progress)
        seq = await self._chains.append(_address(run), fact, expected=run.last_seq, scope=Scope.RUN)
        self._cancelled_at.pop(run.id, None)
        if run.due is not None:
            self._schedules.pop(run.id, None)
            await schedules.delete(self._bus, _address(run).schedule)
        log.info("store.run_ended", run_id=run.id, seq=seq)
        claims = run.restarts + 1 if run.worker else 0
        log_end(final, claims=claims, run_id=run.id, session_id=run.session_id)


def ended_by_store(
    run: RunRow,
    status: EndStatus,
    text: str,
    error: Fault | None = None,
    *,
    fraction: float = 0.0,
) -> RunEnded:
    """The final of a run that the store ends itself."""
    attempt = 0 if run.is_unclaimed_job else run.attempt
    final = ended(status, text, attempt=attempt, error=error, fraction=fraction)
    return msgspec.structs.replace(
        final,
        model=run.model,
        provider=run.provider,
        results=run.results,
        notes=run.notes,
        usage=total(*(result.usage for result in run.results)),
        cost=cost_of(run.results),
    )


def _address(run: RunRow) -> Address:
    return Address(run.user_id, run.session_id, run.id)


_LOST = Fault(
    code="internal",
    message="The log lost this reply before it was written; please ask again.",
    retryable=True,
)
