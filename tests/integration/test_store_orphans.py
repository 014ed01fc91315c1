"""Files that nobody accepted are erased; what a session, a job or a deletion has is left alone."""

from pathlib import Path

from shared import ids, objects
from shared.bus import Bus
from shared.commands import CreateJob
from shared.streams import FILES
from shared.subjects import NONE
from tests.support.nats_server import NatsServer
from tests.support.plans import a_document
from tests.support.store_at_work import StoreAtWork, store_at_work

ANY_AGE = -60.0
"""Ids run ahead of the clock when many are made."""


async def a_file(bus: Bus, session: str) -> str:
    name = f"{session}/{ids.new_id()}"
    await objects.put(bus, name, b"Hello")
    return name


async def names(bus: Bus) -> set[str]:
    return set(await objects.older(bus, ANY_AGE))


async def a_job(at: StoreAtWork) -> str:
    """A job that was accepted; answers the name of its file."""
    session, plan = ids.new_id(), a_document()
    name = f"{session}/{plan.file.id}"
    await objects.put(at.bus, name, b"Hello")
    request = CreateJob(
        user_id=at.user, session_id=session, run_id=ids.new_id(), plan=plan, mode="document"
    )
    await at.store.jobs.create_job(request)
    return name


async def test_files_without_a_session_or_in_one_without_a_job_are_erased(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at:
        kept = await a_job(at)
        await a_file(at.bus, ids.new_id())
        await a_file(at.bus, await at.create(mode="document"))

        erased = await at.store.orphans.sweep(ANY_AGE)

        assert (erased, await names(at.bus)) == (2, {kept})
        assert await objects.get(at.bus, kept) == b"Hello"


async def test_a_young_file_may_still_be_accepted(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        young = await a_file(at.bus, ids.new_id())

        assert await at.store.orphans.sweep() == 0
        assert await names(at.bus) == {young}


async def test_the_fields_of_facts_are_no_files(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        await at.create(system_prompt="long " * 100_000)
        await objects.put(at.bus, f"{NONE}/{'0' * 64}", b"a preset's")
        before = await names(at.bus)

        assert await at.store.orphans.sweep(ANY_AGE) == 0
        assert (await names(at.bus), len(before)) == (before, 2)


async def test_a_file_is_kept_whose_store_accepted_the_job_just_before_it_died(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path / "first") as first:
        kept = await a_job(first)

    # what the first one had applied, the second one has yet to read
    async with store_at_work(nats_server, tmp_path / "second") as second:
        assert await second.store.orphans.sweep(ANY_AGE) == 0
        assert await names(second.bus) == {kept}


async def test_an_entry_that_nobody_can_read_is_left_alone(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at:
        await at.bus.store("$O.FILES.M.c3RyYW5nZQ==", b'{"nuid": ')
        await a_file(at.bus, ids.new_id())

        assert await at.store.orphans.sweep(ANY_AGE) == 1
        assert await at.bus.head(FILES, "$O.FILES.M.c3RyYW5nZQ==") is not None
