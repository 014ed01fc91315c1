"""The hot and the cold log: archived, trimmed, lost, replayed."""

import asyncio
import contextlib
import os
import stat
from pathlib import Path

import msgspec
import pytest

from services.store import queries, rebuild
from services.store.applying import apply
from services.store.archive import links
from shared import ids
from shared.bus import Bus
from shared.chain import extend
from shared.commands import GetFacts, GetSession, ListMessages, Rebuild
from shared.errors import NotFound, Unavailable
from shared.events import SessionUpdated
from shared.records import Run
from shared.settings import Settings
from shared.streams import ensure_streams
from shared.subjects import EVENTS, EVERY_FACT, session_address
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


def over(run: Run) -> bool:
    return run.ended_at is not None


async def kinds(at_work: StoreAtWork, session: str, after: int = 0) -> list[str]:
    """What the cold log says happened in a session."""
    request = GetFacts(user_id=at_work.user, session_id=session, after=after)
    facts = (await at_work.store.log_requests.get_facts(request)).facts
    return [fact.subject.split(".", 4)[4] for fact in facts]


async def test_the_archive_holds_every_fact_as_the_log_does(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        sessions = [await at_work.create() for _ in range(10)]
        await asyncio.gather(*map(at_work.reply, sessions))

        hot = await at_work.bus.read(EVENTS, EVERY_FACT)
        cold = [e async for batch in at_work.store.archive.entries(0) for e in batch]

    assert [(e.seq, e.subject, e.data) for e in cold] == [tuple(stored) for stored in hot]
    assert len(cold) == 40


async def test_a_sessions_facts_are_read_from_the_cold_log(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(await at_work.create())
        run = await at_work.reply(session)

        assert await kinds(at_work, session) == [
            "session.created",
            "todo.chat.0",
            "claim",
            "final",
        ]
        assert await kinds(at_work, session, after=run.first_seq) == ["claim", "final"]
        with pytest.raises(NotFound):
            await kinds(StoreAtWork(at_work.store), session)


async def test_a_large_field_is_whole_in_the_cold_log(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        content = "long " * 30_000 + '{"$file": 1}'
        await at_work.reply(session, content, text="x" * 500_000)

        request = GetFacts(user_id=at_work.user, session_id=session, after=0)
        facts = (await at_work.store.log_requests.get_facts(request)).facts

    assert msgspec.json.decode(facts[1].data)["turn"]["content"] == content
    assert msgspec.json.decode(facts[3].data)["text"] == "x" * 500_000


async def test_a_number_that_no_table_can_hold_does_not_stop_the_store(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create(max_tokens=7)
        address = session_address(at_work.user, session)
        too_much = SessionUpdated(at=ids.now(), max_tokens=2**63)
        last = await at_work.bus.head(EVENTS, address.facts)
        assert last is not None
        await extend(at_work.bus, address.fact("session.updated"), too_much, expected=last.seq)

        await at_work.reply(await at_work.create())  # only possible when that was passed by

        request = GetSession(user_id=at_work.user, session_id=session)
        found = await at_work.store.session_log.read(queries.get_session, request)
        assert found.session.max_tokens == 7


async def test_what_people_said_is_readable_for_the_owner_alone(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        await at_work.reply(await at_work.create())

        names = ("log.db", "log.db-wal", "natterlog.db", "natterlog.db-wal")
        modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in names]

    assert modes == [0o600] * len(names)


# -- trimming -----------------------------------------------------------------------------


async def test_a_trim_keeps_the_newest_facts(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path, hot_facts=5) as at_work:
        session = await at_work.create()
        for _ in range(3):
            await at_work.reply(session)

        first = await at_work.store.trim()

        hot = await at_work.bus.read(EVENTS, EVERY_FACT)
        assert [stored.seq for stored in hot] == list(range(first, first + 5))
        assert len(await kinds(at_work, session)) == 10


async def test_a_trim_leaves_unfinished_runs_whole(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path, hot_facts=1) as at_work:
        await at_work.reply(await at_work.create())
        unfinished = (await at_work.send(await at_work.create())).run
        await at_work.reply(await at_work.create())

        assert await at_work.store.trim() == unfinished.first_seq


async def test_a_session_whose_facts_were_trimmed_goes_on(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path, hot_facts=1) as at_work:
        session = await at_work.create()
        await at_work.reply(session, "u1", "a1")
        await at_work.reply(await at_work.create())
        await at_work.store.trim()

        await at_work.reply(session, "u2", "a2")

        assert [text for text, _ in await at_work.shown(session)] == ["u1", "a1", "u2", "a2"]


async def test_a_trim_by_another_store_is_noticed(nats_server: NatsServer, tmp_path: Path):
    async with (
        store_at_work(nats_server, tmp_path / "1", hot_facts=1) as trimming,
        store_at_work(nats_server, tmp_path / "2") as at_work,
    ):
        session = await at_work.create()
        await at_work.reply(session, "u1", "a1")
        await at_work.reply(await at_work.create())
        await trimming.store.applied.wait_for(at_work.store.applied.known)
        await trimming.store.trim()

        await at_work.reply(session, "u2", "a2")

        assert [text for text, _ in await at_work.shown(session)] == ["u1", "a1", "u2", "a2"]


# -- what dies ------------------------------------------------------------------------------


async def test_a_store_goes_on_where_it_stopped(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as before:
        session = await before.create()
        run = (await before.send(session)).run
    async with Bus(nats_server.url, name="worker") as bus:
        before.bus = bus
        # While no store runs, a worker goes on.
        seq = await bus.append(before.address(run).fact("cancel"), _CANCEL, expected=run.last_seq)

    async with store_at_work(nats_server, tmp_path) as after:
        after.user = before.user
        await after.store.applied.wait_for(seq)

        assert (await after.until(run.id, over)).status == "cancelled"


_CANCEL = b'{"type": "cancel", "at": "2026-11-20T12:00:00Z"}'


async def test_what_was_archived_and_not_applied_is_applied_at_the_start(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with store_at_work(nats_server, tmp_path) as before:
        session = await before.create()
        with monkeypatch.context() as crash, contextlib.suppress(Unavailable):
            crash.setattr("services.store.watermark.TIMEOUT", 0.2)
            crash.setattr("services.store.store.apply", _crash)
            await before.send(session, "Hi")

    async with store_at_work(nats_server, tmp_path) as after:
        after.user = before.user

        assert await after.shown(session) == [("Hi", "completed")]


def _crash(*_: object) -> int:
    raise asyncio.CancelledError  # the process is gone between the two transactions


async def test_a_fact_that_cannot_be_decoded_is_kept_and_passed_over(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        stranger = f"evt.{at_work.user}.{ids.new_id()}._.strange"
        kept = [b'{"type": "from.the.future"}', b"\xff\xfe", b""]
        for data in kept:
            await at_work.bus.store(stranger, data)

        await at_work.reply(session)

        cold = [e async for batch in at_work.store.archive.entries(0) for e in batch]
        assert [e.data for e in cold if e.subject == stranger] == kept


async def test_gaps_in_the_log_are_no_obstacle(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.bus.store("sched.a.b.c", b"later")

        await at_work.reply(session)

        assert len(await kinds(at_work, session)) == 4


async def test_a_store_outlives_its_server(own_nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(own_nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(session, "u1", "a1")

        await own_nats_server.kill()
        await own_nats_server.start()
        await at_work.bus.wait_connected()
        await at_work.reply(session, "u2", "a2")

        assert [text for text, _ in await at_work.shown(session)] == ["u1", "a1", "u2", "a2"]


async def test_sequences_never_repeat_after_the_log_was_lost(tmp_path: Path):
    async with NatsServer() as lost, store_at_work(lost, tmp_path) as before:
        session = await before.create()
        await before.reply(session, "u1", "a1")
        unfinished = (await before.send(session, "u2")).run
        waiting = (await before.send(session, "u3")).run
        last = await before.settled()

    async with NatsServer() as new, store_at_work(new, tmp_path) as after:
        after.user = before.user
        # The reply that nobody can write any more fails; what waited goes on.
        failed = await after.until(unfinished.id, over)
        run = await after.until(waiting.id, lambda r: r.last_seq > last)
        await after.claim(run)
        await after.end(run, "a3")
        epoch = await ensure_streams(after.bus)

        assert failed.status == "failed"
        assert failed.last_seq == last + 1
        assert [text for text, _ in await after.shown(session)] == [
            "u1",
            "a1",
            "u2",
            "",
            "u3",
            "a3",
        ]
        assert after.store.archive.epoch == epoch != before.store.archive.epoch


# -- rebuilding -----------------------------------------------------------------------------


async def lively(at_work: StoreAtWork) -> str:
    """Many sessions in which a lot happens; answers one of them."""
    sessions = [await at_work.create(title=f"T{n}") for n in range(5)]
    for session in sessions:
        await at_work.reply(session, "u1", "a1")
        active = (await at_work.send(session, "u2")).run
        waiting = (await at_work.send(session, "u3", idempotency_key=session)).run
        await at_work.claim(active)
        await at_work.end(active, "half", "failed")
        await at_work.until(waiting.id, lambda run: run.last_seq > run.first_seq)
    return sessions[0]


async def test_rebuilt_rows_and_answers_are_the_same(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await lively(at_work)
        endpoints = at_work.store.endpoints()

        async def answers() -> list[bytes]:
            requests = (
                GetSession(user_id=at_work.user, session_id=session),
                ListMessages(user_id=at_work.user, session_id=session),
            )
            return [
                await endpoints[f"cmd.store.{r.name}"](msgspec.json.encode(r)) for r in requests
            ]

        rows, answered = await at_work.dump(), await answers()
        rebuilt = await at_work.store.log_requests.rebuild(Rebuild(user_id=at_work.user))

        assert await at_work.dump() == rows
        assert await answers() == answered
        assert rebuilt.facts == rebuilt.seq == at_work.store.applied.known
        await at_work.reply(await at_work.create())


async def test_a_rebuild_works_on_the_files_alone(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        await lively(at_work)
        rows, facts = await at_work.dump(), at_work.store.applied.known
    (tmp_path / "natterlog.db").unlink()

    code = await asyncio.to_thread(rebuild.main, Settings(data_dir=tmp_path))

    assert code == 0
    assert f"{facts} facts" in capsys.readouterr().out
    async with store_at_work(nats_server, tmp_path) as rebuilt:
        assert await rebuilt.dump() == rows


async def test_a_rebuild_is_asked_of_the_store_that_runs(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        await at_work.bus.serve("store", at_work.store.endpoints())
        await at_work.reply(await at_work.create())

        settings = Settings(data_dir=tmp_path, nats_url=nats_server.url)
        code = await asyncio.to_thread(rebuild.main, settings)

    assert code == 0
    assert "4 facts, up to 4" in capsys.readouterr().out


async def test_readers_see_the_old_rows_until_a_rebuild_is_complete(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(session, "u1", "a1")
        store = at_work.store

        async with store.database.writing() as transaction:
            await transaction.run(rebuild.clear)
            halfway = await at_work.shown(session)
            async for entries in store.archive.entries(0):
                await transaction.run(apply, links(entries), entries[-1].seq)

        assert halfway == await at_work.shown(session) == [("u1", "completed"), ("a1", "completed")]
