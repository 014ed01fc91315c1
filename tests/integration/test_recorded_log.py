"""What was recorded is read alike over the bus and from the files, whoever's it is."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from services.cli.recorder.recorded_log import NotRecorded, RecordedLog
from services.store import trim
from shared import ids
from shared.errors import InvalidRequest, NotFound
from shared.events import Fault
from shared.inspection import FindRuns, FindSessions
from shared.session_facts import read_hot
from shared.subjects import session_address
from tests.support.nats_server import NatsServer
from tests.support.recorder import log_of, log_of_files, run, served_store
from tests.support.store_at_work import StoreAtWork

LONG = "a long question. " * 40_000


async def facts_of(log: RecordedLog, session: str) -> list[tuple[int, str, bytes]]:
    return [(f.seq, f.kind, f.data) async for f in log.session_facts(session)]


async def test_hot_cold_and_from_the_files_the_facts_are_the_same(
    nats_server: NatsServer, tmp_path: Path
):
    async with served_store(nats_server, tmp_path) as at_work:
        session = await at_work.create(title="Tea")
        await at_work.reply(session, "short")
        long = (await at_work.send(session, LONG[:190_000] + "é" * 9_000)).run
        await at_work.claim(long)
        await at_work.end(long, LONG[:600_000])
        log = log_of(at_work)
        cold = await facts_of(log, session)
        everything = session_address("*", session).session_facts
        hot = [(f.seq, f.kind, f.data) async for f in read_hot(at_work.bus, everything)]
        store = at_work.store
        await trim.trim(at_work.bus, store.hot, store.archive, store.database, keep=1)
        trimmed = await facts_of(log, session)
    async with log_of_files(tmp_path) as log:
        from_files = await facts_of(log, session)

    assert [what for _, what, _ in cold] == [
        "session.created",
        *["todo.chat.0", "claim", "final"] * 2,
    ]
    assert len(cold[-1][2]) > 600_000
    assert hot == cold
    assert trimmed == cold
    assert from_files == cold


async def test_runs_and_sessions_are_found_by_what_is_known_of_them(
    nats_server: NatsServer, tmp_path: Path
):
    async with served_store(nats_server, tmp_path) as at_work:
        other = StoreAtWork(at_work.store)
        session, others = await at_work.create(title="Tea"), await other.create(mode="odd")
        done = (await at_work.send(session)).run
        await at_work.claim(done)
        await at_work.end(done, cost=7_000)
        failed = (await other.send(others)).run
        await other.claim(failed)
        fault = Fault(code="provider_error", message="It said no.")
        await other.end(failed, "", "failed", error=fault)
        queued = (await other.send(others, "Hm?")).run
        log = log_of(at_work)

        async def found(**wanted: object) -> list[str]:
            return [r.id for r in await log.runs(FindRuns(**wanted))]  # type: ignore[arg-type]

        assert [(r.called, r.cost) for r in await log.runs(FindRuns())] == [
            (False, None),
            (True, None),
            (True, 7_000),
        ]
        assert await found() == [queued.id, failed.id, done.id]
        assert await found(limit=1) == [queued.id]
        assert await found(user=at_work.user) == [done.id]
        assert await found(session=others[:30]) == [queued.id, failed.id]
        assert await found(state="failed") == [failed.id]
        assert await found(error="") == [failed.id]
        assert await found(error="provider_error") == [failed.id]
        assert await found(error="provider") == []
        assert await found(model="none") == []
        assert await found(since=done.created_at, until=done.created_at) == []
        assert await found(since=ids.now() + timedelta(hours=1)) == []
        assert await found(before=(failed.created_at, failed.first_seq)) == [done.id]
        assert (await log.run(failed.id)).error == fault
        sessions = await log.sessions(FindSessions())
        assert [(s.session.id, s.runs, s.unfinished) for s in sessions] == [
            (others, 2, 1),
            (session, 1, 0),
        ]
        assert [s.session.id for s in await log.sessions(FindSessions(mode="odd"))] == [others]
        by_id = await log.sessions(FindSessions(follows=""))
        assert [s.session.id for s in by_id] == sorted((session, others))
        with pytest.raises(InvalidRequest):
            await found(limit=0)


async def test_an_id_may_be_cut_as_long_as_it_is_unique(nats_server: NatsServer, tmp_path: Path):
    async with served_store(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        run_id = (await at_work.reply(session)).id
        await at_work.reply(session)
        log = log_of(at_work)

        assert (await log.run(run_id[:-1])).id == run_id
        assert (await log.run(run_id.upper())).id == run_id
        with pytest.raises(NotRecorded, match="Several runs have an id that begins with '0'"):
            await log.run("0")
        with pytest.raises(NotRecorded, match="There is no run whose id begins with '%_'"):
            await log.run("%_")


async def test_where_there_are_no_files_it_says_what_to_do(tmp_path: Path):
    with pytest.raises(NotFound, match="NATTERLOG_DATA_DIR"):
        async with log_of_files(tmp_path):
            pass


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a command, without the log's, for the store is in this process too."""
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if not line.startswith("20")]


async def test_lists_for_programs_are_an_object_a_line(
    nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with served_store(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        runs = [(await at_work.reply(session)).id for _ in range(2)]
        log = log_of(at_work)

        assert await run(log, "runs", "ls", "--json") == 0
        listed = [json.loads(line)["id"] for line in printed(capsys)]
        assert await run(log, "runs", "show", runs[0], "--prompt", "--json") == 0
        story = json.loads("\n".join(printed(capsys)))
        assert await run(log, "sessions", "show", session, "--json") == 0
        shown = json.loads("\n".join(printed(capsys)))
        assert await run(log, "runs", "tail", runs[0], "--json") == 0
        followed = [json.loads(line) for line in printed(capsys)]

    assert listed == runs[::-1]
    assert (story["story"]["state"], len(story["story"]["facts"])) == ("completed", 3)
    assert [run["run_id"] for run in shown["runs"]] == runs
    assert [line["fact"]["type"] for line in followed] == ["todo.chat", "claim", "final"]
