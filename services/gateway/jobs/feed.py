"""The jobs of a user as they go on: one subscription for his deltas and progress, one state a job.

A feed trusts no delivery.  Facts are applied in order by one task, which reads from the
log what is missing between them; deltas and progress are merged as they come, and where
one does not fit, the job's are read again.
"""

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from datetime import timedelta

from services.gateway.jobs.log import JobLog
from services.gateway.jobs.state import JobState
from services.gateway.sessions.hub import Hub
from services.gateway.sessions.watchers import Watchers
from shared.bus import Bus, BusError, Incoming, Stored
from shared.commands import GetJob, ListJobs
from shared.deltas import Merge
from shared.errors import NatterlogError
from shared.events import RunFact, RunScheduled, TodoGenerate, TodoProcess, decode_token_event
from shared.ids import now
from shared.log import get_logger
from shared.records import Job
from shared.store_client import StoreClient
from shared.subjects import NONE, fact_kind, live_tokens_of_session, parse

log = get_logger()

RECENT = timedelta(minutes=10)
"""How long an ended job is still shown to clients that connect."""
SILENCE = 10.0
"""Seconds after which a running job that says nothing is looked into."""
_LEAST = 60.0
"""Seconds for which a job is kept that was looked for long after its end."""
_PAGE = 200
_RETRY = 0.2
_LOADS = 16
_BEGINNINGS = ("todo.process.", "todo.generate.", "scheduled")


class JobFeed:
    """Every unfinished job of one user, and those that ended a short while ago.

    Its watchers are called with the run of the job that has something new.
    """

    def __init__(self, hub: Hub, bus: Bus, store: StoreClient, user: str) -> None:
        self.user = user
        self.jobs: dict[str, JobState] = {}
        self.watchers = Watchers[[str]]()
        self._hub = hub
        self._bus = bus
        self._store = store
        self._log = JobLog(bus, store, user)
        self._resources = AsyncExitStack()
        self._opened = False
        self._known: set[str] = set()
        """Runs whose facts are taken, because their first one was."""
        self._facts: deque[Stored] = deque()
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
        facts = await self._resources.enter_async_context(self._hub.facts_of(self.user))
        self._resources.enter_context(facts.watching(self.on_fact))
        # Every session's: a subscription for each job would cost the server more.
        token_events = live_tokens_of_session(self.user, "*")
        listening = await self._bus.listen_live(token_events, self.on_token_event)
        self._resources.push_async_callback(listening.close)
        records = await self._records()
        self._known |= {record.run.id for record in records}
        limit = asyncio.Semaphore(_LOADS)

        async def load(record: Job) -> None:
            async with limit:
                self._keep(await self._log.state_of(record))

        await asyncio.gather(*(load(record) for record in records))
        self._opened = True
        self._facts = deque(fact for fact in self._facts if self._takes(fact.subject))
        worker = asyncio.create_task(self._work(), name="job-feed")
        self._resources.callback(worker.cancel)
        self._due.set()

    async def close(self) -> None:
        await self._resources.aclose()

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
            state = await self._log.state_of(record)
            if record.run.id not in self.jobs:
                self._keep(state)
        return self.jobs[record.run.id]

    def _keep(self, state: JobState) -> None:
        self.jobs[state.run_id] = state
        self._heard[state.run_id] = self._loop.time()
        if state.running:  # one may have come between the reading and now
            self._read_again(state.run_id)

    # -- what comes in live ---------------------------------------------------------

    def on_fact(self, seq: int, subject: str, data: bytes) -> None:
        if not self._opened or self._takes(subject):
            self._facts.append(Stored(seq, subject, data))
            self._due.set()

    def _takes(self, subject: str) -> bool:
        run_id, kind = parse(subject).run, fact_kind(subject)
        if run_id == NONE:
            return kind == "session.deleted"
        if kind.startswith(_BEGINNINGS):
            self._known.add(run_id)
        return run_id in self._known

    def on_token_event(self, message: Incoming) -> None:
        run_id = parse(message.subject).run
        state = self.jobs.get(run_id)
        if state is None:  # a chat's
            return
        merged = state.merge(decode_token_event(message.data))
        if merged is Merge.GREW:
            self._heard[run_id] = self._loop.time()
            self.watchers.wake(run_id)
        elif merged is Merge.GAP:
            self._read_again(run_id)

    def _read_again(self, run_id: str) -> None:
        self._stale[run_id] = None
        self._due.set()

    def refill(self) -> None:
        """Read deltas and progress again that an outage lost; facts come again by themselves."""
        for state in self.jobs.values():
            if state.ending is None:
                self._read_again(state.run_id)

    # -- one task takes what comes in -------------------------------------------------

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._take_all()
            except (BusError, NatterlogError) as error:
                log.warning("jobs.read_failed", user_id=self.user, error=str(error))
                self._due.set()
                await self._bus.wait_connected()
                await asyncio.sleep(_RETRY)

    async def _take_all(self) -> None:
        while self._facts or self._stale:
            if self._facts:
                await self._take(self._facts[0])
                self._facts.popleft()
            else:
                run_id = next(iter(self._stale))
                if run_id in self.jobs:
                    await self._log.merge_token_events(self.jobs[run_id])
                    self.watchers.wake(run_id)
                self._stale.pop(run_id, None)

    async def _take(self, stored: Stored) -> None:
        address = parse(stored.subject)
        if address.run == NONE:
            if fact_kind(stored.subject) == "session.deleted":
                self.drop_session(address.session)
            return
        fact = await self._log.unpacked(stored.data)
        if fact is None:
            return
        state = self.jobs.get(address.run)
        if state is None:
            if not isinstance(fact, RunScheduled | TodoProcess | TodoGenerate):
                return
            self._keep(JobState(address.run, address.session, fact.plan))
            state = self.jobs[address.run]
        await self._apply(state, stored.seq, fact)

    async def _apply(self, state: JobState, seq: int, fact: RunFact) -> None:
        if state.seq and fact.prev > state.seq:  # its predecessor should be here
            for missed, before in await self._log.facts_after(state):
                state.apply(missed, before)
        state.apply(seq, fact)
        self._heard[state.run_id] = self._loop.time()
        if state.running:  # its first deltas may have come before its claim
            self._stale[state.run_id] = None
        self.watchers.wake(state.run_id)

    def drop_session(self, session_id: str) -> None:
        for state in [s for s in self.jobs.values() if s.session_id == session_id]:
            self._forget(state.run_id)

    def _forget(self, run_id: str) -> None:
        del self.jobs[run_id]
        self._known.discard(run_id)
        self._kept_until.pop(run_id, None)
        self._heard.pop(run_id, None)

    # -- keeping ----------------------------------------------------------------------

    async def look_after(self) -> None:
        """Forget what ended a while ago, and look whether silent jobs went on without us."""
        at = self._loop.time()
        for state in list(self.jobs.values()):
            if state.ending is not None:
                left = (RECENT - (now() - state.ending.at)).total_seconds()
                until = self._kept_until.setdefault(state.run_id, at + max(_LEAST, left))
                if at > until:
                    self._forget(state.run_id)
            elif state.status != "scheduled" and at - self._heard[state.run_id] > SILENCE:
                self._heard[state.run_id] = at
                last = await self._log.head(state)
                if last is not None:
                    self._facts.append(last)
                self._read_again(state.run_id)
