"""Sessions travel from one log to another, and nothing of them is ever begun there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.commands import import_log
from services.cli.log_files.export_file import FactLine, SessionLine, check, sessions_of
from services.cli.log_files.renumbering import FactToImport, facts_to_import
from services.cli.recorder.recorded_log import NotRecorded, RecordedLog
from services.store import queries
from shared.commands import CreateJob, DeleteSession, GetSession, ListSessions, Rebuild
from shared.consumer import Delivery
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.events import PipelinePlan, PipelineStep
from shared.ids import new_id, now
from shared.inspection import FindRuns
from shared.pulling import Consumer
from shared.subjects import CHAT_TODOS, generate_todos, process_todos
from tests.support.nats_server import NatsServer
from tests.support.recorder import log_of, run, served_store
from tests.support.store_at_work import StoreAtWork

EVERY_TODO = [CHAT_TODOS, process_todos(5), generate_todos(5)]
PLAN = PipelinePlan(pipeline="p", steps=[PipelineStep(name="s", template="t")], inputs={})


@pytest.fixture
async def second_nats_server() -> AsyncIterator[NatsServer]:
    async with NatsServer() as server:
        yield server


@asynccontextmanager
async def here_and_there(
    one: NatsServer, other: NatsServer, directory: Path
) -> AsyncIterator[tuple[StoreAtWork, StoreAtWork]]:
    async with (
        served_store(one, directory / "here") as here,
        served_store(other, directory / "there") as there,
    ):
        there.user = here.user
        yield here, there


async def lived_in(at_work: StoreAtWork) -> list[str]:
    """Sessions with every kind of run: ended, cancelled, lost, going on, waiting, for later."""
    plain = await at_work.create(title="Tea", system_prompt="Be brief.")
    await at_work.reply(plain, "Hello", "Hi there.")
    await at_work.reply(plain, "x" * 190_000, "y" * 400_000)
    stopped = await at_work.create()
    cancelled = (await at_work.send(stopped)).run
    await at_work.claim(cancelled)
    await at_work.cancel_unseen(await at_work.run(cancelled.id))
    await at_work.next_fact()
    await at_work.end(cancelled, "Hel", "cancelled")
    busy = await at_work.create()
    going = (await at_work.send(busy, "Going on")).run
    await at_work.claim(going)
    await at_work.send(busy, "Waiting")
    job = await begin_job(at_work)
    later = await begin_job(at_work, due=True)
    return [plain, stopped, busy, job, later]


async def begin_job(at_work: StoreAtWork, *, due: bool = False) -> str:
    session = new_id()
    request = CreateJob(
        user_id=at_work.user,
        session_id=session,
        run_id=new_id(),
        plan=PLAN,
        mode="content",
        priority=5,
        due=now().replace(year=2099) if due else None,
    )
    await at_work.store.jobs.create_job(request)
    return session


@asynccontextmanager
async def workers(at_work: StoreAtWork) -> AsyncIterator["asyncio.Queue[str]"]:
    """Somebody who would do any todo; what was handed out is in the queue."""
    handed: asyncio.Queue[str] = asyncio.Queue()

    async def handle(delivery: Delivery) -> None:
        handed.put_nowait(delivery.address.session)

    async with Consumer(at_work.bus, "everything", EVERY_TODO, handle, slots=10):
        yield handed


async def test_what_was_said_is_there_and_no_worker_heard_of_it(
    nats_server: NatsServer, second_nats_server: NatsServer, tmp_path: Path
):
    file = str(tmp_path / "log.jsonl.gz")
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        sessions = await lived_in(here)
        assert await run(log_of(here), "export-log", "--all", file) == 0
        for _ in range(3):  # so that no sequence is what it was
            await there.create()

        async with workers(there) as handed:
            assert await run(log_of(there), "import-log", file) == 0
            for session in sessions:
                await there.store.dispatcher.settle(session)
            await there.store.trim()
            mine = await there.create()
            await there.send(mine, "Now work")
            heard = await handed.get()

        assert (heard, handed.empty()) == (mine, True)
        for session in sessions[:2]:
            assert await there.shown(session) == await here.shown(session)
        assert await there.shown(sessions[2]) == [("Going on", "completed"), ("", "failed")]
        unfinished = await there.store.session_log.read(queries.unsettled)
        assert unfinished == [mine]
        before = await there.dump()
        await there.store.log_requests.rebuild(Rebuild(user_id=there.user))
        assert await there.dump() == before


async def test_attempts_are_those_of_this_log_and_go_back_as_they_came(
    nats_server: NatsServer, second_nats_server: NatsServer, tmp_path: Path
):
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        session = await here.create()
        run_id = (await here.reply(session)).id
        await run(log_of(here), "export-log", session, str(out))
        await there.create()
        await run(log_of(there), "import-log", str(out))
        there_now = await there.run(run_id)
        await run(log_of(there), "export-log", session, str(back))

    [(_, facts)] = sessions_of(back)
    claim = next(f for f in facts if b'"type":"claim"' in bytes(f.fact))
    assert there_now.attempt == claim.seq
    assert there_now.status == "completed"
    assert [without_numbers(f) for f in facts] == [
        without_numbers(f) for _, found in sessions_of(out) for f in found
    ]


def without_numbers(line: FactLine) -> dict[str, Any]:
    fact = msgspec.json.decode(bytes(line.fact))
    return {name: value for name, value in fact.items() if name not in ("prev", "todo", "attempt")}


async def test_a_redacted_session_has_its_shape_and_can_be_verified(
    nats_server: NatsServer, second_nats_server: NatsServer, tmp_path: Path
):
    file = str(tmp_path / "log.jsonl")
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        session = await here.create(title="My tax", system_prompt="Be Sherlock.")
        run_id = (await here.reply(session, "Where is Moriarty?", "In Reichenbach.\n\nYes.")).id
        await run(log_of(here), "export-log", session, file, "--redact")
        await run(log_of(there), "import-log", file)
        shown = await there.shown(session)
        story = await there.run(run_id)

    exported = (tmp_path / "log.jsonl").read_text()
    assert [w for w in ("tax", "Sherlock", "Moriarty", "Reichenbach") if w in exported] == []
    assert [(len(text), text.count("\n"), status) for text, status in shown] == [
        (18, 0, "completed"),
        (21, 2, "completed"),
    ]
    assert story.length == 21


async def test_imported_runs_are_found_by_when_they_were_accepted(
    nats_server: NatsServer, second_nats_server: NatsServer, tmp_path: Path
):
    file = str(tmp_path / "log.jsonl")
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        brought = await here.reply(await here.create())
        own = await there.reply(await there.create())
        await run(log_of(here), "export-log", "--all", file)
        await run(log_of(there), "import-log", file)
        log = log_of(there)

        newest_first = [found.id for found in await log.runs(FindRuns())]
        [newest] = await log.runs(FindRuns(limit=1))
        following = await log.runs(FindRuns(before=(newest.created_at, newest.first_seq)))

    assert newest_first == [own.id, brought.id]
    assert [found.id for found in following] == [brought.id]


# -- an import that is cut short ----------------------------------------------------------


class Cut(Exception):
    """The importing process was killed here."""


async def planned(here: StoreAtWork, file: Path) -> list[tuple[SessionLine, list[FactToImport]]]:
    await run(log_of(here), "export-log", "--all", str(file))
    return [(session, facts_to_import(session, lines)) for session, lines in sessions_of(file)]


async def test_an_import_that_was_killed_anywhere_shows_nothing_begins_nothing_and_goes_on(
    nats_server: NatsServer,
    second_nats_server: NatsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    file = tmp_path / "log.jsonl"
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        busy = await here.create()
        going = (await here.send(busy, "Going on")).run
        await here.claim(going)
        await here.send(busy, "Waiting")
        [(session, facts)] = await planned(here, file)
        log, sha256 = log_of(there), check(file).sha256
        append = import_log._append  # pyright: ignore[reportPrivateUsage]

        async def bring(upto: int) -> None:
            left = upto

            async def counted(*arguments: Any) -> int:
                nonlocal left
                if not left:
                    raise Cut
                left -= 1
                return await append(*arguments)

            monkeypatch.setattr(import_log, "_append", counted)
            await import_log.import_session(
                log, there.bus, session, facts, user=session.user, file=sha256
            )

        async with workers(there) as handed:
            for _ in facts[:-1]:
                with pytest.raises(Cut):
                    await bring(1)
                await there.store.applied.wait_for((await there.store.hot.refresh())[1])
                await there.store.dispatcher.settle(busy)
                assert await seen_by_user(there, busy) is False
            assert (await there.store.hot.refresh())[1] == len(facts) - 1
            await bring(1)
            seen = await seen_by_user(there, busy)
            mine = await there.create()
            await there.send(mine)
            heard = await handed.get()

        assert seen
        assert (heard, handed.empty()) == (mine, True)
        assert await there.shown(busy) == [("Going on", "completed"), ("", "failed")]


async def seen_by_user(at_work: StoreAtWork, session: str) -> bool:
    listed = ListSessions(user_id=at_work.user)
    page = await at_work.store.session_log.read(queries.list_sessions, listed)
    request = GetSession(user_id=at_work.user, session_id=session)
    try:
        await at_work.store.session_log.read(queries.get_session, request)
    except NotFound:
        assert page.items == []
        return False
    return [item.id for item in page.items] == [session]


async def test_a_begun_import_may_be_given_up(
    nats_server: NatsServer,
    second_nats_server: NatsServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    file = tmp_path / "log.jsonl"
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        session = await here.create()
        going = (await here.send(session)).run
        await here.claim(going)
        [(line, facts)] = await planned(here, file)
        log = log_of(there)
        await begin_only(log, there, line, facts, some=3)

        assert await run(log, "import-log", "--give-up", session) == 0
        left = [f.kind async for f in log.session_facts(session)]
        assert await run(log, "import-log", str(file)) == 1

    assert left == ["session.deleted"]
    assert "It was deleted here, and stays so." in capsys.readouterr().err


async def begin_only(
    log: RecordedLog, there: StoreAtWork, line: SessionLine, facts: list[FactToImport], *, some: int
) -> None:
    """The first ``some`` facts of an import."""

    class Enough(list[FactToImport]):
        """All of them by number, but only some can be read."""

        def __getitem__(self, index: Any) -> Any:
            if index >= some:
                raise Cut
            return super().__getitem__(index)

    with pytest.raises(Cut):
        await import_log.import_session(
            log, there.bus, line, Enough(facts), user=line.user, file="a" * 64
        )
    await there.store.applied.wait_for((await there.store.hot.refresh())[1])


# -- refusals -----------------------------------------------------------------------------


async def test_what_is_here_already_stays_as_it_is(
    nats_server: NatsServer,
    second_nats_server: NatsServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    one, two = str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        session = await here.create()
        await here.reply(session)
        await run(log_of(here), "export-log", session, one)
        await here.reply(session)
        await run(log_of(here), "export-log", session, two)
        codes = [await run(log_of(there), "import-log", file) for file in (one, one, two)]
        codes.append(await run(log_of(here), "import-log", one))
        other = new_id()
        codes.append(await run(log_of(there), "import-log", one, "--user", other))

    output = capsys.readouterr()
    assert codes == [0, 0, 1, 1, 1]
    assert output.out.splitlines()[-2:] == [
        f"{session}: brought here, 4 facts.",
        f"{session}: was here already, from this file, 4 facts.",
    ]
    assert output.err.splitlines() == [
        f"{session}: It is here already, from another file, or a part of it.",
        f"{session}: It is here already.",
        f"{session}: It is here already.",
    ]


async def test_a_session_may_be_brought_to_another_user(
    nats_server: NatsServer, second_nats_server: NatsServer, tmp_path: Path
):
    file, other = str(tmp_path / "log.jsonl"), new_id()
    async with here_and_there(nats_server, second_nats_server, tmp_path) as (here, there):
        session = await here.create()
        await here.reply(session)
        await run(log_of(here), "export-log", session, file)
        await run(log_of(there), "import-log", file, "--user", other)

        assert await StoreAtWork(there.store, other).shown(session) == await here.shown(session)
        with pytest.raises(NotFound):
            await there.shown(session)


async def test_a_run_of_another_session_is_never_touched(
    nats_server: NatsServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    file = tmp_path / "log.jsonl"
    async with served_store(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(session)
        [(line, facts)] = await planned(at_work, file)
        other = msgspec.structs.replace(line, id=new_id())
        before = await at_work.dump()

        with pytest.raises(import_log.Conflict, match="is here already, in session"):
            await import_log.import_session(
                log_of(at_work), at_work.bus, other, facts, user=other.user, file="b" * 64
            )

        assert await at_work.dump() == before


async def test_a_deleted_session_is_not_exported(nats_server: NatsServer, tmp_path: Path):
    async with served_store(nats_server, tmp_path) as at_work:
        session = await at_work.create()
        await at_work.reply(session)
        log = log_of(at_work)
        await at_work.store.commands.delete_session(
            DeleteSession(user_id=at_work.user, session_id=session)
        )

        with pytest.raises(NotRecorded):
            await run(log, "export-log", session, str(tmp_path / "log.jsonl"))
        assert await run(log, "export-log", "--all", str(tmp_path / "all.jsonl")) == 0

    assert check(tmp_path / "all.jsonl").sessions == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("export-log", "only-one"), "Name a session and a file"),
        (("export-log", "--all", "a", "b"), "Name a session and a file"),
        (("import-log",), "Name a file"),
        (("import-log", "f", "--give-up", "s"), "Name a file"),
        (("import-log", "f", "--user", "me"), "'me' is no user's id"),
    ],
)
async def test_what_is_asked_wrongly_is_refused(
    nats_server: NatsServer, tmp_path: Path, arguments: tuple[str, ...], reason: str
):
    async with served_store(nats_server, tmp_path) as at_work:
        with pytest.raises(InvalidRequest, match=reason):
            await run(log_of(at_work), *arguments)


async def test_an_import_needs_a_log_that_runs(tmp_path: Path):
    async def nobody(_: Any) -> Any:
        raise AssertionError

    file = tmp_path / "log.jsonl"
    file.touch()

    with pytest.raises(Unavailable, match="Nothing runs here"):
        await run(RecordedLog(nobody, None), "import-log", str(file))
