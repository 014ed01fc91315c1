"""Accepting jobs: a session of its own, then the run's first fact.

Both are appended with ids that the asker made, so that asking twice, or after a
crash between the two, goes on where the first time stopped.

A client may call its job by a reference of its own, and means the same job by it
until that has ended.  Then the session's id follows from the reference: stores
that accept it at the same moment append to one session, and the server lets one
of them be first.
"""

import asyncio
from weakref import WeakValueDictionary

import msgspec

from services.store import job_queries, queries
from services.store.chains import ROUNDS
from services.store.commands import Commands
from services.store.session_log import SessionLog, SessionState
from services.store.turns import need_id
from shared import ids
from shared.commands import CreateJob, CreateSession, GetJob, JobAccepted
from shared.due import check_due
from shared.errors import Conflict, InvalidRequest, NotFound, Unavailable
from shared.events import DocumentPlan, PipelinePlan, RunScheduled, TodoProcess
from shared.plans import step_names
from shared.subjects import PRIORITIES, Address


class Jobs:
    """The command that begins jobs."""

    def __init__(self, log: SessionLog, commands: Commands) -> None:
        self._log = log
        self._commands = commands
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create_job(self, request: CreateJob) -> JobAccepted:
        _check(request)
        mine = f"{request.user_id} {request.client_ref or request.run_id}"
        async with self._locks.setdefault(mine, asyncio.Lock()):
            if request.client_ref is None:
                run_id = await self._begin(request)
            else:
                run_id = await self._same_or_new(request, request.client_ref)
        query = GetJob(user_id=request.user_id, run_id=run_id)
        found = await self._log.read(job_queries.get_job, query)
        return JobAccepted(job=found.job, seq=found.seq, repeated=run_id != request.run_id)

    async def _begin(self, request: CreateJob) -> str:
        await self._open_session(request)
        return await self._accept(request)

    async def _same_or_new(self, request: CreateJob, reference: str) -> str:
        """The unfinished job that the client calls the same, or else a new one."""
        known = await self._log.read(queries.run_owner, request.run_id)
        if known is not None:  # the same request came twice
            return await self._begin(msgspec.structs.replace(request, session_id=known[1]))
        for _ in range(ROUNDS):
            session_id = await self._session_of(request.user_id, reference)
            try:
                run_id = await self._begin(msgspec.structs.replace(request, session_id=session_id))
            except NotFound:
                continue  # it was deleted just now, and another one is due
            job = await self._log.read(job_queries.job_in, session_id)
            if run_id == request.run_id or (job is not None and job.ended_at is None):
                return run_id
        raise Unavailable("Too much is happening under this reference.", retry_after=1.0)

    async def _session_of(self, user_id: str, reference: str) -> str:
        """The session of the job that has this reference now, whether it is there yet or not."""
        last = await self._log.read(job_queries.last_of_reference, user_id, reference)
        if last is not None and last.ended_at is None:
            return last.session_id
        session_id = ids.id_after(last.session_id if last else user_id, user_id, reference)
        while self._commands.was_deleted(session_id):
            session_id = ids.id_after(session_id, user_id, reference)
        return session_id

    async def _open_session(self, request: CreateJob) -> None:
        opening = CreateSession(
            user_id=request.user_id,
            session_id=request.session_id,
            mode=request.mode,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            client_ref=request.client_ref,
        )
        await self._commands.create_session(opening)

    async def _accept(self, request: CreateJob) -> str:
        """Append the job's first fact, unless its session has a job; answers that job's run."""
        address = Address(request.user_id, request.session_id, request.run_id)

        async def attempt(state: SessionState) -> str:
            at = state.session.last_seq
            job = await self._log.read_at(at, job_queries.job_in, request.session_id)
            if job is not None and job.id != request.run_id and request.client_ref is not None:
                # joining it is no append, so the chain cannot tell that it is late
                await self._log.check_latest(address, at)
                return job.id
            found = await self._log.read(queries.run_owner, request.run_id)
            if found == (request.user_id, request.session_id):
                return request.run_id
            if found is not None:
                raise Conflict("This run id is taken; please choose another.")
            await self._log.append(address, _first_fact(request), at)
            return request.run_id

        return await self._log.decide(request.user_id, request.session_id, attempt)


def _first_fact(request: CreateJob) -> RunScheduled | TodoProcess:
    """What the job begins with: its first todo, or a note that the todo comes later."""
    now = ids.now()
    if request.due is not None and request.due > now:
        return RunScheduled(at=now, plan=request.plan, priority=request.priority, due=request.due)
    return TodoProcess(
        at=now,
        n=0,
        priority=request.priority,
        step=step_names(request.plan)[0],
        plan=request.plan,
    )


def _check(request: CreateJob) -> None:
    need_id(request.session_id, "session_id")
    need_id(request.run_id, "run_id")
    if request.priority not in PRIORITIES:
        raise InvalidRequest(
            f"A priority is a number from {PRIORITIES[0]} to {PRIORITIES[-1]}.", path="$.priority"
        )
    if request.due is not None:
        check_due(request.due, path="$.due")
    if request.client_ref is not None and isinstance(request.plan, DocumentPlan):
        # its file lies in the session that the asker chose
        raise InvalidRequest("A job about a file has no reference.", path="$.client_ref")
    names = step_names(request.plan)
    if isinstance(request.plan, PipelinePlan) and (not names or len(set(names)) < len(names)):
        raise InvalidRequest("A pipeline has steps, each with a name.", path="$.plan.steps")
