"""Dead letters: told with their reason, put back as work of their own, once."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.recorder.dead_letters import StoredLetter, case_of, dead_letters, put_back
from shared import objects
from shared.commands import ContinueReply, CreateJob, DeleteSession
from shared.consumer import DeadLetter, Delivery, Handler, Rejected
from shared.errors import Conflict, NotFound
from shared.events import DocumentPlan, FileRef
from shared.ids import new_id
from shared.inspection import FindRuns
from shared.pulling import Consumer
from shared.records import Run
from shared.subjects import CHAT_TODOS, Address, Scope, process_todos
from tests.support.nats_server import NatsServer
from tests.support.recorder import log_of, run, served_store
from tests.support.store_at_work import StoreAtWork


@pytest.fixture
async def at_work(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with served_store(nats_server, tmp_path) as at_work:
        yield at_work


async def refuse(_: Delivery) -> None:
    raise Rejected("it is not what it should be")


@asynccontextmanager
async def worker(at_work: StoreAtWork, handler: Handler = refuse) -> AsyncIterator[None]:
    filters = [CHAT_TODOS, process_todos(5)]
    async with Consumer(at_work.bus, "chat", filters, handler, slots=4):
        yield


async def dead_letter(
    at_work: StoreAtWork, session: str, content: str = "Hi"
) -> tuple[Run, StoredLetter]:
    """A reply that nobody could write, and the letter about it."""
    run = (await at_work.send(session, content)).run
    async with worker(at_work):
        await at_work.until(run.id, lambda r: r.ended_at is not None)
    return await at_work.run(run.id), await last_letter(at_work)


async def last_letter(at_work: StoreAtWork) -> StoredLetter:
    return [letter async for letter in dead_letters(at_work.bus)][-1]


async def test_a_letter_says_who_gave_up_on_what_and_why(
    at_work: StoreAtWork, capsys: pytest.CaptureFixture[str]
):
    failed, letter = await dead_letter(at_work, await at_work.create())

    log = log_of(at_work)
    capsys.readouterr()  # what the consumer logged
    assert await run(log, "dead", "show", str(letter.number), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert await run(log, "dead", "ls") == 0
    listed = capsys.readouterr().out.splitlines()

    assert failed.status == "failed"
    assert shown == {
        "number": 1,
        "consumer": "chat",
        "seq": failed.first_seq,
        "subject": at_work.address(failed).todo_chat(0),
        "reason": "it is not what it should be",
        "at": shown["at"],
        "kind": "rejected",
        "deliveries": 1,
        "errors": 0,
        "run_id": failed.id,
        "state": "failed",
        "obstacle": None,
    }
    assert [line.split()[0] for line in listed] == ["NO", "1"]
    assert max(map(len, listed)) <= 80


async def test_a_reply_is_put_back_as_a_new_run_and_its_letter_is_gone(
    at_work: StoreAtWork, capsys: pytest.CaptureFixture[str]
):
    session = await at_work.create()
    failed, letter = await dead_letter(at_work, session, "Answer me")

    assert await run(log_of(at_work), "dead", "retry", str(letter.number)) == 0
    anew = capsys.readouterr().out.split()[-1]
    again = await at_work.run(anew)
    await at_work.claim(again)
    await at_work.end(again, "Here you are.")

    assert (await at_work.run(failed.id)).status == "failed"
    assert await at_work.shown(session) == [
        ("Answer me", "completed"),
        ("Here you are.", "completed"),
    ]
    assert [each async for each in dead_letters(at_work.bus)] == []
    assert await run(log_of(at_work), "dead", "retry", str(letter.number)) == 1
    assert "There is no dead letter 1" in capsys.readouterr().err


async def test_putting_it_back_twice_is_putting_it_back_once(at_work: StoreAtWork):
    session = await at_work.create()
    _, letter = await dead_letter(at_work, session)
    log = log_of(at_work)

    runs = {await put_back(log, at_work.bus, letter) for _ in range(3)}

    assert len(runs) == 1
    assert len(await log.runs(FindRuns(session=session))) == 2


async def test_a_conversation_that_went_on_is_left_alone_unless_told_otherwise(
    at_work: StoreAtWork, capsys: pytest.CaptureFixture[str]
):
    session = await at_work.create()
    _, letter = await dead_letter(at_work, session, "one")
    await at_work.reply(session, "two", "second")
    log = log_of(at_work)

    assert await run(log, "dead", "retry", str(letter.number)) == 1
    assert "The conversation went on since" in capsys.readouterr().err
    assert [text for text, _ in await at_work.shown(session)] == ["one", "", "two", "second"]
    assert await run(log, "dead", "retry", str(letter.number), "--anyway") == 0
    assert [text for text, _ in await at_work.shown(session)] == ["one"]


async def test_what_nobody_waits_for_is_not_put_back(at_work: StoreAtWork):
    session = await at_work.create()
    _, letter = await dead_letter(at_work, session)
    open_run = (await at_work.send(session, "open")).run
    other = letter._replace(letter=_about(letter, subject=at_work.address(open_run).todo_chat(0)))
    log = log_of(at_work)

    unfinished = await case_of(log, other)
    await at_work.claim(open_run)
    await at_work.end(open_run, "Done after all.")
    done = await case_of(log, other)
    before = [each.number async for each in dead_letters(at_work.bus)]
    await at_work.store.commands.delete_session(
        DeleteSession(user_id=at_work.user, session_id=session)
    )
    gone = await case_of(log, letter)
    left = [each.number async for each in dead_letters(at_work.bus)]

    assert (unfinished.state, unfinished.obstacle) == (
        "unfinished",
        "its run is not over: it is delivered again by itself",
    )
    assert (done.state, done.obstacle) == (
        "completed",
        "its run ended otherwise (completed): nobody waits for it",
    )
    assert (gone.state, gone.obstacle) == (
        "gone",
        "its session was deleted; the letter can only be dropped",
    )
    assert (before, left) == ([1], [])
    with pytest.raises(Conflict, match="cannot be put back"):
        await put_back(log, at_work.bus, letter)


def _about(letter: StoredLetter, **changes: Any) -> DeadLetter:
    return msgspec.structs.replace(letter.letter, **changes)


async def test_a_job_is_put_back_with_its_file(at_work: StoreAtWork):
    session, run_id = new_id(), new_id()
    file = FileRef(
        id=new_id(), name="a.txt", kind="text", media_type="text/plain", size=3, sha256="0" * 64
    )
    await objects.put(at_work.bus, f"{session}/{file.id}", b"abc")
    plan = DocumentPlan(file=file, prompt="What is it?")
    request = CreateJob(
        user_id=at_work.user,
        session_id=session,
        run_id=run_id,
        plan=plan,
        mode="document",
        priority=5,
    )
    await at_work.store.jobs.create_job(request)
    async with worker(at_work):
        await at_work.until(run_id, lambda r: r.ended_at is not None)
    letter, log = await last_letter(at_work), log_of(at_work)

    runs = {await put_back(log, at_work.bus, letter) for _ in range(2)}

    [anew] = runs
    again = await at_work.run(anew)
    assert (again.status, again.session_id != session) == ("queued", True)
    assert await objects.get(at_work.bus, f"{again.session_id}/{file.id}") == b"abc"
    found = await log.run(anew)
    assert (found.kind, found.user_id) == ("document", at_work.user)


async def test_what_cannot_be_read_cannot_be_put_back_yet(at_work: StoreAtWork):
    session = await at_work.create()
    address = Address(at_work.user, session, new_id())
    last = at_work.store.applied.known
    seq = await at_work.bus.append(
        address.todo_chat(0), b'{"type":"from.the.future"}', expected=last, scope=Scope.SESSION
    )
    async with worker(at_work):
        await at_work.store.applied.wait_for(seq + 1)
    letter = await last_letter(at_work)

    assert letter.letter.kind == "undecodable"
    with pytest.raises(Conflict, match="this version cannot read what was to be done either"):
        await put_back(log_of(at_work), at_work.bus, letter)
    assert await last_letter(at_work) == letter


async def test_letters_may_be_dropped(at_work: StoreAtWork):
    session = await at_work.create()
    for _ in range(2):
        await dead_letter(at_work, session)
    log = log_of(at_work)

    assert await run(log, "dead", "drop", "1") == 0
    assert [letter.number async for letter in dead_letters(at_work.bus)] == [2]
    with pytest.raises(NotFound):
        await run(log, "dead", "drop", "1")


async def test_a_continuation_is_put_back_as_one(at_work: StoreAtWork):
    session = await at_work.create()
    reply = await at_work.reply(session, "A story.", "Once upon a", stop_reason="max_tokens")
    request = ContinueReply(user_id=at_work.user, message_id=reply.assistant_message_id or "")
    going = (await at_work.store.continuing.continue_reply(request)).run
    async with worker(at_work):
        await at_work.until(going.id, lambda r: r.ended_at is not None)
    before = await at_work.shown(session)

    anew = await put_back(log_of(at_work), at_work.bus, await last_letter(at_work))
    again = await at_work.run(anew)
    await at_work.claim(again)
    await at_work.end(again, "Once upon a midnight")

    assert (before[-1], again.continues) == (("Once upon a", "completed"), going.continues)
    assert await at_work.shown(session) == [
        ("A story.", "completed"),
        ("Once upon a midnight", "completed"),
    ]
