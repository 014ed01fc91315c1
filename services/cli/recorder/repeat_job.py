"""A job done once more: the same plan and the same file, in a session of its own."""

from services.cli.recorder.recorded_log import RecordedFact
from shared import objects
from shared.bus import Bus
from shared.commands import CreateJob
from shared.errors import Conflict
from shared.events import (
    DocumentPlan,
    FilePlan,
    Plan,
    RunScheduled,
    TodoGenerate,
    TodoProcess,
)
from shared.objects import ObjectMissing
from shared.store_client import StoreClient


def plan_of(facts: list[RecordedFact], run_id: str | None) -> tuple[Plan, int] | None:
    """What a run was to do, and with which priority; None when it is no job."""
    for fact in facts:
        begun = fact.fact
        if fact.address.run == run_id and isinstance(
            begun, RunScheduled | TodoProcess | TodoGenerate
        ):
            return begun.plan, begun.priority
    return None


async def do_again(bus: Bus, store: StoreClient, job: CreateJob, *, old_session: str) -> str:
    """Begin the job, with a file of its own if its plan has one; answers its run.

    Raises:
        Conflict: its file is gone.
        NatterlogError: the store refuses.
    """
    if isinstance(job.plan, DocumentPlan | FilePlan):
        await _copy_file(bus, job.plan, old_session, job.session_id)
    answer = await store.start_run(job)
    return answer.job.run.id


async def _copy_file(bus: Bus, plan: DocumentPlan | FilePlan, old: str, new: str) -> None:
    """A job's file lies under its session, and is erased with it."""
    try:
        async with objects.writing(bus, f"{new}/{plan.file.id}") as writer:
            async for chunk in objects.reading(bus, f"{old}/{plan.file.id}"):
                await writer.write(chunk)
    except ObjectMissing as error:
        raise Conflict("The job's file is gone.") from error
