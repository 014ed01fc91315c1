"""Jobs through real processes, one of which dies at every point: each job ends, once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from shared import objects
from shared.bus import Bus
from shared.commands import CancelRun, CreateJob, GetJob
from shared.events import (
    DocumentPlan,
    FileKind,
    PipelinePlan,
    PipelineStep,
    Progress,
    RunClaimed,
    TodoGenerate,
    TodoProcess,
    decode_token_event,
)
from shared.ids import new_id, now
from shared.pipelines import load
from shared.records import Job
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.subjects import EVENTS, TOKENS, Address, fact_kind
from tests.support.fake_provider import FakeProvider
from tests.support.fake_script import Script
from tests.support.log_checks import RunLog, wait_until_ended
from tests.support.made_files import png
from tests.support.plans import a_document
from tests.support.running import settings_of, short_lease
from tests.support.system import System

DEADLINE = 60.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
    "additionalProperties": False,
}
PIPELINE = PipelinePlan(
    pipeline="test",
    steps=[
        PipelineStep(name="plan", template="Plan {topic}.", schema=SCHEMA),
        PipelineStep(name="text", template="Write about {topic}: {plan}"),
        PipelineStep(name="check", template="Check: {text}", schema=SCHEMA),
    ],
    inputs={"topic": "tea"},
)
GOOD = Script(reply='{"good": true}')
BAD = Script(reply='{"good": "perhaps"}')
SLOW = Script(tokens=400, rate=20)


@dataclass
class Shop:
    """The system without a gateway, and one user of it."""

    system: System
    fake: FakeProvider
    bus: Bus
    store: StoreClient
    user: str

    async def create(self, plan: DocumentPlan | PipelinePlan, **fields: Any) -> Job:
        known: dict[str, Any] = {
            "session_id": new_id(),
            "run_id": new_id(),
            "mode": "content",
            **fields,
        }
        request = CreateJob(user_id=self.user, plan=plan, **known)
        return (await self.store.start_run(request)).job

    async def document(self, data: bytes, prompt: str = "Sum it up.", **fields: Any) -> Job:
        kind: FileKind = fields.pop("kind", "text")
        plan = a_document(prompt, kind=kind, media_type=fields.pop("media_type", "text/plain"))
        session = new_id()
        await objects.put(self.bus, f"{session}/{plan.file.id}", data)
        return await self.create(plan, session_id=session, mode="document", **fields)

    async def job(self, of: Job, min_seq: int = 0) -> Job:
        request = GetJob(user_id=self.user, run_id=of.run.id, min_seq=min_seq)
        answer = await self.store.ask(request)
        return answer.job

    async def cancel(self, of: Job) -> None:
        await self.store.ask(CancelRun(user_id=self.user, run_id=of.run.id))

    async def ended(self, of: Job) -> tuple[Job, RunLog]:
        log = await wait_until_ended(self.bus, of.run.id, DEADLINE)
        return await self.job(of, min_seq=log.links[-1].seq), log

    def address(self, of: Job) -> Address:
        return Address(self.user, of.run.session_id, of.run.id)


@asynccontextmanager
async def shop(**environ: str) -> AsyncIterator[Shop]:
    async with FakeProvider() as fake:
        settings = {"OPENAI_BASE_URL": fake.openai_url, "LLM_DEFAULT_MODEL": "openai/fake-gpt"}
        services = ("store", "llm-worker", "processor")
        async with (
            System(settings | environ, services=services) as system,
            Bus(system.nats.url, name="test") as bus,
        ):
            yield Shop(system, fake, bus, StoreClient(bus), new_id())


@pytest.fixture
async def natterlog(request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """With what ``@pytest.mark.settings`` says."""
    async with shop(**settings_of(request)) as made:
        yield made


def facts(log: RunLog) -> list[str]:
    return [fact_kind(link.subject) for link in log.links]


def claims_of(log: RunLog) -> list[RunClaimed]:
    return [link.fact for link in log.links if isinstance(link.fact, RunClaimed)]


def states(job: Job) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in job.steps]


# -- to the end ------------------------------------------------------------------------


async def test_a_file_becomes_an_answer(natterlog: Shop):
    natterlog.fake.default = Script(reply="It is about tea.")

    made = await natterlog.document(b"All about tea.", priority=4)
    job, log = await natterlog.ended(made)

    assert facts(log) == [
        "todo.process.4.0", "claim", "todo.generate.4.1", "claim", "final",
    ]  # fmt: skip
    assert (job.run.status, job.text) == ("completed", "It is about tea.")
    assert states(job) == [("extract", "completed"), ("answer", "completed")]
    assert "```text\nAll about tea.\n```" in natterlog.fake.seen[-1].message
    assert all(result.text == "" for result in job.results if result.step == "extract")
    messages = await natterlog.bus.read(TOKENS, natterlog.address(made).tokens)
    assert any(isinstance(decode_token_event(message.data), Progress) for message in messages)


async def test_a_pipeline_goes_from_step_to_step(natterlog: Shop):
    natterlog.fake.next.extend([GOOD, Script(reply="Tea is good."), GOOD])

    job, log = await natterlog.ended(await natterlog.create(PIPELINE))

    assert facts(log) == [
        "todo.process.0.0", "todo.generate.0.1", "claim",
        "todo.process.0.2", "todo.generate.0.3", "claim",
        "todo.process.0.4", "todo.generate.0.5", "claim", "final",
    ]  # fmt: skip
    assert [(r.step, r.text) for r in job.results] == [
        ("plan", '{"good": true}'),
        ("text", "Tea is good."),
        ("check", '{"good": true}'),
    ]
    assert {status for _, status in states(job)} == {"completed"}
    plan, text, check = natterlog.fake.seen
    assert plan.body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert text.message == 'Write about tea: ```plan\n{"good": true}\n```'
    assert "```text\nTea is good.\n```" in check.message
    spent = [r.usage.output_tokens for r in job.results if r.usage]
    assert job.run.usage is not None
    assert job.run.usage.output_tokens == sum(spent) > 0


async def test_a_pipeline_whose_answers_are_very_long_goes_on_with_all_of_them(natterlog: Shop):
    long = "".join(f"{n:07d}\x01" for n in range(400_000))  # 3.2 MB, and 5 MB of JSON
    natterlog.fake.next.extend([GOOD, Script(reply=long), GOOD])

    made = await natterlog.create(PIPELINE)
    job, log = await natterlog.ended(made)

    assert job.run.status == "completed"
    assert [result.text for result in job.results] == ['{"good": true}', long, '{"good": true}']
    assert long in natterlog.fake.seen[2].message
    assert log.final.results == job.results
    address = natterlog.address(made)
    stored = await natterlog.bus.facts_after(EVENTS, address.facts, 0)
    stored += await natterlog.bus.facts_after(TOKENS, address.tokens, 0)
    assert max(len(message.data) for message in stored) <= 256 * 1024


async def test_a_steps_answer_that_has_no_end_ends_at_its_bound():
    async with shop(NATTERLOG_MAX_REPLY="5000") as natterlog:
        natterlog.fake.next.extend([GOOD, Script(reply="word " * 5_000), GOOD])

        job, _ = await natterlog.ended(await natterlog.create(PIPELINE))

    assert [len(result.text) for result in job.results] == [14, 5_000, 14]
    assert job.run.status == "completed"


async def test_the_demo_goes_through_natterlogs_own_pipeline():
    async with shop(LLM_DEFAULT_MODEL="demo", NATTERLOG_DEMO_RATE="0") as natterlog:
        own = load(Settings())["content"]
        plan = PipelinePlan(
            pipeline=own.name, steps=own.steps, inputs=dict.fromkeys(own.inputs, "tea")
        )

        job, _ = await natterlog.ended(await natterlog.create(plan))

    assert job.run.status == "completed"
    strategy, text, compliance = job.results
    assert list(json.loads(strategy.text)) == ["keywords", "audience", "tone", "hooks", "hashtags"]
    assert "demo provider" in text.text
    assert json.loads(compliance.text)["approved"] is True


# -- answers that miss -------------------------------------------------------------------


async def test_an_answer_that_misses_is_asked_for_again_with_the_fault(natterlog: Shop):
    natterlog.fake.next.extend([BAD, GOOD, Script(reply="Tea."), GOOD])

    job, log = await natterlog.ended(await natterlog.create(PIPELINE))

    questions = [link.fact.ask for link in log.links if isinstance(link.fact, TodoGenerate)]
    assert [(ask.step, ask.misses) for ask in questions] == [
        ("plan", 0),
        ("plan", 1),
        ("text", 0),
        ("check", 0),
    ]
    assert "$.good: 'perhaps' is not of type 'boolean'" in natterlog.fake.seen[1].message
    assert job.run.status == "completed"


async def test_the_todo_after_an_answer_tells_how_it_came_about_taken_or_missed(natterlog: Shop):
    natterlog.fake.next.extend([BAD, GOOD, Script(reply="Tea."), GOOD])

    _, log = await natterlog.ended(await natterlog.create(PIPELINE))

    todos = [link.fact for link in log.links if isinstance(link.fact, TodoProcess | TodoGenerate)]
    attempts = [todo.previous for todo in todos if todo.previous is not None]
    assert [p.attempt for p in attempts] == [claim.seq for claim in log.claims][:-1]
    assert [(p.text, p.reason) for p in attempts] == [
        (BAD.reply, "its answer missed the schema"),
        (GOOD.reply, "its answer was taken"),
        ("Tea.", "its answer was taken"),
    ]
    assert all(p.timeline[-1][1] <= len(p.text) for p in attempts)


async def test_the_third_miss_fails_the_job_at_its_step(natterlog: Shop):
    natterlog.fake.next.extend([BAD, Script(reply="no JSON"), BAD])

    job, log = await natterlog.ended(await natterlog.create(PIPELINE))

    error = job.run.error
    assert error is not None
    assert error.code == "provider_error"
    assert "“plan”" in error.message
    assert states(job) == [("plan", "failed"), ("text", "pending"), ("check", "pending")]
    assert len(log.claims) == len(natterlog.fake.seen) == 3
    assert job.run.usage is not None


# -- models that refuse a part of what they are sent ---------------------------------------


async def test_a_model_that_refuses_pictures_is_told_in_words_and_then_not_asked_again(
    natterlog: Shop,
):
    natterlog.fake.default = Script(reply="Grey.", refuses="llamacpp-image")
    picture = png(4, 4, bytes([0, *range(0, 200, 50)]) * 4)

    first, log = await natterlog.ended(
        await natterlog.document(picture, kind="image", media_type="image/png")
    )
    second, _ = await natterlog.ended(
        await natterlog.document(picture, kind="image", media_type="image/png")
    )

    hidden = "Not shown to the model: 1 picture(s) of the file."
    note = "fake-gpt did not take the file; it was sent what was read from it."
    sources = [claim.prompt.notes for claim in claims_of(log) if claim.prompt]
    assert [seen.status for seen in natterlog.fake.seen] == [500, 200, 200]
    assert isinstance(natterlog.fake.seen[0].body["messages"][-1]["content"], list)
    assert hidden in natterlog.fake.seen[1].message
    assert sources == [[], [hidden, note]]
    for job in (first, second):
        assert (job.run.status, job.text) == ("completed", "Grey.")
        assert job.results[-1].notes == job.notes[-2:] == [hidden, note]


async def test_a_server_that_refuses_the_schema_is_only_told_it_in_the_prompt(natterlog: Shop):
    natterlog.fake.next.extend([Script(refuses="vllm-schema"), GOOD, Script(reply="Tea."), GOOD])

    job, log = await natterlog.ended(await natterlog.create(PIPELINE))

    note = "fake-gpt did not take the schema; only the prompt told it."
    assert job.run.status == "completed"
    assert [seen.status for seen in natterlog.fake.seen] == [400, 200, 200, 200]
    assert ["response_format" in seen.body for seen in natterlog.fake.seen] == [
        True, False, False, False,
    ]  # fmt: skip
    assert all("JSON Schema" in natterlog.fake.seen[at].message for at in (0, 1, 3))
    assert [result.notes for result in job.results] == [[note], [], [note]]
    assert [claim.failures for claim in claims_of(log)] == [0, 0, 0, 0]


async def test_a_file_that_cannot_be_read_fails_the_job_at_its_step(natterlog: Shop):
    made = await natterlog.document(b"no PDF", kind="pdf", media_type="application/pdf")

    job, _ = await natterlog.ended(made)

    assert job.run.status == "failed"
    assert job.run.error is not None
    assert states(job) == [("extract", "failed"), ("answer", "pending")]
    assert natterlog.fake.seen == []


# -- somebody dies -----------------------------------------------------------------------


@short_lease
@pytest.mark.parametrize("at", range(3))
async def test_a_killed_worker_is_resumed_at_its_step(natterlog: Shop, at: int):
    replies = [GOOD, Script(reply="Tea."), GOOD]
    natterlog.fake.next.extend([*replies[:at], SLOW, *replies[at:]])
    made = await natterlog.create(PIPELINE)
    await natterlog.fake.wait_for(
        lambda: len(natterlog.fake.seen) > at and natterlog.fake.seen[at].sent > 2, DEADLINE
    )

    await natterlog.system.one("llm-worker").kill()
    await natterlog.system.start("llm-worker")
    job, log = await natterlog.ended(made)

    assert [result.text for result in job.results] == [r.reply for r in replies]
    todos = [fact_kind(link.subject) for link in log.links if "todo" in link.subject]
    assert len(todos) == len(set(todos)) == 6
    lost = [c.fact.previous for c in log.claims if isinstance(c.fact, RunClaimed)]
    assert len([previous for previous in lost if previous]) == 1


@short_lease
async def test_a_step_between_two_services_waits_for_a_killed_one(natterlog: Shop):
    await natterlog.system.one("processor").kill()
    natterlog.fake.next.extend([GOOD, Script(reply="Tea."), GOOD])
    made = await natterlog.create(PIPELINE)

    await natterlog.system.start("processor")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen, DEADLINE)
    await natterlog.system.one("processor").kill()
    await natterlog.system.start("processor")
    job, _ = await natterlog.ended(made)

    assert job.run.status == "completed"


@short_lease
async def test_a_killed_processor_reads_its_file_again(natterlog: Shop):
    natterlog.fake.default = Script(reply="Numbers.")
    rows = b"".join(b"%d,%d,%d\n" % (n, n * n, n * 7) for n in range(400_000))
    processor = natterlog.system.one("processor")
    claimed = asyncio.Event()
    await natterlog.bus.listen_live(f"live.evt.{natterlog.user}.*.*.claim", lambda _: claimed.set())
    made = await natterlog.document(rows, kind="csv", media_type="text/csv")
    async with asyncio.timeout(DEADLINE):
        await claimed.wait()
    await processor.kill()
    await natterlog.system.start("processor")
    job, log = await natterlog.ended(made)

    assert (job.run.status, job.text) == ("completed", "Numbers.")
    kinds = facts(log)
    assert kinds.count("todo.generate.0.1") == 1
    assert kinds[: kinds.index("todo.generate.0.1")].count("claim") == 2


@short_lease
async def test_a_job_survives_the_death_of_everything(natterlog: Shop):
    natterlog.fake.next.extend([SLOW, GOOD, Script(reply="Tea."), GOOD])
    made = await natterlog.create(PIPELINE)
    await natterlog.fake.wait_for(
        lambda: natterlog.fake.seen and natterlog.fake.seen[0].sent > 2, DEADLINE
    )

    system = natterlog.system
    await asyncio.gather(*(process.kill() for process in system.processes))
    await system.nats.kill()
    await system.nats.start()
    await asyncio.gather(*(system.start(s) for s in ("store", "llm-worker", "processor")))
    job, _ = await natterlog.ended(made)

    assert [result.text for result in job.results] == [
        '{"good": true}',
        "Tea.",
        '{"good": true}',
    ]


@short_lease
async def test_a_schedule_fires_although_everything_was_killed_meanwhile(natterlog: Shop):
    natterlog.fake.next.extend([GOOD, Script(reply="Tea."), GOOD])
    made = await natterlog.create(PIPELINE, due=now() + timedelta(seconds=4))

    system = natterlog.system
    await asyncio.gather(*(process.kill() for process in system.processes))
    await system.nats.kill()
    await system.nats.start()
    await asyncio.gather(*(system.start(s) for s in ("store", "llm-worker", "processor")))
    job, log = await natterlog.ended(made)

    assert job.run.status == "completed"
    assert facts(log)[:2] == ["scheduled", "todo.process.0.0"]


# -- cancelling --------------------------------------------------------------------------


async def test_a_cancel_in_a_step_closes_the_provider_and_keeps_what_there_is(natterlog: Shop):
    natterlog.fake.next.extend([GOOD, SLOW])
    made = await natterlog.create(PIPELINE)
    await natterlog.fake.wait_for(
        lambda: len(natterlog.fake.seen) == 2 and natterlog.fake.seen[1].sent > 2, DEADLINE
    )

    await natterlog.cancel(made)
    job, _ = await natterlog.ended(made)
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[1].closed_at is not None)

    assert (job.run.status, states(job)[1]) == ("cancelled", ("text", "cancelled"))
    assert job.text
    assert [result.text for result in job.results] == ['{"good": true}']


async def test_a_cancel_while_a_file_is_read_ends_the_job(natterlog: Shop):
    rows = b"".join(b"%d,%d,%d\n" % (n, n * n, n * 7) for n in range(800_000))
    claimed = asyncio.Event()
    await natterlog.bus.listen_live(f"live.evt.{natterlog.user}.*.*.claim", lambda _: claimed.set())
    made = await natterlog.document(rows, kind="csv", media_type="text/csv")
    async with asyncio.timeout(DEADLINE):
        await claimed.wait()

    await natterlog.cancel(made)
    job, _ = await natterlog.ended(made)

    assert job.run.status == "cancelled"
    assert natterlog.fake.seen == []
