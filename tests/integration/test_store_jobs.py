"""Jobs in a store on a real nats-server: accepted, scheduled, cancelled, erased."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.store import job_queries, queries
from services.store.schedules import publish
from shared import ids, objects
from shared.chain import extend, read_chain
from shared.commands import (
    CancelRun,
    CreateJob,
    DeleteSession,
    GetJob,
    ListJobs,
    Rebuild,
)
from shared.due import LATEST
from shared.errors import InvalidRequest, NotFound
from shared.events import RunScheduled, TodoGenerate
from shared.objects import ObjectMissing
from shared.records import Job
from shared.subjects import EVENTS, Address, fact_kind
from tests.support.nats_server import NatsServer
from tests.support.plans import a_document, a_pipeline, a_result, an_ask
from tests.support.store_at_work import DEADLINE, StoreAtWork, store_at_work

HOUR = timedelta(hours=1)


def a_job(at: StoreAtWork, **fields: Any) -> CreateJob:
    known = {
        "session_id": ids.new_id(),
        "run_id": ids.new_id(),
        "plan": a_document(),
        "mode": "document",
    }
    return CreateJob(user_id=at.user, **(known | fields))


async def create(at: StoreAtWork, **fields: Any) -> Job:
    return (await at.store.jobs.create_job(a_job(at, **fields))).job


async def called(at: StoreAtWork, reference: str) -> Job:
    """A pipeline's job that its client calls so."""
    return await create(at, client_ref=reference, mode="content", plan=a_pipeline())


async def job(at: StoreAtWork, run: str) -> Job:
    request = GetJob(user_id=at.user, run_id=run)
    return (await at.store.session_log.read(job_queries.get_job, request)).job


async def jobs(at: StoreAtWork, **fields: Any) -> list[str]:
    request = ListJobs(user_id=at.user, **fields)
    page = await at.store.session_log.read(job_queries.list_jobs, request)
    return [item.run.id for item in page.items]


def address_of(at: StoreAtWork, of: Job) -> Address:
    return at.address(of.run)


async def chain(at: StoreAtWork, of: Job) -> list[str]:
    return [fact_kind(link.subject) for link in await read_chain(at.bus, address_of(at, of).facts)]


async def is_scheduled(at: StoreAtWork, of: Job) -> bool:
    return await at.bus.head(EVENTS, address_of(at, of).schedule) is not None


async def until_scheduled(at: StoreAtWork, of: Job) -> None:
    await _until(at, of, there=True)


async def until_unscheduled(at: StoreAtWork, of: Job) -> None:
    await _until(at, of, there=False)


async def _until(at: StoreAtWork, of: Job, *, there: bool) -> None:
    async with asyncio.timeout(DEADLINE):
        while await is_scheduled(at, of) is not there:  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.02)


async def test_a_job_is_accepted_by_its_first_todo(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, priority=7)
        found = await job(at, made.run.id)
        facts = await chain(at, made)

    assert (made.run.status, made.priority, made.client_ref) == ("queued", 7, None)
    assert [(step.name, step.status) for step in made.steps] == [
        ("extract", "pending"),
        ("answer", "pending"),
    ]
    assert found == made
    assert facts == ["todo.process.7.0"]


async def test_the_same_request_twice_is_one_job(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        request = a_job(at)

        one, other = await asyncio.gather(
            at.store.jobs.create_job(request), at.store.jobs.create_job(request)
        )
        facts = await chain(at, one.job)

    assert one.job == other.job
    assert facts == ["todo.process.0.0"]


async def test_a_clients_reference_is_one_job_until_that_has_ended(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        first = await called(at, "job_001")
        same = await called(at, "job_001")
        foreign = await called(StoreAtWork(at.store), "job_001")
        other = await called(at, "job_002")
        await at.claim(first.run)
        await at.end(first.run)
        next_one = await called(at, "job_001")

    assert same == first
    assert first.client_ref == "job_001"
    made = [first, foreign, other, next_one]
    assert len({of.run.id for of in made}) == len({of.run.session_id for of in made}) == 4
    assert {UUID(of.run.session_id).version for of in made} == {7}


async def test_a_request_that_comes_again_after_its_job_has_ended_is_that_job(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        request = a_job(at, client_ref="job_001", mode="content", plan=a_pipeline())
        first = (await at.store.jobs.create_job(request)).job
        await at.claim(first.run)
        await at.end(first.run)

        again = (await at.store.jobs.create_job(request)).job

    assert (again.run.id, again.run.status) == (first.run.id, "completed")


async def test_two_stores_that_accept_one_reference_at_once_accept_one_job(
    nats_server: NatsServer, tmp_path: Path
):
    async with (
        store_at_work(nats_server, tmp_path / "one") as one,
        store_at_work(nats_server, tmp_path / "two") as two,
    ):
        two.user = one.user
        made: list[Job] = []
        for _ in range(20):
            job_one, job_two = await asyncio.gather(called(one, "ref"), called(two, "ref"))
            assert job_one.run.id == job_two.run.id
            assert await chain(one, job_one) == ["todo.process.0.0"]
            made.append(job_one)
            await one.claim(job_one.run)
            await one.end(job_one.run)

        assert len({of.run.id for of in made}) == 20
        assert await jobs(one, mode="content") == [of.run.id for of in reversed(made)]


async def test_a_reference_whose_jobs_were_deleted_begins_another(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made: list[Job] = []
        for _ in range(3):
            made.append(await called(at, "ref"))
            gone = DeleteSession(user_id=at.user, session_id=made[-1].run.session_id)
            await at.store.commands.delete_session(gone)

        last = await called(at, "ref")

    assert len({of.run.session_id for of in [*made, last]}) == 4
    assert last.run.status == "queued"


async def test_a_session_that_was_opened_before_a_crash_gets_its_job(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        session_id = ids.id_after(at.user, at.user, "ref")
        await at.create_as(session_id, mode="content", client_ref="ref")

        made = await called(at, "ref")

    assert (made.run.session_id, made.run.status) == (session_id, "queued")


async def test_jobs_are_listed_newest_first_to_their_user_only(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        old, new = await create(at), await create(at)
        content = await create(at, mode="content", plan=a_pipeline())
        await create(StoreAtWork(at.store))
        await at.claim(old.run)
        await at.end(old.run)
        ended = (await job(at, old.run.id)).run.ended_at
        assert ended is not None

        assert await jobs(at) == [new.run.id, old.run.id]
        assert await jobs(at, mode="content") == [content.run.id]
        assert await jobs(at, status="completed") == [old.run.id]
        assert await jobs(at, ended_after=ended) == [new.run.id]
        assert await jobs(at, before=new.run.id) == [old.run.id]
        with pytest.raises(NotFound):
            await jobs(StoreAtWork(at.store), before=new.run.id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10},
        {"priority": -1},
        {"session_id": "no id"},
        {"run_id": "evt.>"},
        {"plan": a_pipeline("one", "one")},
        {"due": LATEST + timedelta(seconds=1)},
        {"due": datetime(2100, 1, 1)},  # noqa: DTZ001  (that is what is wrong with it)
    ],
    ids=str,
)
async def test_a_job_that_cannot_be_is_refused_and_nothing_is_stored(
    nats_server: NatsServer, tmp_path: Path, wrong: dict[str, Any]
):
    async with store_at_work(nats_server, tmp_path) as at:
        with pytest.raises(InvalidRequest):
            await create(at, **wrong)

        assert await at.bus.facts_after(EVENTS, f"evt.{at.user}.>", 0) == []


# -- jobs for later ---------------------------------------------------------------------


async def test_a_job_for_later_begins_when_it_is_due(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() + timedelta(seconds=3), priority=2)
        await at.until(made.run.id, lambda run: run.status == "queued")
        facts = await chain(at, made)

    assert made.run.status == "scheduled"
    assert facts == ["scheduled", "todo.process.2.0"]


async def test_a_time_in_the_past_means_now(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() - HOUR)

    assert (made.run.status, made.due) == ("queued", None)


async def test_the_latest_time_is_one_that_the_server_keeps(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=LATEST)
        await until_scheduled(at, made)
        soon = await create(at, due=ids.now() + timedelta(seconds=2))
        await at.until(soon.run.id, lambda run: run.status == "queued")

        assert await chain(at, made) == ["scheduled"]


async def test_a_job_for_beyond_the_servers_clock_waits_and_holds_nothing_up(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        address = Address(at.user, await at.create(), ids.new_id())
        fact = RunScheduled(at=ids.now(), plan=a_document(), priority=0, due=LATEST + HOUR)
        seq = await extend(at.bus, address.subject_of(fact), fact, expected=0)
        await at.store.applied.wait_for(seq)

        await at.store.dispatcher.settle(address.session)
        await at.store.trim()
        assert await at.bus.head(EVENTS, address.schedule) is None
        assert (await at.run(address.run)).status == "scheduled"


async def test_a_schedule_fires_after_everything_was_killed(
    own_nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(own_nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() + timedelta(seconds=3))
        await until_scheduled(at, made)
        user = at.user
        await own_nats_server.kill()
    await own_nats_server.start()

    async with store_at_work(own_nats_server, tmp_path) as again:
        at = StoreAtWork(again.store, user)
        await at.until(made.run.id, lambda run: run.status == "queued")
        facts = await chain(at, made)

    assert facts == ["scheduled", "todo.process.0.0"]


async def test_a_schedule_that_was_never_kept_is_published_by_the_next_store(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() + HOUR)
        await until_scheduled(at, made)
        stored = await at.bus.head(EVENTS, address_of(at, made).schedule)
        assert stored is not None
        await at.bus.api(f"STREAM.MSG.DELETE.{EVENTS}", {"seq": stored.seq})
        user = at.user

    async with store_at_work(nats_server, tmp_path) as again:
        await until_scheduled(StoreAtWork(again.store, user), made)


async def test_firing_twice_is_firing_once(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() + timedelta(seconds=3))
        row = await at.store.session_log.read(queries.find_run, at.user, made.run.id)
        await at.until(made.run.id, lambda run: run.status == "queued")
        before = await job(at, made.run.id)
        assert row.plan is not None
        assert row.due is not None

        await publish(at.bus, row, row.plan, row.due)
        await at.until(made.run.id, lambda run: run.last_seq > before.run.last_seq)
        after = await job(at, made.run.id)
        facts = await chain(at, made)

    assert facts == ["scheduled", "todo.process.0.0", "todo.process.0.0"]
    assert (after.steps, after.run.status) == (before.steps, "queued")


async def test_what_is_scheduled_holds_nobodys_words(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        plan = a_document("A secret question.", name="secret.txt")
        made = await create(at, due=ids.now() + HOUR, plan=plan)
        await until_scheduled(at, made)

        stored = await at.bus.head(EVENTS, address_of(at, made).schedule)

    assert stored is not None
    assert b"secret" not in stored.data


async def test_a_trim_keeps_schedules_and_passes_the_jobs_that_wait(
    own_nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(own_nats_server, tmp_path, hot_facts=1) as at:
        made = await create(at, due=ids.now() + timedelta(seconds=4))
        await until_scheduled(at, made)
        for _ in range(3):
            await at.create()

        first = await at.store.trim()
        kept = await is_scheduled(at, made)
        await at.until(made.run.id, lambda run: run.status == "queued")
        after = await job(at, made.run.id)
        facts = await chain(at, made)

    assert first > made.run.first_seq
    assert kept
    assert facts == ["todo.process.0.0"]
    assert after.run.status == "queued"


# -- cancelling -------------------------------------------------------------------------


async def cancel(at: StoreAtWork, of: Job) -> None:
    await at.store.turns.cancel_run(CancelRun(user_id=at.user, run_id=of.run.id))


async def ended(at: StoreAtWork, of: Job) -> Job:
    await at.until(of.run.id, lambda run: run.ended_at is not None)
    return await job(at, of.run.id)


async def test_a_cancelled_job_for_later_ends_and_never_begins(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, due=ids.now() + HOUR)
        await until_scheduled(at, made)

        await cancel(at, made)
        over = await ended(at, made)
        await until_unscheduled(at, made)

        assert await chain(at, made) == ["scheduled", "cancel", "final"]
    assert over.run.status == "cancelled"
    assert [step.status for step in over.steps] == ["cancelled", "pending"]


async def test_a_job_that_nobody_has_begun_is_ended_by_the_store(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at)
        await cancel(at, made)
        over = await ended(at, made)

    assert (over.run.status, over.run.attempt) == ("cancelled", 0)


async def test_a_job_between_two_steps_is_ended_at_once_with_what_it_has(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, plan=a_pipeline("one", "two"), mode="content")
        seq = await at.claim(made.run)
        todo = TodoGenerate(
            at=ids.now(),
            n=1,
            priority=0,
            ask=an_ask("two"),
            plan=made.plan,
            results=[a_result("one", "tea")],
            last=True,
        )
        subject = address_of(at, made).todo_generate(0, 1)
        await at.store.applied.wait_for(await extend(at.bus, subject, todo, expected=seq))

        await cancel(at, made)
        over = await ended(at, made)

    assert [(step.name, step.status) for step in over.steps] == [
        ("one", "completed"),
        ("two", "cancelled"),
    ]
    assert [result.text for result in over.results] == ["tea"]
    assert over.text == ""


async def test_a_job_whose_worker_is_gone_is_ended_with_what_it_had_written(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        made = await create(at, plan=a_pipeline("one"), mode="content")
        attempt = await at.claim(made.run)
        await at.write(made.run, attempt, "half a")

        await cancel(at, made)
        over = await ended(at, made)

    assert (over.run.status, over.text, over.steps[0].status) == (
        "cancelled",
        "half a",
        "cancelled",
    )


# -- erasing and rebuilding ---------------------------------------------------------------


async def test_a_deleted_job_leaves_neither_its_files_nor_its_schedule(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        plan = a_document()
        request = a_job(at, due=ids.now() + HOUR, plan=plan)
        upload = f"{request.session_id}/{plan.file.id}"
        await objects.put(at.bus, upload, b"words" * 1000)
        made = (await at.store.jobs.create_job(request)).job
        await until_scheduled(at, made)

        await at.store.commands.delete_session(
            DeleteSession(user_id=at.user, session_id=request.session_id)
        )

        assert not await is_scheduled(at, made)
        with pytest.raises(ObjectMissing):
            await objects.get(at.bus, upload)
        left = await at.bus.facts_after(EVENTS, f"evt.{at.user}.>", 0)
    assert [fact_kind(fact.subject) for fact in left] == ["session.deleted"]


async def test_jobs_are_rebuilt_byte_for_byte(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        await create(at, due=ids.now() + HOUR)
        waiting = await create(at, plan=a_pipeline("one", "two"), mode="content")
        await at.claim(waiting.run)
        over = await create(at, priority=4)
        await at.claim(over.run)
        await at.end(over.run, "An answer.", results=[a_result("extract", "words")])
        before = await at.dump()

        await at.store.log_requests.rebuild(Rebuild(user_id=at.user))

        assert await at.dump() == before
