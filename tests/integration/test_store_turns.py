"""Turns, from their acceptance to their end, on a real log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from services.store.chains import Chains
from services.store.keys import digest
from services.store.session_log import SessionLog
from shared import ids
from shared.bus import NoAnswer
from shared.commands import (
    CancelRun,
    CreateSession,
    EditMessage,
    GetSession,
    OpenFeed,
    Regenerate,
    SendMessage,
    UpdateSession,
)
from shared.errors import Conflict, InvalidRequest, KeyReused, NotFound, TooLarge
from shared.events import Fault, History, PastMessage
from shared.objects import put
from shared.records import Run
from shared.store_client import StoreClient
from shared.subjects import Address, owns
from tests.support.absent import ABSENT_ID
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


@pytest.fixture
async def at_work(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path) as store:
        yield store


def over(run: Run) -> bool:
    return run.ended_at is not None


def begun(_: Run) -> bool:
    return True


def dispatched(run: Run) -> bool:
    return run.last_seq > run.first_seq


async def test_a_message_is_in_log_and_tables_when_it_is_answered(at_work: StoreAtWork):
    session = await at_work.create()

    accepted = await at_work.send(session, "Hi", client_id="c1")

    run, message = accepted.run, accepted.user_message
    assert (run.status, run.attempt, run.first_seq) == ("queued", 0, accepted.seq)
    assert (message.content, message.status, message.parent_id) == ("Hi", "completed", None)
    assert await at_work.shown(session) == [("Hi", "completed")]
    head = await at_work.bus.head("EVENTS", at_work.address(run).facts)
    assert head is not None
    assert head.seq == accepted.seq


async def test_a_context_must_be_a_message_of_the_users(at_work: StoreAtWork):
    session = await at_work.create()

    with pytest.raises(NotFound):
        await at_work.send(session, "Hi", context=ids.new_id())
    message_id = (await at_work.send(session, "Hi")).user_message.id
    again = await at_work.send(await at_work.create(), "Hi", context=message_id)

    assert await at_work.shown(again.run.session_id) == [("Hi", "completed")]


async def test_the_store_answers_on_the_bus(nats_server: NatsServer, at_work: StoreAtWork):
    await at_work.bus.serve("store-of-test", at_work.store.endpoints())
    client = StoreClient(at_work.bus)
    session = ids.new_id()

    created = await client.ask(CreateSession(user_id=at_work.user, session_id=session, title="T"))
    found = await client.ask(
        GetSession(user_id=at_work.user, session_id=session, min_seq=created.seq)
    )

    assert found.session == created.session
    assert found.session.title == "T"
    with pytest.raises(NotFound):
        await client.ask(GetSession(user_id=ids.new_id(), session_id=session))


async def test_turns_follow_each_other_in_one_branch(at_work: StoreAtWork):
    session = await at_work.create()

    await at_work.reply(session, "u1", "a1")
    await at_work.reply(session, "u2", "a2")

    assert [text for text, _ in await at_work.shown(session)] == ["u1", "a1", "u2", "a2"]


async def test_the_same_session_is_opened_once(at_work: StoreAtWork):
    request = CreateSession(user_id=at_work.user, session_id=ids.new_id(), title="T")

    first, second = await asyncio.gather(
        at_work.store.commands.create_session(request),
        at_work.store.commands.create_session(request),
    )

    assert first.session == second.session


async def test_another_users_session_id_is_taken(at_work: StoreAtWork):
    session = await at_work.create()

    with pytest.raises(Conflict):
        await at_work.store.commands.create_session(
            CreateSession(user_id=ids.new_id(), session_id=session)
        )


async def test_an_id_that_is_none_opens_nothing(at_work: StoreAtWork):
    with pytest.raises(InvalidRequest) as refused:
        await at_work.store.commands.create_session(
            CreateSession(user_id=at_work.user, session_id="a.b")
        )

    assert refused.value.path == "$.session_id"


async def test_an_update_is_answered_with_the_changed_session(at_work: StoreAtWork):
    session = await at_work.create(title="Old", model="demo")

    answer = await at_work.store.commands.update_session(
        UpdateSession(user_id=at_work.user, session_id=session, title="New")
    )

    assert (answer.session.title, answer.session.model) == ("New", "demo")


# -- the same turn once more --------------------------------------------------------


async def test_the_same_key_gives_the_same_turn(at_work: StoreAtWork):
    session = await at_work.create()

    first, second = await asyncio.gather(
        at_work.send(session, idempotency_key="k"), at_work.send(session, idempotency_key="k")
    )
    later = await at_work.send(session, idempotency_key="k")

    assert first.run.id == second.run.id == later.run.id
    assert sorted([first.repeated, second.repeated]) == [False, True]
    assert later.repeated
    assert len(await at_work.shown(session)) == 1


async def test_a_key_with_another_body_is_refused(at_work: StoreAtWork):
    session, other = await at_work.create(), await at_work.create()
    await at_work.send(session, "Hi", idempotency_key="k")

    with pytest.raises(KeyReused):
        await at_work.send(session, "Ho", idempotency_key="k")
    with pytest.raises(KeyReused):
        await at_work.send(other, "Hi", idempotency_key="k")


async def test_a_key_is_its_users_own(at_work: StoreAtWork):
    stranger = StoreAtWork(at_work.store)
    mine = await at_work.send(await at_work.create(), idempotency_key="k")

    theirs = await stranger.send(await stranger.create(), idempotency_key="k")

    assert not theirs.repeated
    assert theirs.run.id != mine.run.id


async def test_the_same_request_twice_begins_one_run_and_is_no_repeat(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Chains, "lock", lambda self, name: asyncio.Lock())
    async with (
        store_at_work(nats_server, tmp_path / "1") as one,
        store_at_work(nats_server, tmp_path / "2") as two,
    ):
        two.user = one.user
        for _ in range(20):
            session, run_id = await one.create(), ids.new_id()
            await two.store.applied.wait_for(one.store.applied.known)

            answers = await asyncio.gather(
                *(store.send(session, run_id=run_id) for store in (one, two) * 2)
            )

            assert {(a.run.id, a.repeated) for a in answers} == {(run_id, False)}
            assert len(await one.shown(session)) == 1


@pytest.mark.parametrize("elsewhere", ["another session", "another user"])
async def test_a_run_id_that_is_taken_begins_nothing(at_work: StoreAtWork, elsewhere: str):
    other = at_work if elsewhere == "another session" else StoreAtWork(at_work.store)
    taken = (await other.send(await other.create())).run.id
    session = await at_work.create()

    with pytest.raises(Conflict):
        await at_work.send(session, run_id=taken)
    with pytest.raises(InvalidRequest) as refused:
        await at_work.send(session, run_id="a.b")

    assert refused.value.path == "$.run_id"
    assert await at_work.shown(session) == []


async def test_of_many_who_send_a_failed_key_again_at_two_stores_one_begins_a_run(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Chains, "lock", lambda self, name: asyncio.Lock())
    busy = Fault(code="provider_unavailable", message="Busy.", retryable=True)
    async with (
        store_at_work(nats_server, tmp_path / "1") as one,
        store_at_work(nats_server, tmp_path / "2") as two,
    ):
        two.user = one.user
        for number in range(20):
            session, key = await one.create(), f"k{number}"
            run = (await one.send(session, idempotency_key=key)).run
            await one.claim(run)
            await two.store.applied.wait_for(await one.end(run, "", "failed", error=busy))

            answers = await asyncio.gather(
                *(store.send(session, idempotency_key=key) for store in (one, two) * 3)
            )

            assert len({a.run.id for a in answers} - {run.id}) == 1
            assert sorted(a.repeated for a in answers) == [False] + [True] * 5
            assert {a.user_message.id for a in answers} == {run.user_message_id}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            SendMessage(
                user_id="u",
                session_id="s",
                content="Hé \u2028 😀",
                temperature=0.7,
                max_tokens=3,
                client_id="c",
                idempotency_key="k",
                run_id="r",
                min_seq=7,
                notes=["a"],
            ),
            "faa108193f76b8ea3a62c3cbab0f3540e191a8289c1b63a51b26a947cceda596",
        ),
        (
            EditMessage(user_id="u", message_id="m", content="x", idempotency_key="k", run_id="r"),
            "158c4efdd039c5dafad4c03999adf4691bb74b28266db1a35a5f6681ece52887",
        ),
        (
            Regenerate(user_id="u", idempotency_key="k", min_seq=3),
            "d0d030ec78944e67fd45ce3dafa3fc771cfcf44e2e43ab9e42e79cddca29ba97",
        ),
    ],
    ids=["send", "edit", "regenerate"],
)
def test_a_request_has_the_digest_that_older_logs_have_of_it(
    request_: SendMessage | EditMessage | Regenerate, expected: str
):
    assert digest(request_) == expected


# -- a busy session -------------------------------------------------------------------


async def test_a_queued_message_goes_when_the_reply_before_it_has_ended(at_work: StoreAtWork):
    session = await at_work.create()
    first = (await at_work.send(session, "u1")).run
    waiting = await at_work.send(session, "u2")
    while_busy = await at_work.shown(session)
    await at_work.claim(first)
    await at_work.end(first, "a1")

    run = await at_work.until(waiting.run.id, dispatched)
    await at_work.claim(run)
    await at_work.end(run, "a2")

    assert while_busy == [("u1", "completed"), ("u2", "waiting")]
    assert [text for text, _ in await at_work.shown(session)] == ["u1", "a1", "u2", "a2"]


async def test_queued_messages_go_in_the_order_of_their_acceptance(at_work: StoreAtWork):
    session = await at_work.create()
    runs = [(await at_work.send(session, f"u{n}")).run for n in range(4)]

    for number, run in enumerate(runs):
        ready = await at_work.until(run.id, dispatched if number else begun)
        await at_work.claim(ready)
        await at_work.end(ready, f"a{number}")

    wanted = [text for n in range(4) for text in (f"u{n}", f"a{n}")]
    assert [text for text, _ in await at_work.shown(session)] == wanted


async def test_a_busy_session_rejects_if_it_is_told_to(at_work: StoreAtWork):
    session = await at_work.create(on_busy="reject")
    await at_work.send(session)

    with pytest.raises(Conflict):
        await at_work.send(session)


async def test_a_message_that_interrupts_cancels_all_before_it(at_work: StoreAtWork):
    session = await at_work.create(on_busy="queue")
    active, waiting = [(await at_work.send(session, f"u{n}")).run for n in range(2)]
    await at_work.store.commands.update_session(
        UpdateSession(user_id=at_work.user, session_id=session, on_busy="interrupt")
    )

    last = await at_work.send(session, "u3")
    run = await at_work.until(last.run.id, dispatched)

    ended = [(await at_work.run(r.id)).status for r in (active, waiting)]
    assert ended == ["cancelled", "cancelled"]
    assert run.status == "queued"
    assert await at_work.shown(session) == [
        ("u0", "completed"),
        ("", "cancelled"),
        ("u3", "completed"),
    ]


async def test_a_message_interrupts_although_the_store_died_before_it_did(
    at_work: StoreAtWork, monkeypatch: pytest.MonkeyPatch
):
    session, run_id = await at_work.create(on_busy="interrupt"), ids.new_id()
    active = (await at_work.send(session, "u1")).run

    async def dies(self: SessionLog, address: Address, reason: str) -> None:
        raise NoAnswer(reason)

    with monkeypatch.context() as dying:
        dying.setattr(SessionLog, "cancel", dies)
        with pytest.raises(NoAnswer):
            await at_work.send(session, "u2", run_id=run_id)

    again = await at_work.send(session, "u2", run_id=run_id)
    run = await at_work.until(run_id, dispatched)

    assert (again.repeated, run.status) == (False, "queued")
    assert (await at_work.run(active.id)).status == "cancelled"


async def test_of_many_sends_at_once_one_store_or_two_start_exactly_one_run(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Chains, "lock", lambda self, name: asyncio.Lock())
    async with (
        store_at_work(nats_server, tmp_path / "1") as one,
        store_at_work(nats_server, tmp_path / "2") as two,
    ):
        two.user = one.user
        for _ in range(100):
            session = await one.create(on_busy="reject")
            await two.store.applied.wait_for(one.store.applied.known)

            answers = await asyncio.gather(
                *(store.send(session) for store in (one, two) * 3), return_exceptions=True
            )

            refused = [a for a in answers if isinstance(a, Conflict)]
            assert len(refused) == 5, answers
            assert len(await one.shown(session)) == 1


async def test_all_of_many_queued_sends_at_once_are_kept(at_work: StoreAtWork):
    session = await at_work.create()

    answers = await asyncio.gather(*(at_work.send(session, f"u{n}") for n in range(30)))

    waiting = [a for a in answers if a.user_message.status == "waiting"]
    assert len(waiting) == 29
    assert sorted(text for text, _ in await at_work.shown(session)) == sorted(
        f"u{n}" for n in range(30)
    )


# -- what is refused --------------------------------------------------------------------


async def test_an_inactive_session_takes_no_message_until_it_is_active_again(
    at_work: StoreAtWork,
):
    session = await at_work.create()
    change = at_work.store.commands.update_session
    await change(UpdateSession(user_id=at_work.user, session_id=session, status="inactive"))

    with pytest.raises(Conflict):
        await at_work.send(session)

    await change(UpdateSession(user_id=at_work.user, session_id=session, status="active"))
    assert (await at_work.send(session)).run.status == "queued"


async def test_a_message_over_the_limit_is_refused(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path, max_message=5) as at_work:
        session = await at_work.create()

        with pytest.raises(TooLarge):
            await at_work.send(session, "123456")

        assert await at_work.shown(session) == []


async def test_a_large_message_is_kept_whole(at_work: StoreAtWork):
    session = await at_work.create()
    content = "ä" * 190_000

    accepted = await at_work.send(session, content)

    assert accepted.user_message.content == content
    (fact,) = await at_work.bus.facts_after("EVENTS", at_work.address(accepted.run).facts, 0)
    assert len(fact.data) < 1000


@pytest.mark.parametrize("session", [ABSENT_ID, "nonsense", "a.b", "*", ""])
async def test_a_session_that_is_not_there_takes_no_message(at_work: StoreAtWork, session: str):
    with pytest.raises(NotFound):
        await at_work.send(session)


async def test_what_is_another_users_cannot_be_changed(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session)).run
    stranger = StoreAtWork(at_work.store)
    turns = at_work.store.turns

    with pytest.raises(NotFound):
        await stranger.send(session)
    with pytest.raises(NotFound):
        await turns.cancel_run(CancelRun(user_id=stranger.user, run_id=run.id))
    with pytest.raises(NotFound):
        await at_work.store.commands.update_session(
            UpdateSession(user_id=stranger.user, session_id=session, title="Mine")
        )
    with pytest.raises(NotFound):
        await turns.regenerate(Regenerate(user_id=stranger.user, session_id=session))


# -- regenerating ---------------------------------------------------------------------------


async def test_a_reply_is_written_anew_beside_the_old_one(at_work: StoreAtWork):
    session = await at_work.create()
    old = await at_work.reply(session, "u1", "a1")
    await at_work.reply(session, "u2", "a2")

    again = await at_work.store.turns.regenerate(
        Regenerate(user_id=at_work.user, message_id=old.assistant_message_id)
    )
    await at_work.claim(again.run)
    await at_work.end(again.run, "a1'")

    assert again.user_message.id == old.user_message_id
    assert await at_work.shown(session) == [("u1", "completed"), ("a1'", "completed")]


async def test_the_last_reply_is_meant_when_no_message_is_named(at_work: StoreAtWork):
    session = await at_work.create()
    await at_work.reply(session, "u1", "a1")

    again = await at_work.store.turns.regenerate(
        Regenerate(user_id=at_work.user, session_id=session, idempotency_key="r")
    )
    once_more = await at_work.store.turns.regenerate(
        Regenerate(user_id=at_work.user, session_id=session, idempotency_key="r")
    )

    assert again.user_message.content == "u1"
    assert (once_more.run.id, once_more.repeated) == (again.run.id, True)


async def test_a_regenerate_waits_its_turn(at_work: StoreAtWork):
    session = await at_work.create()
    active = (await at_work.send(session, "u1")).run

    again = await at_work.store.turns.regenerate(
        Regenerate(user_id=at_work.user, session_id=session)
    )
    await at_work.claim(active)
    await at_work.end(active, "a1")
    run = await at_work.until(again.run.id, dispatched)
    await at_work.claim(run)
    await at_work.end(run, "a1'")

    assert await at_work.shown(session) == [("u1", "completed"), ("a1'", "completed")]


async def test_there_must_be_a_message_to_answer_anew(at_work: StoreAtWork):
    session = await at_work.create()

    with pytest.raises(Conflict):
        await at_work.store.turns.regenerate(Regenerate(user_id=at_work.user, session_id=session))


# -- cancelling -------------------------------------------------------------------------------


async def cancel(at_work: StoreAtWork, run: str) -> str:
    answer = await at_work.store.turns.cancel_run(CancelRun(user_id=at_work.user, run_id=run))
    return answer.run.status


async def test_a_waiting_run_is_cancelled_and_was_never_sent(at_work: StoreAtWork):
    session = await at_work.create()
    await at_work.send(session, "u1")
    waiting = (await at_work.send(session, "u2")).run

    await cancel(at_work, waiting.id)
    run = await at_work.until(waiting.id, over)

    assert (run.status, run.attempt, run.length) == ("cancelled", 0, 0)
    assert await at_work.shown(session) == [("u1", "completed")]


async def test_a_run_that_nobody_claimed_yet_is_ended_by_the_store(at_work: StoreAtWork):
    session = await at_work.create()
    queued = (await at_work.send(session, "u1")).run

    await cancel(at_work, queued.id)
    run = await at_work.until(queued.id, over)

    assert (run.status, run.attempt) == ("cancelled", 0)
    assert await at_work.shown(session) == [("u1", "completed"), ("", "cancelled")]


async def test_a_run_whose_worker_is_gone_is_ended_with_what_it_wrote(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session, "u1")).run
    attempt = await at_work.claim(run, worker="gone")
    await at_work.write(run, attempt, "So f")

    await cancel(at_work, run.id)
    ended = await at_work.until(run.id, over)

    assert (ended.status, ended.attempt, ended.length) == ("cancelled", attempt, 4)
    assert await at_work.shown(session) == [("u1", "completed"), ("So f", "cancelled")]


async def test_a_run_that_its_worker_holds_is_left_to_it(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session, "u1")).run
    worker = ids.new_id()
    requested = asyncio.Event()

    def answer(message: object) -> None:
        at_work.bus.post(message.reply, b"1")  # type: ignore[attr-defined]
        requested.set()

    await at_work.bus.listen(owns(worker), answer)
    await at_work.claim(run, worker=worker)

    await cancel(at_work, run.id)
    await asyncio.wait_for(requested.wait(), 10)
    held = await at_work.run(run.id)
    await at_work.end(run, "Its own end", "cancelled")

    assert (held.status, held.cancelled) == ("running", True)
    assert (await at_work.shown(session))[-1] == ("Its own end", "cancelled")


async def test_cancelling_twice_or_too_late_changes_nothing(at_work: StoreAtWork):
    session = await at_work.create()
    done = await at_work.reply(session)
    run = (await at_work.send(session)).run
    await at_work.claim(run)
    await cancel(at_work, run.id)
    once = await at_work.run(run.id)

    assert await cancel(at_work, run.id) == "running"
    assert (await at_work.run(run.id)).last_seq == once.last_seq
    assert await cancel(at_work, done.id) == "completed"
    assert await at_work.run(done.id) == done


async def test_a_cancel_that_another_store_appended_is_carried_out(at_work: StoreAtWork):
    session = await at_work.create()
    run = (await at_work.send(session)).run

    await at_work.cancel_unseen(run)

    assert (await at_work.until(run.id, over)).status == "cancelled"


async def test_a_feed_shows_what_is_running_and_what_waits(at_work: StoreAtWork):
    session = await at_work.create()
    active = (await at_work.send(session, "u1")).run
    attempt = await at_work.claim(active)
    waiting = (await at_work.send(session, "u2")).run

    request = OpenFeed(user_id=at_work.user, session_id=session)
    feed = await at_work.store.turns.open_feed(request)

    assert [(r.run_id, r.attempt, r.waiting) for r in feed.unfinished] == [
        (active.id, attempt, False),
        (waiting.id, 0, True),
    ]
    assert feed.seq == at_work.store.applied.known


async def test_what_the_turn_asks_for_is_in_its_context(at_work: StoreAtWork):
    session = await at_work.create(system_prompt="Be kind.")
    accepted = await at_work.store.turns.send_message(
        SendMessage(user_id=at_work.user, session_id=session, content="Hi", model="demo")
    )

    context = await at_work.context(accepted.run)

    assert [m.content for m in context.messages] == ["Hi"]
    assert (context.system_prompt, context.model) == ("Be kind.", "demo")


async def test_a_session_that_brings_a_conversation_is_waited_for_longer(
    at_work: StoreAtWork, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.store.watermark.TIMEOUT", 0.0)
    message = ids.new_id()
    past = PastMessage(
        id=message, parent_id=None, role="user", content="Long ago", created_at=ids.now()
    )
    name = f"{ids.new_id()}/{ids.new_id()}"
    await put(at_work.bus, name, msgspec.json.encode(History(messages=[past], leaf=message)))

    session = await at_work.create(history_file=name)

    assert await at_work.shown(session) == [("Long ago", "completed")]
