"""Run a job again: the same plan and the same file, in a session of its own."""

from shared import objects
from shared.bus import Bus
from shared.commands import CreateJob
from shared.errors import Conflict
from shared.events import (
    DocumentPlan,
    FilePlan,
    Plan,
)
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing
from shared.run_state import PlannedFact
from shared.store_client import StoreClient


def plan_of(facts: list[LogEntry], run_id: str | None) -> tuple[Plan, int] | None:
    """The plan and the priority of a job; None when the run is none."""
    for fact in facts:
        first = fact.fact
        if fact.address.run == run_id and isinstance(first, PlannedFact):
            return first.plan, first.priority
    return None


async def repeat_job(bus: Bus, store: StoreClient, job: CreateJob, *, old_session: str) -> str:
    """Begin the job, with a copy of the file if its plan has one → the id of its run.

    Raises:
        Conflict: its file is gone.
        NatterlogError: the store refuses.
    """
    if isinstance(job.plan, DocumentPlan | FilePlan):
        await _copy_file(bus, job.plan, old_session, job.session_id)
    answer = await store.start_run(job)
    return answer.job.run.id


async def _copy_file(bus: Bus, plan: DocumentPlan | FilePlan, old: str, new: str) -> None:
    """Copy a job's file to its new session: a file is erased with its session."""
    try:
        async with objects.writing(bus, f"{new}/{plan.file.id}") as writer:
            async for chunk in objects.reading(bus, f"{old}/{plan.file.id}"):
                await writer.write(chunk)
    except ObjectMissing as error:
        raise Conflict("The job's file is gone.") from error
