"""Accepting jobs: a session of its own, then the run's first fact.

Both are appended with ids that the asker made, so that asking twice, or after a
crash between the two, goes on where the first time stopped.
"""

import asyncio
from weakref import WeakValueDictionary

from services.store import job_queries, queries
from services.store.commands import Commands, need_id
from services.store.database import Database
from services.store.queries import SessionState
from shared import ids
from shared.commands import CreateJob, CreateSession, GetJob, JobAnswer
from shared.errors import Conflict, InvalidRequest
from shared.events import PipelinePlan, RunScheduled, TodoProcess
from shared.plans import step_names
from shared.subjects import PRIORITIES, Address


class Jobs:
    """The command that begins jobs."""

    def __init__(self, commands: Commands, database: Database) -> None:
        self._commands = commands
        self._database = database
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create_job(self, request: CreateJob) -> JobAnswer:
        _check(request)
        mine = f"{request.user_id} {request.client_ref or request.run_id}"
        async with self._locks.setdefault(mine, asyncio.Lock()):
            run_id = await self._same_reference(request)
            if run_id is None:
                await self._open_session(request)
                await self._accept(request)
                run_id = request.run_id
        answered = GetJob(user_id=request.user_id, run_id=run_id)
        return await self._database.read(job_queries.get_job, answered)

    async def _same_reference(self, request: CreateJob) -> str | None:
        """The unfinished job that the client calls the same."""
        if request.client_ref is None:
            return None
        return await self._database.read(
            job_queries.unfinished_job, request.user_id, request.client_ref
        )

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

    async def _accept(self, request: CreateJob) -> None:
        address = Address(request.user_id, request.session_id, request.run_id)

        async def attempt(state: SessionState) -> int:
            found = await self._database.read(queries.run_owner, request.run_id)
            if found == (request.user_id, request.session_id):
                return 0
            if found is not None:
                raise Conflict("This run id is taken; please choose another.")
            subject, fact = _first_fact(request, address)
            return await self._commands.append_to_session(subject, fact, state.session.last_seq)

        await self._commands.decide_on_session(request.user_id, request.session_id, attempt)


def _first_fact(request: CreateJob, address: Address) -> tuple[str, RunScheduled | TodoProcess]:
    """What the job begins with: its first todo, or a note that the todo comes later."""
    now = ids.now()
    if request.due is not None and request.due > now:
        scheduled = RunScheduled(
            at=now, plan=request.plan, priority=request.priority, due=request.due
        )
        return address.fact("scheduled"), scheduled
    todo = TodoProcess(
        at=now,
        n=0,
        priority=request.priority,
        step=step_names(request.plan)[0],
        plan=request.plan,
    )
    return address.todo_process(request.priority, 0), todo


def _check(request: CreateJob) -> None:
    need_id(request.session_id, "session_id")
    need_id(request.run_id, "run_id")
    if request.priority not in PRIORITIES:
        raise InvalidRequest(
            f"A priority is a number from {PRIORITIES[0]} to {PRIORITIES[-1]}.", path="$.priority"
        )
    if request.due is not None and request.due.tzinfo is None:
        raise InvalidRequest("A time has a zone.", path="$.due")
    names = step_names(request.plan)
    if isinstance(request.plan, PipelinePlan) and (not names or len(set(names)) < len(names)):
        raise InvalidRequest("A pipeline has steps, each with a name.", path="$.plan.steps")
