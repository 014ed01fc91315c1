"""Files of users: who may attach them, what a prompt learns of them, and when they go."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.store.commands import Commands
from services.store.file_queries import get_file
from services.store.job_queries import list_jobs
from shared import ids
from shared.bus import NoAnswer
from shared.commands import (
    ContextFile,
    DeleteSession,
    EditMessage,
    ForkSession,
    GetFile,
    ListJobs,
    Rebuild,
)
from shared.errors import Conflict, NotFound
from shared.events import History, PastMessage
from shared.objects import get, put
from shared.streams import FILES
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work

SECRET = "the-attached-secret"


@pytest.fixture
async def at_work(own_nats_server: NatsServer) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(own_nats_server, own_nats_server.directory) as store:
        yield store


async def delete(at_work: StoreAtWork, session: str) -> None:
    request = DeleteSession(user_id=at_work.user, session_id=session)
    await at_work.store.commands.delete_session(request)


async def is_there(at_work: StoreAtWork, file_id: str) -> bool:
    try:
        request = GetFile(user_id=at_work.user, file_id=file_id)
        await at_work.store.session_log.read(get_file, request)
    except NotFound:
        return False
    return True


async def objects(at_work: StoreAtWork) -> int:
    """How many objects FILES holds."""
    return len(await at_work.bus.read(FILES, "$O.FILES.M.>", after=0))


async def attached(at_work: StoreAtWork, *file_ids: str) -> str:
    """A session with a whole turn that has these files."""
    session = await at_work.create()
    run = (await at_work.send(session, "Look", attachments=list(file_ids))).run
    await at_work.claim(run)
    await at_work.end(run, "Seen")
    return session


async def test_a_message_has_files_of_its_users_own_and_no_others(at_work: StoreAtWork):
    stranger = StoreAtWork(at_work.store)
    mine, theirs = await at_work.file(), await stranger.file()
    session = await at_work.create()

    accepted = await at_work.send(session, attachments=[mine])
    for wrong in (theirs, ids.new_id(), session, "no-id", ""):
        with pytest.raises(NotFound) as refused:
            await at_work.send(session, attachments=[mine, wrong])
        assert refused.value.path == "$.attachments[1]"
        edit = EditMessage(
            user_id=at_work.user,
            message_id=accepted.user_message.id,
            content="x",
            attachments=[wrong],
        )
        with pytest.raises(NotFound):
            await at_work.store.branches.edit(edit)

    assert accepted.user_message.attachments == [mine]
    assert len(await at_work.shown(session)) == 1


async def test_whoever_lists_all_jobs_is_not_told_of_files(at_work: StoreAtWork):
    await at_work.file(read=False)

    request = ListJobs(user_id=at_work.user, mode=None)

    assert (await at_work.store.session_log.read(list_jobs, request)).items == []


async def test_a_prompt_learns_what_was_read_of_its_files(at_work: StoreAtWork):
    read, unread = await at_work.file(), await at_work.file(read=False)
    session = await at_work.create()
    run = (await at_work.send(session, attachments=[read, unread])).run

    (message,) = (await at_work.context(run)).messages

    first, second = message.files
    assert (first.id, first.is_read, first.notes) == (read, True, ["A note."])
    assert first.text is not None
    assert await get(at_work.bus, f"{first.id}/{first.text.id}") == b"words"
    assert second == ContextFile(id=unread, ref=second.ref, is_read=False)


async def test_a_file_that_is_gone_is_counted(at_work: StoreAtWork):
    file_id = await at_work.file()
    session = await at_work.create()
    run = (await at_work.send(session, attachments=[file_id])).run
    await delete(at_work, file_id)

    (message,) = (await at_work.context(run)).messages

    assert (message.files, message.missing_files) == ([], 1)


async def test_a_session_takes_its_files_with_it_and_leaves_no_byte(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    file_id = await at_work.file(f"It says {SECRET}")
    session = await attached(at_work, file_id)
    before = [p for p in own_nats_server.directory.rglob("*") if holds(p, SECRET)]

    await delete(at_work, session)

    assert before
    assert not await is_there(at_work, file_id)
    assert await objects(at_work) == 0
    assert [p for p in own_nats_server.directory.rglob("*") if holds(p, SECRET)] == []


def holds(path: Path, secret: str) -> bool:
    return path.is_file() and secret.encode() in path.read_bytes()


async def test_a_file_that_another_session_uses_stays_until_that_one_goes(at_work: StoreAtWork):
    file_id = await at_work.file()
    first, second = await attached(at_work, file_id), await attached(at_work, file_id)

    await delete(at_work, first)
    after_one = await is_there(at_work, file_id)
    await delete(at_work, second)

    assert after_one
    assert not await is_there(at_work, file_id)


async def test_a_fork_keeps_the_files_that_came_with_it(at_work: StoreAtWork):
    file_id = await at_work.file()
    session = await at_work.create()
    run = (await at_work.send(session, attachments=[file_id])).run
    await at_work.claim(run)
    await at_work.end(run, "Seen")
    fork = ids.new_id()
    await at_work.store.branches.fork(
        ForkSession(
            user_id=at_work.user,
            session_id=session,
            message_id=run.user_message_id or "",
            new_session_id=fork,
        )
    )

    await delete(at_work, session)
    after_one = await is_there(at_work, file_id)
    await delete(at_work, fork)

    assert after_one
    assert not await is_there(at_work, file_id)


async def test_a_stranger_who_names_a_file_does_not_keep_it(at_work: StoreAtWork):
    file_id = await at_work.file()
    session = await attached(at_work, file_id)
    stranger = StoreAtWork(at_work.store)
    name = f"{ids.new_id()}/{ids.new_id()}"
    past = PastMessage(
        id=ids.new_id(),
        parent_id=None,
        role="user",
        content="Mine?",
        created_at=ids.now(),
        attachments=[file_id],
    )
    history = History(messages=[past], leaf=past.id)
    await put(at_work.bus, name, msgspec.json.encode(history))
    theirs = await stranger.create(history_file=name)
    run = (await stranger.send(theirs, "Look")).run

    context = await stranger.context(run)
    await delete(at_work, session)

    assert [(m.files, m.missing_files) for m in context.messages] == [([], 1), ([], 0)]
    assert not await is_there(at_work, file_id)


async def test_what_no_message_has_expires_and_nothing_else(at_work: StoreAtWork):
    unused, used = await at_work.file(), await at_work.file()
    await attached(at_work, used)

    young = await at_work.store.releasing.expire(timedelta(hours=1))
    erased = await at_work.store.releasing.expire(timedelta(0))

    assert (young, erased) == (0, 1)
    assert not await is_there(at_work, unused)
    assert await is_there(at_work, used)
    assert await objects(at_work) == 1


async def test_a_file_takes_no_message_because_it_would_go_with_the_file(at_work: StoreAtWork):
    file_id = await at_work.file()

    with pytest.raises(Conflict):
        await at_work.send(file_id, "Hello")

    assert await at_work.shown(file_id) == []


async def test_letting_go_of_files_is_taken_up_again_after_a_crash(
    own_nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with store_at_work(own_nats_server, tmp_path) as first:
        file_id = await first.file()
        session = await attached(first, file_id)
        user = first.user
        erase = Commands.delete_session

        async def fail(self: Commands, request: DeleteSession) -> Any:
            if request.session_id == file_id:
                raise NoAnswer("the store dies here")
            return await erase(self, request)

        monkeypatch.setattr(Commands, "delete_session", fail)
        with pytest.raises(NoAnswer):
            await delete(first, session)
        first.store.eraser.idle.clear()
    monkeypatch.setattr(Commands, "delete_session", erase)

    async with store_at_work(own_nats_server, tmp_path) as second:
        second.user = user
        async with asyncio.timeout(20):
            await second.store.eraser.idle.wait()
        gone = not await is_there(second, file_id)

    assert gone


async def test_a_file_whose_session_is_deleted_while_it_is_read_is_erased(at_work: StoreAtWork):
    file_id = await at_work.file(read=False)

    await delete(at_work, await attached(at_work, file_id))

    assert not await is_there(at_work, file_id)
    assert await objects(at_work) == 0


async def test_the_tables_are_the_same_after_a_rebuild(at_work: StoreAtWork):
    kept, gone = await at_work.file(), await at_work.file()
    await attached(at_work, kept)
    await delete(at_work, await attached(at_work, gone))
    await at_work.file(read=False)
    before = await at_work.dump()

    await at_work.store.log_requests.rebuild(Rebuild(user_id=at_work.user))

    assert await at_work.dump() == before
