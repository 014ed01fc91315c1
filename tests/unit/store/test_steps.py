"""How far a job has got, as its facts say."""

from datetime import timedelta
from typing import Any

import pytest

from services.store import job_queries, queries
from services.store.dispatch import End, Lost, Schedule, Step, Watch, ended_by_store, steps
from shared import ids
from shared.commands import GetJob
from shared.events import (
    EndStatus,
    Plan,
    StepResult,
    Usage,
)
from shared.records import Job
from tests.support.plans import a_document, a_pipeline, a_result, an_ask
from tests.support.scripted_log import START, USER
from tests.unit.store.story import Story

PIPELINE = a_pipeline("one", "two")
HOUR = 3_600_000
DUE = START + timedelta(milliseconds=HOUR)
COST = Usage(input_tokens=1, output_tokens=2)


class ScriptedJob:
    """One job of a story's session, and what the tables say of it."""

    def __init__(self, story: Story, plan: Plan) -> None:
        self.story = story
        self.plan = plan
        self.run = ids.new_id()

    @property
    def job(self) -> Job:
        request = GetJob(user_id=USER, run_id=self.run)
        return job_queries.get_job(self.story.connection, request).job

    @property
    def steps(self) -> list[str]:
        return [step.status for step in self.job.steps]

    @property
    def needs(self) -> list[type[Step]]:
        unfinished = queries.unfinished_runs(self.story.connection, self.story.session)
        return [type(step) for step in steps(unfinished, 0)]

    def scheduled(self) -> None:
        self.story.schedules(self.run, self.plan, HOUR)

    def process(self, n: int, step: str, *results: StepResult) -> None:
        self.story.hands_to_processor(self.run, self.plan, n, step, results)

    def generate(self, n: int, step: str, *results: StepResult) -> None:
        self.story.hands_to_llm_worker(self.run, self.plan, n, an_ask(step), results)

    def claim(self) -> int:
        return self.story.claims(self.run)

    def end(self, status: EndStatus, **fields: Any) -> None:
        self.story.ends(self.run, "Tea.", status, **fields)


@pytest.fixture
def job(story: Story) -> ScriptedJob:
    return ScriptedJob(story, PIPELINE)


def test_a_jobs_steps_go_one_after_another(job: ScriptedJob):
    job.process(0, "one")
    seen = [job.steps]
    job.generate(1, "one")
    job.claim()
    seen.append(job.steps)
    job.process(2, "two", a_result("one"))
    seen.append(job.steps)
    job.generate(3, "two", a_result("one"))
    job.claim()
    seen.append(job.steps)
    job.end("completed", results=[a_result("one"), a_result("two")])
    seen.append(job.steps)

    assert seen == [
        ["pending", "pending"],
        ["running", "pending"],
        ["completed", "pending"],
        ["completed", "running"],
        ["completed", "completed"],
    ]
    first, second = job.job.steps
    assert first.started_at is not None
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.started_at < first.ended_at < second.started_at
    assert (job.job.text, [r.step for r in job.job.results]) == ("Tea.", ["one", "two"])


def test_a_second_attempt_does_not_begin_a_step_again(job: ScriptedJob):
    job.process(0, "one")
    job.claim()
    begun = job.job.steps
    job.claim()

    assert job.job.steps == begun


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_ends_at_its_step(job: ScriptedJob, status: EndStatus):
    job.process(0, "one")
    job.generate(1, "one")
    job.claim()
    job.end(status)

    assert job.steps == [status, "pending"]


def test_a_miss_leaves_the_step_running(job: ScriptedJob):
    job.generate(1, "one")
    job.claim()
    job.generate(2, "one")

    assert job.steps == ["running", "pending"]


def test_the_text_of_a_file_is_not_kept_in_the_rows(story: Story):
    job = ScriptedJob(story, a_document())
    job.process(0, "extract")
    job.generate(1, "answer", a_result("extract", "a long text", notes=["Cut."]))

    assert job.job.results == [a_result("extract", "", notes=["Cut."])]
    assert job.job.notes == ["Cut."]


def test_a_job_costs_what_its_steps_did_although_nobody_had_claimed_the_last(job: ScriptedJob):
    job.process(0, "one")
    job.end("cancelled", attempt=0, results=[a_result("one", usage=COST)], usage=COST)

    found = job.story.connection.exec_driver_sql("SELECT output_tokens FROM api_usage_log")
    assert found.scalars().all() == [2]


def test_a_job_for_later_waits_and_then_begins(job: ScriptedJob):
    job.scheduled()
    before = (job.job.run.status, job.job.due, job.needs)
    job.process(0, "one")

    assert before == ("scheduled", DUE, [Schedule])
    assert (job.job.run.status, job.needs) == ("queued", [])


def test_a_schedule_that_fires_twice_changes_nothing(job: ScriptedJob):
    job.scheduled()
    job.process(0, "one")
    job.generate(1, "one", a_result("zero"))
    job.claim()
    before = job.job
    job.process(0, "one")

    after = job.job
    assert (after.steps, after.results, after.run.status) == (
        before.steps,
        before.results,
        "running",
    )
    assert after.run.last_seq == before.run.last_seq + 1


def test_a_schedule_that_fires_after_the_end_changes_nothing(job: ScriptedJob):
    job.scheduled()
    job.story.cancels(job.run)
    job.end("cancelled", attempt=0)
    before = job.job
    job.process(0, "one")

    after = job.job
    assert (after.steps, after.run.status) == (before.steps, "cancelled")


def test_a_cancelled_job_is_ended_by_who_has_it(job: ScriptedJob):
    job.process(0, "one")
    job.claim()
    job.story.cancels(job.run)

    assert job.needs == [Watch]


def test_a_cancelled_job_that_nobody_has_is_ended_by_the_store(story: Story, job: ScriptedJob):
    job.process(0, "one")
    job.claim()
    job.process(1, "two", a_result("one", usage=COST))
    job.story.cancels(job.run)
    (row,) = queries.unfinished_runs(story.connection, story.session)

    final = ended_by_store(row, "cancelled", "")

    assert job.needs == [End]
    assert (final.attempt, final.usage) == (0, COST)
    assert [result.step for result in final.results] == ["one"]


def test_only_a_job_that_has_begun_can_be_lost(story: Story, job: ScriptedJob):
    job.scheduled()
    (waiting,) = queries.unfinished_runs(story.connection, story.session)
    job.process(0, "one")
    (begun,) = queries.unfinished_runs(story.connection, story.session)

    assert [type(step) for step in steps([waiting], 100)] == [Schedule]
    assert [type(step) for step in steps([begun], begun.last_seq)] == []
    assert [type(step) for step in steps([begun], 100)] == [Lost]
