"""Hard delete: no file holds a word of the session any more, whatever happened meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.erase import Eraser
from shared import ids
from shared.bus import WrongSequence
from shared.chain import Overtaken, extend
from shared.commands import ContinueReply, CreateSession, DeleteSession, GetFacts, Rebuild
from shared.errors import Conflict, NotFound
from shared.events import CancelRequested, Delta, Thoughts, Try, encode
from shared.objects import put
from shared.streams import DEAD
from shared.subjects import EVENTS, dead_letters
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, final_of, store_at_work

SECRET = "the-planted-secret"


@pytest.fixture
async def at_work(own_nats_server: NatsServer) -> AsyncIterator[StoreAtWork]:
    """A store whose data directory is its server's, as with ``natterlog up``."""
    async with store_at_work(own_nats_server, own_nats_server.directory) as store:
        yield store


def files_with(secret: str, directory: Path) -> list[str]:
    """The files that hold ``secret``, as UTF-8 or in the JSON of an event."""
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


async def delete(at_work: StoreAtWork, session: str) -> int:
    request = DeleteSession(user_id=at_work.user, session_id=session)
    return (await at_work.store.commands.delete_session(request)).seq


async def written(at_work: StoreAtWork) -> str:
    """A session with a finished turn, a waiting one, and a reply that is being written."""
    session = await at_work.create(title=f"About {SECRET}", system_prompt=SECRET)
    other = await at_work.create(title="Another")
    await at_work.reply(session, f"Tell me {SECRET}", f"It is {SECRET}")
    await at_work.reply(other, "Keep me", "Kept")
    running = (await at_work.send(session, f"Again {SECRET}")).run
    attempt = await at_work.claim(running)
    seq = 0
    for number in range(50):
        delta = encode(Delta(attempt=attempt, offset=number, text=f"{number} {SECRET}"))
        seq = await at_work.bus.append(at_work.address(running).tokens, delta, expected=seq)
    await at_work.send(session, f"Once more {SECRET}" + "x" * 190_000)
    return session


async def test_no_file_holds_a_word_of_a_deleted_session(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    session = await written(at_work)
    before = files_with(SECRET, own_nats_server.directory)

    seq = await delete(at_work, session)

    assert {Path(name).name.split("-")[0] for name in before} >= {"1.blk", "log.db", "natterlog.db"}
    assert files_with(SECRET, own_nats_server.directory) == []
    assert files_with("Kept", own_nats_server.directory) != []
    chain = await at_work.bus.facts_after(EVENTS, f"evt.{at_work.user}.{session}.>", 0)
    assert [stored.seq for stored in chain] == [seq]


async def test_nothing_is_left_of_thoughts_of_tries_and_of_a_reply_that_grew(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    session = await at_work.create()
    failed = Try(ms=5, code="overloaded", message=f"It said {SECRET}")
    thoughts = Thoughts(text=SECRET, blocks=[{"thinking": SECRET * 20_000}])
    run = await at_work.reply(
        session, "Go.", "Once halfword", stop_reason="max_tokens", thoughts=thoughts, tries=[failed]
    )
    request = ContinueReply(user_id=at_work.user, message_id=run.assistant_message_id or "")
    again = (await at_work.store.continuing.continue_reply(request)).run
    await at_work.claim(again)
    await at_work.end(again, "Once halfwords were whole", thoughts=thoughts)
    before = [files_with(text, own_nats_server.directory) for text in (SECRET, "halfword")]

    await delete(at_work, session)

    names = [{Path(name).name.split("-")[0] for name in each} for each in before]
    assert all(each >= {"natterlog.db", "log.db"} for each in names)
    assert files_with(SECRET, own_nats_server.directory) == []
    assert files_with("halfword", own_nats_server.directory) == []


async def test_a_deleted_session_is_not_there(at_work: StoreAtWork):
    session = await written(at_work)
    run = (await at_work.reply(await at_work.create())).id
    facts = GetFacts(user_id=at_work.user, session_id=session, after=0)
    create = CreateSession(user_id=at_work.user, session_id=session)

    await delete(at_work, session)

    with pytest.raises(NotFound):
        await at_work.send(session)
    with pytest.raises(NotFound):
        await delete(at_work, session)
    with pytest.raises(NotFound):
        await at_work.store.log_requests.get_facts(facts)
    with pytest.raises(Conflict):
        await at_work.store.commands.create_session(create)
    assert (await at_work.run(run)).status == "completed"


async def test_a_running_reply_is_ended_for_those_who_read_it(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session)).run
    await at_work.claim(run)
    heard: list[str] = []
    address = at_work.address(run)
    await at_work.bus.listen_live(
        f"live.{address.facts}", lambda message: heard.append(message.subject.split(".")[-1])
    )

    await delete(at_work, session)

    assert heard == ["cancel", "final"]


async def test_a_worker_that_ends_in_time_is_not_overtaken(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session)).run
    attempt = await at_work.claim(run)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def end(seq: int) -> None:
        final = final_of(SECRET, "cancelled", attempt=attempt)
        subject = at_work.address(run).fact("final")
        ended.set_result(await extend(at_work.bus, subject, final, expected=seq))

    tasks: list[asyncio.Task[None]] = []
    await at_work.bus.listen_live(
        f"live.{at_work.address(run).fact('cancel')}",
        lambda message: tasks.append(asyncio.create_task(end(message.sequence))),
    )

    await delete(at_work, session)

    assert await ended
    rows = await at_work.dump()
    assert [row[1:3] for row in rows["api_usage_log"]] == [(at_work.user, None)]


async def test_a_worker_that_goes_on_writing_brings_nothing_back(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    session = await at_work.create()
    run = (await at_work.send(session)).run
    attempt = await at_work.claim(run)
    address = at_work.address(run)
    first = encode(Delta(attempt=attempt, offset=0, text=SECRET))
    token_event = await at_work.bus.append(address.tokens, first, expected=0)

    await delete(at_work, session)

    for fact, expected in (
        (final_of(SECRET, attempt=attempt), attempt),
        (CancelRequested(at=ids.now(), reason=SECRET), attempt),
    ):
        with pytest.raises(Overtaken) as refused:
            await extend(at_work.bus, address.fact("final"), fact, expected=expected)
        assert refused.value.entries == []
    for head in (0, token_event):
        with pytest.raises(WrongSequence):
            await at_work.bus.append(address.tokens, first, expected=head)
    assert files_with(SECRET, own_nats_server.directory) == []


async def test_a_refused_facts_fields_go_too(own_nats_server: NatsServer, at_work: StoreAtWork):
    session = await at_work.create()
    await put(at_work.bus, f"{session}/left-over", SECRET.encode())
    await put(at_work.bus, f"{ids.new_id()}/another", b"Kept in FILES")

    await delete(at_work, session)

    assert files_with(SECRET, own_nats_server.directory) == []
    assert files_with("Kept in FILES", own_nats_server.directory) != []


async def test_a_letter_about_it_goes_too_although_nobody_can_read_it(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    session = await at_work.create()
    await at_work.bus.store(dead_letters("chat"), f'{{"of": "{session}", "{SECRET}'.encode())
    await at_work.bus.store(dead_letters("chat"), b"7")

    await delete(at_work, session)

    left = await at_work.bus.read(DEAD, "dead.>")
    assert [letter.data for letter in left] == [b"7"]
    assert files_with(SECRET, own_nats_server.directory) == []


async def test_a_deletion_that_a_crash_cut_short_is_taken_up_again(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    directory = own_nats_server.directory
    async with store_at_work(own_nats_server, directory) as before:
        session = await written(before)
        monkeypatch.setattr(Eraser, "_erase_token_events", _crash)
        with pytest.raises(asyncio.CancelledError):
            await delete(before, session)
        halfway = files_with(SECRET, directory)
    monkeypatch.undo()

    async with store_at_work(own_nats_server, directory) as after:
        await asyncio.wait_for(after.store.eraser.idle.wait(), 20)

    assert halfway != []
    assert files_with(SECRET, directory) == []


async def _crash(*_: object) -> None:
    raise asyncio.CancelledError


async def test_what_a_deleted_session_cost_survives_a_rebuild(at_work: StoreAtWork):
    session = await at_work.create()
    run = await at_work.reply(session)
    await delete(at_work, session)
    rows = await at_work.dump()

    await at_work.store.log_requests.rebuild(Rebuild(user_id=at_work.user))

    assert await at_work.dump() == rows
    assert [row[:3] for row in rows["api_usage_log"]] == [(run.id, at_work.user, None)]


async def test_facts_that_were_trimmed_before_are_gone_from_the_files_too(
    own_nats_server: NatsServer,
):
    directory = own_nats_server.directory
    async with store_at_work(own_nats_server, directory, hot_facts=2) as at_work:
        session = await at_work.create(title=SECRET)
        await at_work.reply(session, SECRET)
        await at_work.reply(await at_work.create())
        await at_work.store.trim()
        trimmed = await at_work.bus.facts_after(EVENTS, f"evt.{at_work.user}.{session}.>", 0)
        before = [name for name in files_with(SECRET, directory) if "EVENTS" in name]

        await delete(at_work, session)
        await at_work.reply(await at_work.create())

        assert trimmed == []
        assert before != []
        assert files_with(SECRET, directory) == []


async def test_deltas_that_had_expired_before_lie_in_no_block_that_is_written_to(
    own_nats_server: NatsServer, at_work: StoreAtWork
):
    # They cannot be overwritten any more: their bytes go with the block, once all
    # in it is expired.
    session = await at_work.create()
    await at_work.bus.store("tok.a.b.c", b"an older delta")

    await delete(at_work, session)
    await asyncio.wait_for(at_work.store.eraser.idle.wait(), 20)
    await at_work.bus.store("tok.a.b.c", b"a newer delta")

    older = files_with("an older delta", own_nats_server.directory)
    newer = files_with("a newer delta", own_nats_server.directory)
    assert len(older) == len(newer) == 1
    assert older != newer


async def test_many_sessions_are_deleted_at_once(own_nats_server: NatsServer, at_work: StoreAtWork):
    sessions = [await at_work.create(title=f"{n} {SECRET}") for n in range(10)]
    for session in sessions:
        await at_work.send(session, SECRET)

    await asyncio.gather(*(delete(at_work, session) for session in sessions))

    assert files_with(SECRET, own_nats_server.directory) == []
