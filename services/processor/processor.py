"""Work on process todos: read a file, or append the todo for the next step.

``handle`` is the list of the steps.  Reading takes time and is claimed first;
deciding takes none, and the chain itself sees to it that it is done once.
"""

import asyncio
from contextlib import suppress

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from services.processor.conductor import Generate, Read, conduct
from services.processor.extract.findings import ExtractError
from services.processor.progress import ProgressWriter
from services.processor.read_file import read
from shared.bus import Bus
from shared.consumer import LEASE, Delivery, Rejected, RetryLater
from shared.deltas import read_attempt
from shared.endings import end_unhandled, ended
from shared.events import (
    DocumentPlan,
    EndStatus,
    Fault,
    FilePlan,
    PreviousAttempt,
    StepResult,
    TodoGenerate,
    TodoProcess,
)
from shared.ids import now
from shared.log import get_logger
from shared.ownership import OwnedRun, RunOwnership
from shared.plans import cost_of, due_step, notes_of, total, without_file_text

log = get_logger()

_STOPPING = 2.0
"""Seconds that an interrupted reading has to be gone."""

Run = OwnedRun[ProgressWriter]

_files = Counter("natterlog_files", "Files by kind and how reading them ended", ["kind", "outcome"])
_seconds = Histogram(
    "natterlog_file_seconds",
    "How long reading a file took",
    ["kind"],
    buckets=(0.05, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
)
_steps = Counter("natterlog_processor_steps", "Process todos by what came of them", ["outcome"])


class Processor:
    """What one processor works with; ``owned`` are the runs that it is at."""

    def __init__(self, bus: Bus, worker_id: str, *, silent_deaths: int) -> None:
        self._bus = bus
        self._silent_deaths = silent_deaths
        self.owned = RunOwnership[ProgressWriter](bus, worker_id)

    async def handle(self, delivery: Delivery) -> None:
        """Do the step that is due.

        Raises:
            Rejected: the fact is no process todo.
            RetryLater: another processor is at it.
        """
        todo = delivery.fact
        if not isinstance(todo, TodoProcess):
            raise Rejected(f"not a process todo: {delivery.subject}")
        if todo.step != due_step(todo.plan, todo.results):
            return await self._refuse(delivery, todo)
        address = delivery.address
        bound = structlog.contextvars.bound_contextvars
        with (
            bound(run_id=address.run, session_id=address.session),
            self.owned.take(delivery) as run,
        ):
            await self.owned.look_up(run, delivery)
            await self.owned.leave_to_owner(run)
            while not run.state.over:
                await self._attempt(run, delivery, todo)
        return None

    async def _refuse(self, delivery: Delivery, todo: TodoProcess) -> None:
        fault = Fault(code="invalid_request", message=f"No processor knows the step “{todo.step}”.")
        if await end_unhandled(self._bus, delivery.address, fault, although_claimed=False):
            log.warning("run.refused", run_id=delivery.address.run, step=todo.step)

    async def _attempt(self, run: Run, delivery: Delivery, todo: TodoProcess) -> None:
        """One try; afterwards the run has gone on, or its state shows why not."""
        if run.lost:
            raise RetryLater(LEASE, "another attempt has begun")
        if run.state.cancelled:
            return await self._conclude(run, todo, "cancelled")
        if run.state.claims >= self._silent_deaths:
            fault = Fault(code="internal", message="Every processor that tried was lost.")
            return await self._conclude(run, todo, "failed", fault)
        match conduct(todo.plan, todo.results):
            case Read():
                await self._read(run, delivery, todo)
            case Generate() as step:
                await self._append_generate(run, todo, step, todo.results)
            case None:
                fault = Fault(code="internal", message="The job had no step left to do.")
                await self._conclude(run, todo, "failed", fault)
        return None

    # -- reading a file ---------------------------------------------------------------

    async def _read(self, run: Run, delivery: Delivery, todo: TodoProcess) -> None:
        least, previous = await self._read_before(run)
        attempt = await self.owned.claim(run, delivery, previous=previous, fraction=least)
        if attempt is None:
            return None
        assert isinstance(todo.plan, DocumentPlan | FilePlan)  # noqa: S101  (only these have a file)
        kind = todo.plan.file.kind
        try:
            with _seconds.labels(kind).time():
                result = await self._until_interrupted(run, todo, attempt, least)
        except ExtractError as error:
            log.info("file.unreadable", code=error.code, attempt=attempt)
            _files.labels(kind, error.code).inc()
            fault = Fault(code=error.code, message=error.message)
            return await self._conclude(run, todo, "failed", fault)
        _files.labels(kind, "interrupted" if result is None else "read").inc()
        if result is not None:
            results = [*todo.results, result]
            step = conduct(todo.plan, results)
            if isinstance(step, Generate):
                await self._append_generate(run, todo, step, results)
            else:  # a file for messages: to be read was all
                await self._conclude(run, msgspec.structs.replace(todo, results=results))
        return None

    async def _read_before(self, run: Run) -> tuple[float, PreviousAttempt | None]:
        """How much of the file was read so far, because progress never falls; and the last try."""
        claim, own = run.state.claim, run.own_writer
        if claim is None:
            return 0.0, None
        attempt = run.state.attempt
        written = await read_attempt(self._bus, run.address, attempt)
        previous = PreviousAttempt(
            attempt=attempt,
            text="",
            reason="its processor was lost",
            progress=own.timeline if own else written.progress,
        )
        return max(claim.fraction, written.fraction, own.reached if own else 0.0), previous

    async def _until_interrupted(
        self, run: Run, todo: TodoProcess, attempt: int, least: float
    ) -> StepResult | None:
        """What was read; None when a cancel came, or the run was lost."""
        step = conduct(todo.plan, todo.results)
        assert isinstance(step, Read)  # noqa: S101  (whoever calls has looked)
        writer = ProgressWriter(self._bus, run.address, attempt, todo.step, least=least)
        async with writer as progress:
            run.writer = progress
            reading = asyncio.create_task(read(self._bus, run.address, step.plan, progress.report))
            interrupted = asyncio.create_task(run.interrupted.wait())
            try:
                await asyncio.wait({reading, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                interrupted.cancel()
                if not reading.done():  # the reader's process dies with its task
                    reading.cancel()
                    await asyncio.wait({reading}, timeout=_STOPPING)
            if run.interrupted.is_set():
                with suppress(asyncio.CancelledError, Exception):  # it does not count any more
                    reading.result()
                return None
            return reading.result()

    # -- what comes next ----------------------------------------------------------------

    async def _append_generate(
        self, run: Run, todo: TodoProcess, step: Generate, results: list[StepResult]
    ) -> None:
        following = TodoGenerate(
            at=now(),
            n=todo.n + 1,
            priority=todo.priority,
            ask=step.ask,
            plan=todo.plan,
            results=without_file_text(todo.plan, results),
            last=step.last,
            previous=_previous_attempt(run),
        )
        subject = run.address.todo_generate(todo.priority, following.n)
        if await self.owned.append_next_todo(run, subject, following):
            _steps.labels("asked").inc()
            log.info("step.asked", step=step.ask.step, n=following.n)

    async def _conclude(
        self,
        run: Run,
        todo: TodoProcess,
        status: EndStatus = "completed",
        error: Fault | None = None,
    ) -> None:
        fraction, last = await self._read_before(run)
        final = msgspec.structs.replace(
            ended(status, attempt=run.state.attempt, error=error, fraction=fraction),
            results=without_file_text(todo.plan, todo.results),
            notes=notes_of(todo.results),
            usage=total(*(result.usage for result in todo.results)),
            cost=cost_of(todo.results),
            progress=last.progress if last else [],
        )
        await self.owned.conclude(run, final)
        _steps.labels(status).inc()


def _previous_attempt(run: Run) -> PreviousAttempt | None:
    """The attempt that read the file before a model answers; None where nothing was read."""
    if run.own_writer is None:
        return None
    return PreviousAttempt(
        attempt=run.own_writer.attempt,
        text="",
        reason="the file was read",
        progress=run.own_writer.timeline,
    )
