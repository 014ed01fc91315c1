"""A session as it was, and the tables held against the log."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from services.store import check, queries
from services.store.check import Difference
from services.store.history import KEPT
from shared.commands import DeleteSession, GetSession, ListMessages, UpdateSession
from shared.errors import NotFound
from shared.settings import Settings
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


async def both_answers(at_work: StoreAtWork, session: str, at: int | None = None) -> list[Any]:
    """The session and its messages, now or then."""
    one = GetSession(user_id=at_work.user, session_id=session)
    page = ListMessages(user_id=at_work.user, session_id=session, limit=1000)
    store = at_work.store
    if at is None:
        return [
            await store.database.read(queries.get_session, one),
            await store.database.read(queries.list_messages, page),
        ]
    return [
        await store.history.as_of(one, at, queries.get_session),
        await store.history.as_of(page, at, queries.list_messages),
    ]


async def test_then_answers_as_it_answered_then(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        seen: dict[int, list[Any]] = {}

        async def look() -> None:
            at = await at_work.settled()
            seen[at] = await both_answers(at_work, session)

        session = await at_work.create(title="Tea")
        await look()
        run = (await at_work.send(session, "one")).run
        await look()
        await at_work.send(session, "waits")
        await look()
        await at_work.reply(await at_work.create())  # of no concern to this session
        await look()
        await at_work.claim(run)
        await look()
        await at_work.end(run, "first")
        await at_work.until((await at_work.run(run.id)).id, lambda r: r.ended_at is not None)
        renamed = UpdateSession(user_id=at_work.user, session_id=session, title="Coffee")
        await at_work.store.commands.update_session(renamed)
        await look()

        then = {seq: await both_answers(at_work, session, seq) for seq in seen}

        assert then == seen
        assert len(then) == 6


async def test_what_was_is_answered_in_whatever_order_it_is_asked_for(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        sessions = [await at_work.create() for _ in range(KEPT + 2)]
        seen: dict[tuple[int, str], list[Any]] = {}
        for number in range(3):
            for session in sessions:
                await at_work.reply(session, f"u{number}", f"a{number}")
                at = await at_work.settled()
                seen[at, session] = await both_answers(at_work, session)
        order = [*seen, *reversed(seen), *sorted(seen, key=lambda it: it[1])]

        one_after_another = [await both_answers(at_work, s, at) for at, s in order]
        at_once = await asyncio.gather(*(both_answers(at_work, s, at) for at, s in order))

        assert one_after_another == at_once == [seen[it] for it in order]


async def test_pages_of_what_was_are_as_of_one_moment(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        for number in range(3):
            await at_work.reply(session, f"u{number}", f"a{number}")
        at = await at_work.settled()
        found: list[str] = []

        for offset in (0, 2, 4):
            page = ListMessages(
                user_id=at_work.user, session_id=session, limit=2, offset=offset, at=at
            )
            answer = await at_work.store.history.as_of(page, at, queries.list_messages)
            found += [message.content for message in answer.items]
            assert (answer.total, answer.seq) == (6, at)
            await at_work.reply(session, "later", "still later")

        assert found == ["u0", "a0", "u1", "a1", "u2", "a2"]


async def test_what_was_not_there_yet_or_is_yet_to_come_is_refused(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        await at_work.create()
        first = await at_work.settled()
        session = await at_work.create()

        with pytest.raises(NotFound):
            await both_answers(at_work, session, first)
        with pytest.raises(NotFound, match="does not go that far yet"):
            await both_answers(at_work, session, first + 2)
        with pytest.raises(NotFound):
            await both_answers(StoreAtWork(at_work.store), session, first + 1)


async def test_a_deleted_session_has_no_past(nats_server: NatsServer, tmp_path: Path):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(session)
        then = await at_work.settled()
        await at_work.reply(session)
        await both_answers(at_work, session, then)
        await at_work.store.commands.delete_session(
            DeleteSession(user_id=at_work.user, session_id=session)
        )

        with pytest.raises(NotFound):
            await both_answers(at_work, session, then)
        assert not at_work.store.history._pasts  # pyright: ignore[reportPrivateUsage]


# -- the tables against the log -----------------------------------------------------------


async def test_tables_that_are_as_the_log_says_have_no_differences(
    nats_server: NatsServer, tmp_path: Path
):
    settings = Settings(data_dir=tmp_path)
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        for _ in range(3):
            await at_work.reply(session)
        gone = await at_work.create()
        await at_work.reply(gone)
        await at_work.store.commands.delete_session(
            DeleteSession(user_id=at_work.user, session_id=gone)
        )
        before = written_at(tmp_path)

        while_it_runs = check.check(settings)

        after = written_at(tmp_path)
    when_it_is_over = check.check(settings)

    assert while_it_runs == when_it_is_over
    assert while_it_runs.differences == []
    assert while_it_runs.seq >= 14
    assert before == after


def written_at(data_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in data_dir.glob("*.db")}


async def test_every_difference_is_named(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with store_at_work(nats_server, tmp_path) as at_work:
        session = await at_work.create(title="Tea")
        run = await at_work.reply(session)
        run = await at_work.run(run.id)
    with sqlite3.connect(tmp_path / "natterlog.db") as changed:
        changed.execute("UPDATE ai_chat_sessions SET title = 'Coffee', depth = 7")
        changed.execute("DELETE FROM api_usage_log")
        changed.execute(
            "INSERT INTO ai_chat_messages (id, session_id, user_id, role, content, created_at, "
            "depth, status, attachments, seq) SELECT 'made up', session_id, user_id, role, "
            "content, created_at, depth, status, attachments, seq FROM ai_chat_messages LIMIT 1"
        )
    changed.close()

    found = check.check(Settings(data_dir=tmp_path)).differences
    code = check.main(Settings(data_dir=tmp_path))

    assert {(d.table, d.key, d.column) for d in found} == {
        ("ai_chat_sessions", session, "title"),
        ("ai_chat_sessions", session, "depth"),
        ("api_usage_log", run.id, None),
        ("ai_chat_messages", "made up", None),
    }
    assert Difference("ai_chat_sessions", session, "title", "Coffee", "Tea") in found
    assert code == 1
    output = capsys.readouterr().out
    assert f"ai_chat_sessions {session} title: 'Coffee' in the tables, 'Tea' by the log\n" in output
    assert f"api_usage_log {run.id}: missing from the tables\n" in output
    assert "ai_chat_messages made up: in the tables only\n" in output
    assert output.endswith("4 differences.\n")


def test_without_files_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert check.main(Settings(data_dir=tmp_path)) == 1
    assert "NATTERLOG_DATA_DIR" in capsys.readouterr().err


async def test_tables_of_another_version_are_not_compared(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with store_at_work(nats_server, tmp_path):
        pass
    with sqlite3.connect(tmp_path / "natterlog.db") as changed:
        changed.execute("UPDATE alembic_version SET version_num = '0001'")
    changed.close()

    assert check.main(Settings(data_dir=tmp_path)) == 1
    assert "The tables are of version 0001" in capsys.readouterr().err
