"""Replies that go on, on a real log: who is accepted, and what the tables say by the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from services.store import queries
from shared.commands import (
    Accepted,
    CancelRun,
    ContinueReply,
    CreateSession,
    ForkSession,
    ListMessages,
    Rebuild,
)
from shared.errors import Conflict
from shared.events import Continued, History, PastMessage, Thoughts
from shared.ids import new_id, now
from shared.objects import put
from shared.records import Message, Run
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work

CUT = "Once upon a"
FULL = "Grüße aus Köln"


@pytest.fixture
async def at_work(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path, max_reply=len(FULL.encode())) as store:
        yield store


async def go_on(at_work: StoreAtWork, message_id: str | None, key: str | None = None) -> Accepted:
    request = ContinueReply(user_id=at_work.user, message_id=message_id or "", idempotency_key=key)
    return await at_work.store.continuing.continue_reply(request)


async def message(at_work: StoreAtWork, message_id: str | None) -> Message:
    assert message_id is not None
    read = at_work.store.session_log.read
    return (await read(queries.find_message, at_work.user, message_id)).record()


async def a_cut_reply(at_work: StoreAtWork, text: str = CUT) -> Run:
    return await at_work.reply(await at_work.create(), "A story.", text, stop_reason="max_tokens")


async def test_a_reply_that_is_as_long_as_may_be_does_not_go_on(at_work: StoreAtWork):
    full, shorter = await a_cut_reply(at_work, FULL), await a_cut_reply(at_work, FULL[:-1])

    with pytest.raises(Conflict, match="as long as a reply may be"):
        await go_on(at_work, full.assistant_message_id)

    assert (await go_on(at_work, shorter.assistant_message_id)).run.continues is not None


async def test_of_many_at_once_one_is_accepted(at_work: StoreAtWork):
    reply = await a_cut_reply(at_work)

    answers = await asyncio.gather(
        *(go_on(at_work, reply.assistant_message_id) for _ in range(6)), return_exceptions=True
    )

    accepted = [answer for answer in answers if isinstance(answer, Accepted)]
    assert [answer.run.continues for answer in accepted] == [
        Continued(
            length=len(CUT),
            tokens=5,
            created_at=(await message(at_work, reply.assistant_message_id)).created_at,
        )
    ]
    assert [str(a) for a in answers if not isinstance(a, Accepted)] == [
        "This reply is being written; try again when it is complete."
    ] * 5


async def test_two_stores_accept_one(nats_server: NatsServer, tmp_path: Path):
    async with (
        store_at_work(nats_server, tmp_path / "one") as one,
        store_at_work(nats_server, tmp_path / "other") as other,
    ):
        other.user = one.user
        reply = await a_cut_reply(one)
        await other.store.applied.wait_for(reply.last_seq)

        answers = await asyncio.gather(
            *(go_on(store, reply.assistant_message_id) for store in (one, other)),
            return_exceptions=True,
        )

    assert sorted(type(answer).__name__ for answer in answers) == ["Accepted", "Conflict"]


async def test_one_that_nobody_took_up_is_ended_by_the_store_and_changes_nothing(
    at_work: StoreAtWork,
):
    reply = await a_cut_reply(at_work)
    before = await message(at_work, reply.assistant_message_id)
    run = (await go_on(at_work, reply.assistant_message_id)).run

    await at_work.store.turns.cancel_run(CancelRun(user_id=at_work.user, run_id=run.id))
    ended = await at_work.until(run.id, lambda run: run.ended_at is not None)

    assert (ended.status, ended.attempt, ended.length) == ("cancelled", 0, 0)
    assert await message(at_work, reply.assistant_message_id) == before
    again = (await go_on(at_work, reply.assistant_message_id)).run
    assert again.continues == run.continues


async def test_one_whose_worker_was_lost_keeps_what_it_wrote(at_work: StoreAtWork):
    reply = await a_cut_reply(at_work)
    run = (await go_on(at_work, reply.assistant_message_id)).run
    attempt = await at_work.claim(run)
    await at_work.write(run, attempt, f"{CUT} mid")

    await at_work.store.turns.cancel_run(CancelRun(user_id=at_work.user, run_id=run.id))
    ended = await at_work.until(run.id, lambda run: run.ended_at is not None)

    grown = await message(at_work, reply.assistant_message_id)
    assert (ended.status, ended.length) == ("cancelled", len(f"{CUT} mid"))
    assert (grown.content, grown.status, grown.run_id) == (f"{CUT} mid", "cancelled", run.id)


async def test_a_rebuild_gives_the_same_rows(at_work: StoreAtWork):
    reply = await a_cut_reply(at_work)
    for text, status in ((f"{CUT} m", "completed"), (CUT, "failed"), (f"{CUT} mid", "cancelled")):
        run = (await go_on(at_work, reply.assistant_message_id)).run
        await at_work.claim(run)
        await at_work.end(run, text, status, stop_reason="max_tokens")  # type: ignore[arg-type]
    before = await at_work.dump()

    await at_work.store.log_requests.rebuild(Rebuild(user_id=at_work.user))

    assert await at_work.dump() == before
    grown = await message(at_work, reply.assistant_message_id)
    assert (grown.content, grown.status) == (f"{CUT} mid", "cancelled")


async def test_a_copied_and_an_imported_reply_go_on(at_work: StoreAtWork):
    reply = await a_cut_reply(at_work)
    fork = ForkSession(
        user_id=at_work.user,
        session_id=reply.session_id,
        message_id=reply.assistant_message_id or "",
        new_session_id=new_id(),
    )
    await at_work.store.branches.fork(fork)
    leaf = (await shown(at_work, fork.new_session_id))[-1]
    imported, name = new_id(), f"{new_id()}/{new_id()}"
    question, answer = (
        PastMessage(id=new_id(), parent_id=None, role="user", content="?", created_at=now()),
        PastMessage(
            id=new_id(),
            parent_id=None,
            role="assistant",
            content=CUT,
            created_at=now(),
            stop_reason="max_tokens",
            thoughts=Thoughts(text="Hm."),
        ),
    )
    answer = msgspec.structs.replace(answer, parent_id=question.id)
    history = History(messages=[question, answer], leaf=answer.id)
    await put(at_work.bus, name, msgspec.json.encode(history))
    await at_work.store.commands.create_session(
        CreateSession(user_id=at_work.user, session_id=imported, history_file=name)
    )

    for message_id in (leaf.id, answer.id):
        run = (await go_on(at_work, message_id)).run
        context = await at_work.context(run)
        await at_work.claim(run)
        await at_work.end(run, f"{CUT} mid")

        assert context.messages[-1].content == CUT
        assert (await message(at_work, message_id)).content == f"{CUT} mid"


async def shown(at_work: StoreAtWork, session: str) -> list[Message]:
    request = ListMessages(user_id=at_work.user, session_id=session)
    return (await at_work.store.session_log.read(queries.list_messages, request)).items


async def test_what_was_imported_without_a_question_cannot_go_on(at_work: StoreAtWork):
    session, name = new_id(), f"{new_id()}/{new_id()}"
    alone = PastMessage(
        id=new_id(),
        parent_id=None,
        role="assistant",
        content=CUT,
        created_at=now(),
        stop_reason="max_tokens",
    )
    await put(at_work.bus, name, msgspec.json.encode(History(messages=[alone], leaf=alone.id)))
    await at_work.store.commands.create_session(
        CreateSession(user_id=at_work.user, session_id=session, history_file=name)
    )

    with pytest.raises(Conflict, match="nothing here to go on from"):
        await go_on(at_work, alone.id)
