"""The jobs of a user as they go on: one subscription for his deltas and progress, one state a job.

A board trusts no delivery.  Facts are applied in order by one task, which reads
from the log what is missing between them; deltas and progress are merged as they come, and
where one does not fit, the job's are read again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import TypeGuard, get_args

from services.gateway.jobs.state import JobState, state_of_record
from services.gateway.sessions.hub import Hub
from shared.bus import Bus, BusError, Incoming
from shared.commands import GetFacts, GetJob, ListJobs
from shared.deltas import Merge
from shared.errors import NatterlogError, NotFound
from shared.events import (
    AnyFact,
    RunFact,
    RunScheduled,
    TodoGenerate,
    TodoProcess,
    decode_fact,
    decode_token_event,
)
from shared.ids import now
from shared.log import get_logger
from shared.objects import ObjectMissing, unpack
from shared.records import Job
from shared.store_client import StoreClient
from shared.subjects import (
    EVENTS,
    NONE,
    TOKENS,
    Address,
    live_tokens_of_session,
    parse,
    session_address,
    what,
)

log = get_logger()

RECENT = timedelta(minutes=10)
"""How long an ended job is still told to clients that connect."""
SILENCE = 10.0
"""Seconds after which a running job that says nothing is looked into."""
_LEAST = 60.0
"""Seconds for which a job is kept that somebody asked for long after its end."""
_PAGE = 200
_RETRY = 0.2
_LOADS = 16
_BEGINNINGS = ("todo.process.", "todo.generate.", "scheduled")

JobWatcher = Callable[[str], None]
"""Told which job has something new."""


class JobFeed:
    """Every unfinished job of one user, and those that ended a short while ago."""

    def __init__(self, hub: Hub, bus: Bus, store: StoreClient, user: str) -> None:
        self.user = user
        self.jobs: dict[str, JobState] = {}
        self.watchers: set[JobWatcher] = set()
        self._hub = hub
        self._bus = bus
        self._store = store
        self._open = AsyncExitStack()
        self._opened = False
        self._known: set[str] = set()
        """Runs whose facts are taken, because their first one was."""
        self._facts: deque[tuple[int, str, bytes]] = deque()
        self._stale: dict[str, None] = {}
        self._heard: dict[str, float] = {}
        self._kept_until: dict[str, float] = {}
        self._due = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # -- opening ------------------------------------------------------------------

    async def open(self) -> None:
        """Subscribe, then read how all jobs stand: so nothing falls between.

        Raises:
            Unavailable, BusError: the store or the log cannot be asked.
        """
        await self._open.enter_async_context(self._hub.facts_of(self.user, self._on_fact))
        # Every session's: a subscription for each job would cost the server more.
        token_events = live_tokens_of_session(self.user, "*")
        listening = await self._bus.listen_live(token_events, self._on_token_event)
        self._open.push_async_callback(listening.close)
        records = await self._records()
        self._known |= {record.run.id for record in records}
        limit = asyncio.Semaphore(_LOADS)

        async def load(record: Job) -> None:
            async with limit:
                self._keep(await self._load(record))

        await asyncio.gather(*(load(record) for record in records))
        self._opened = True
        self._facts = deque(f for f in self._facts if self._takes(f[1]))
        worker = asyncio.create_task(self._work(), name="board")
        self._open.callback(worker.cancel)
        self._due.set()

    async def close(self) -> None:
        await self._open.aclose()

    async def _records(self) -> list[Job]:
        found: list[Job] = []
        before: str | None = None
        while True:
            query = ListJobs(
                user_id=self.user, mode=None, ended_after=now() - RECENT, limit=_PAGE, before=before
            )
            page = await self._store.ask(query)
            found += page.items
            before = page.next_before
            if before is None:
                return found

    async def find(self, *, run_id: str | None = None, session_id: str | None = None) -> JobState:
        """The job by its run or its session, however long ago it ended.

        Raises:
            NotFound: there is none of this user's.
        """
        query = GetJob(user_id=self.user, run_id=run_id, session_id=session_id)
        record = (await self._store.ask(query)).job
        self._known.add(record.run.id)
        if record.run.id not in self.jobs:
            state = await self._load(record)
            if record.run.id not in self.jobs:
                self._keep(state)
        return self.jobs[record.run.id]

    async def _load(self, record: Job) -> JobState:
        run = record.run
        if run.status == "completed" or (run.ended_at is None and not run.attempt):
            return state_of_record(record)
        state = JobState(run.id, run.session_id, record.plan)
        for seq, fact in await self._facts_of(state):
            state.apply(seq, fact)
        await self._read_token_events(state)  # an ended one's say how far it had got
        return state

    def _keep(self, state: JobState) -> None:
        self.jobs[state.run_id] = state
        self._heard[state.run_id] = self._loop.time()
        if state.running:  # one may have come between the reading and now
            self._read_again(state.run_id)

    # -- what comes in live ---------------------------------------------------------

    def _on_fact(self, seq: int, subject: str, data: bytes) -> None:
        if not self._opened or self._takes(subject):
            self._facts.append((seq, subject, data))
            self._due.set()

    def _takes(self, subject: str) -> bool:
        run_id, happened = parse(subject).run, what(subject)
        if run_id == NONE:
            return happened == "deleted"
        if happened.startswith(_BEGINNINGS):
            self._known.add(run_id)
        return run_id in self._known

    def _on_token_event(self, message: Incoming) -> None:
        run_id = parse(message.subject).run
        state = self.jobs.get(run_id)
        if state is None:  # a chat's
            return
        merged = state.merge(decode_token_event(message.data))
        if merged is Merge.GREW:
            self._heard[run_id] = self._loop.time()
            self._tell(run_id)
        elif merged is Merge.GAP:
            self._read_again(run_id)

    def _read_again(self, run_id: str) -> None:
        self._stale[run_id] = None
        self._due.set()

    def refill(self) -> None:
        """Ticks were lost in an outage; facts come again by themselves."""
        for state in self.jobs.values():
            if state.ending is None:
                self._read_again(state.run_id)

    def _tell(self, run_id: str) -> None:
        for watcher in self.watchers:
            watcher(run_id)

    # -- one task takes what comes in -------------------------------------------------

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._take_all()
            except (BusError, NatterlogError) as error:
                log.warning("board.read_failed", user_id=self.user, error=str(error))
                self._due.set()
                await self._bus.wait_connected()
                await asyncio.sleep(_RETRY)

    async def _take_all(self) -> None:
        while self._facts or self._stale:
            if self._facts:
                await self._take(*self._facts[0])
                self._facts.popleft()
            else:
                run_id = next(iter(self._stale))
                if run_id in self.jobs:
                    await self._read_token_events(self.jobs[run_id])
                    self._tell(run_id)
                self._stale.pop(run_id, None)

    async def _take(self, seq: int, subject: str, data: bytes) -> None:
        address = parse(subject)
        if address.run == NONE:
            if what(subject) == "deleted":
                self._drop_session(address.session)
            return
        try:
            fact = decode_fact(await unpack(self._bus, data))
        except ObjectMissing:
            return  # it was erased, and that comes next
        if not _is_of_run(fact):
            return
        state = self.jobs.get(address.run)
        if state is None:
            if not isinstance(fact, RunScheduled | TodoProcess | TodoGenerate):
                return
            self._keep(JobState(address.run, address.session, fact.plan))
            state = self.jobs[address.run]
        await self._apply(state, seq, fact)

    async def _apply(self, state: JobState, seq: int, fact: RunFact) -> None:
        if state.seq and fact.prev > state.seq:  # its predecessor should be here
            for missed, before in await self._facts_of(state):
                state.apply(missed, before)
        state.apply(seq, fact)
        self._heard[state.run_id] = self._loop.time()
        if state.running:  # its first deltas may have come before its claim
            self._stale[state.run_id] = None
        self._tell(state.run_id)

    def _drop_session(self, session_id: str) -> None:
        for state in [s for s in self.jobs.values() if s.session_id == session_id]:
            self._forget(state.run_id)

    def _forget(self, run_id: str) -> None:
        del self.jobs[run_id]
        self._known.discard(run_id)
        self._kept_until.pop(run_id, None)
        self._heard.pop(run_id, None)

    # -- what is read -----------------------------------------------------------------

    async def _facts_of(self, state: JobState) -> list[tuple[int, RunFact]]:
        """The job's facts after those that its state knows; the store is asked for trimmed ones."""
        hot = await self._of_run(state, await self._hot_facts(state, state.seq))
        if hot and _follows(hot[0][1], state.seq):
            return hot
        stored: list[tuple[int, str, bytes]] = []
        after = state.seq
        with suppress(NotFound):  # erased meanwhile
            while True:
                query = GetFacts(user_id=self.user, session_id=state.session_id, after=after)
                page = await self._store.ask(query)
                stored += [(f.seq, f.subject, bytes(f.data)) for f in page.facts]
                after = max(after, page.upto) if not page.facts else page.facts[-1].seq
                if not page.facts:
                    break
        return await self._of_run(state, [*stored, *await self._hot_facts(state, after)])

    async def _hot_facts(self, state: JobState, after: int) -> list[tuple[int, str, bytes]]:
        address = session_address(self.user, state.session_id)
        found: list[tuple[int, str, bytes]] = []
        while hot := await self._bus.read(EVENTS, address.session_facts, after=after):
            found += hot
            after = hot[-1].seq
        return found

    async def _of_run(
        self, state: JobState, stored: list[tuple[int, str, bytes]]
    ) -> list[tuple[int, RunFact]]:
        found: list[tuple[int, RunFact]] = []
        for seq, subject, data in stored:
            if parse(subject).run == state.run_id:
                with suppress(ObjectMissing):
                    fact = decode_fact(await unpack(self._bus, data))
                    if _is_of_run(fact):
                        found.append((seq, fact))
        return found

    async def _read_token_events(self, state: JobState) -> None:
        """Merge everything that TOKENS holds of the job."""
        address = Address(self.user, state.session_id, state.run_id)
        after = 0
        while batch := await self._bus.read(TOKENS, address.tokens, after=after):
            after = batch[-1].seq
            token_events = [decode_token_event(message.data) for message in batch]
            for token_event in sorted(token_events, key=lambda one: getattr(one, "offset", 0)):
                state.merge(token_event)

    # -- keeping ----------------------------------------------------------------------

    async def look_after(self, now_: float) -> None:
        """Forget what ended a while ago, and look whether silent jobs went on without us."""
        for state in list(self.jobs.values()):
            if state.ending is not None:
                left = (RECENT - (now() - state.ending.at)).total_seconds()
                until = self._kept_until.setdefault(state.run_id, now_ + max(_LEAST, left))
                if now_ > until:
                    self._forget(state.run_id)
            elif state.status != "scheduled" and now_ - self._heard[state.run_id] > SILENCE:
                self._heard[state.run_id] = now_
                await self._look_into(state)

    async def _look_into(self, state: JobState) -> None:
        address = Address(self.user, state.session_id, state.run_id)
        head = await self._bus.head(EVENTS, address.facts)
        if head is not None and head.seq > state.seq:
            self._facts.append(head)
        self._read_again(state.run_id)


def _follows(fact: RunFact, seq: int) -> bool:
    """Whether nothing of its job lies between ``seq`` and the fact."""
    if seq == 0:  # what a job begins with comes after its session's facts
        return isinstance(fact, RunScheduled) or (isinstance(fact, TodoProcess) and fact.n == 0)
    return fact.prev == seq


def _is_of_run(fact: AnyFact) -> TypeGuard[RunFact]:
    return isinstance(fact, get_args(RunFact))
