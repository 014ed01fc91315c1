"""How far the steps of a job have got, derived from its facts alone."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from services.store.rows import RunRow
from shared.events import (
    EndStatus,
    Plan,
    RunEnded,
    RunScheduled,
    StepResult,
    TodoGenerate,
    TodoProcess,
)
from shared.plans import notes_of, step_names, without_file_text
from shared.records import JobStep


def accept(run: RunRow, fact: RunScheduled | TodoProcess | TodoGenerate) -> None:
    """A job's first fact: from here on its plan is known."""
    run.plan, run.priority = fact.plan, fact.priority
    run.steps = [JobStep(name=name, status="pending") for name in step_names(fact.plan)]


def go_on(run: RunRow, fact: RunScheduled | TodoProcess | TodoGenerate) -> None:
    """A todo: what left a result is done, and nobody owns what comes next.

    A schedule may fire twice, or after a cancel: only a todo with a new number counts.
    """
    if isinstance(fact, RunScheduled):
        run.status, run.due = "scheduled", fact.due
        return
    if fact.n <= run.todo or run.ended_at is not None:
        return
    run.todo, run.worker = fact.n, None
    if run.status == "scheduled":
        run.status = "queued"
    _results(run, fact.plan, fact.results)
    done = {result.step for result in fact.results}
    run.steps = [_done(step, fact.at) if step.name in done else step for step in run.steps]


def claimed(run: RunRow, at: datetime) -> None:
    """Somebody works on the first step that is not done."""
    _change_current(run, lambda step: _begun(step, at))


def over(run: RunRow, plan: Plan, fact: RunEnded) -> None:
    """The end of the job is the end of the step at which it was."""
    run.text = fact.text
    if fact.results:
        _results(run, plan, fact.results)
    run.notes = fact.notes or run.notes
    if fact.status == "completed":
        run.steps = [_done(step, fact.at) for step in run.steps]
    else:
        _change_current(run, lambda step: _ended(step, fact.status, fact.at))


def _results(run: RunRow, plan: Plan, results: list[StepResult]) -> None:
    run.results = without_file_text(plan, results)
    run.notes = notes_of(results)


def _change_current(run: RunRow, change: Callable[[JobStep], JobStep]) -> None:
    for number, step in enumerate(run.steps):
        if step.status != "completed":
            run.steps = [*run.steps[:number], change(step), *run.steps[number + 1 :]]
            return


def _begun(step: JobStep, at: datetime) -> JobStep:
    return msgspec.structs.replace(step, status="running", started_at=step.started_at or at)


def _done(step: JobStep, at: datetime) -> JobStep:
    if step.status == "completed":
        return step
    return msgspec.structs.replace(step, status="completed", ended_at=at)


def _ended(step: JobStep, status: EndStatus, at: datetime) -> JobStep:
    return msgspec.structs.replace(step, status=status, ended_at=at)
