"""A store in the test's own process, on a real nats-server, and a worker to play against it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.store import queries
from services.store.context import get_context
from services.store.schema import metadata
from services.store.store import Store, opened
from shared import ids
from shared.bus import Bus
from shared.chain import extend
from shared.commands import (
    Accepted,
    Context,
    CreateJob,
    CreateSession,
    GetContext,
    GetRun,
    ListMessages,
    SendMessage,
)
from shared.events import (
    CancelRequested,
    Delta,
    EndStatus,
    FilePlan,
    RunClaimed,
    RunEnded,
    StepResult,
    Usage,
    encode,
)
from shared.objects import put
from shared.records import Run
from shared.settings import Settings
from shared.streams import ensure_streams
from shared.subjects import EVENTS, Address
from tests.support.nats_server import NatsServer
from tests.support.plans import a_file

DEADLINE = 20.0


@asynccontextmanager
async def store_at_work(
    server: NatsServer, data_dir: Path, **settings: Any
) -> AsyncIterator["StoreAtWork"]:
    """A store with its own connection; ``settings`` change the defaults."""
    chosen = Settings(nats_url=server.url, data_dir=data_dir, **settings)
    async with Bus(server.url, name="store") as bus:
        await ensure_streams(bus)
        async with opened(chosen, bus) as store, store.at_work():
            # The tests before have left facts on the server, which it applies first.
            if (head := await bus.head(EVENTS, "evt.>")) is not None:
                await store.applied.wait_for(head.seq, within=DEADLINE)
            yield StoreAtWork(store)


class StoreAtWork:
    """The store and one user of it; the short names are what tests do all the time."""

    def __init__(self, store: Store, user: str | None = None) -> None:
        self.store = store
        self.bus = store.bus
        self.user = user or ids.new_id()

    async def create(self, **fields: Any) -> str:
        session = ids.new_id()
        await self.create_as(session, **fields)
        return session

    async def create_as(self, session: str, **fields: Any) -> None:
        request = CreateSession(user_id=self.user, session_id=session, **fields)
        await self.store.commands.create_session(request)

    async def send(self, session: str, content: str = "Hi", **fields: Any) -> Accepted:
        request = SendMessage(user_id=self.user, session_id=session, content=content, **fields)
        return await self.store.turns.send_message(request)

    async def shown(self, session: str) -> list[tuple[str, str]]:
        """The active branch as (content, status)."""
        request = ListMessages(user_id=self.user, session_id=session, limit=1000)
        page = await self.store.session_log.read(queries.list_messages, request)
        return [(m.content, m.status) for m in page.items]

    async def run(self, run: str) -> Run:
        request = GetRun(user_id=self.user, run_id=run)
        return (await self.store.session_log.read(queries.get_run, request)).run

    async def context(self, run: Run) -> Context:
        """What the worker with the run's todo gets to write its reply from."""
        turn = (await self.store.session_log.read(queries.find_run, self.user, run.id)).turn
        query = GetContext(user_id=self.user, session_id=run.session_id, turn=turn)
        return await self.store.session_log.read(get_context, query)

    async def until(self, run: str, wanted: Callable[[Run], bool]) -> Run:
        """Wait until the run is as wanted; looks after each applied fact."""
        async with asyncio.timeout(DEADLINE):
            while not wanted(found := await self.run(run)):
                await self.next_fact()
        return found

    async def settled(self) -> int:
        """Wait until the tables have all that the store knows of; answers up to where that is."""
        await self.store.applied.wait_for(self.store.applied.known)
        return self.store.applied.seq

    async def next_fact(self) -> None:
        seen = self.store.applied.seq
        waiting = asyncio.ensure_future(self.store.applied.wait_for(seen + 1))
        await asyncio.wait({waiting}, timeout=DEADLINE)
        waiting.exception()

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        return await self.store.session_log.read(dump)

    async def file(self, text: str = "words", *, read: bool = True) -> str:
        """A file in FILES, and read by a processor unless told otherwise; answers its id."""
        file_id, ref_id, run_id = ids.new_id(), ids.new_id(), ids.new_id()
        await put(self.bus, f"{file_id}/{ref_id}", text.encode())
        ref = a_file(id=ref_id, name="notes.txt", size=len(text))
        request = CreateJob(
            user_id=self.user,
            session_id=file_id,
            run_id=run_id,
            plan=FilePlan(file=ref),
            mode="file",
        )
        run = (await self.store.jobs.create_job(request)).job.run
        if read:
            await self.claim(run)
            found = StepResult(step="extract", text="", text_file=ref, notes=["A note."])
            await self.end(run, "", results=[found], usage=None)
        return file_id

    # -- a worker's part -------------------------------------------------------------

    def address(self, run: Run) -> Address:
        return Address(self.user, run.session_id, run.id)

    async def claim(self, run: Run, worker: str = "nobody") -> int:
        claim = RunClaimed(at=ids.now(), worker=worker, todo=run.last_seq, prompt=None)
        subject = self.address(run).fact("claim")
        seq = await extend(self.bus, subject, claim, expected=run.last_seq)
        await self.store.applied.wait_for(seq)
        return seq

    async def write(self, run: Run, attempt: int, text: str) -> None:
        """The whole text so far, as one delta."""
        delta = encode(Delta(attempt=attempt, offset=0, text=text))
        await self.bus.store(self.address(run).tokens, delta)

    async def end(
        self, run: Run, text: str = "Hello!", status: EndStatus = "completed", **fields: Any
    ) -> int:
        """The final, after whatever the projection knows to be the run's last fact."""
        now = await self.run(run.id)
        final = final_of(text, status, attempt=now.attempt, **fields)
        subject = self.address(run).fact("final")
        seq = await extend(self.bus, subject, final, expected=now.last_seq)
        await self.store.applied.wait_for(seq)
        return seq

    async def reply(
        self, session: str, content: str = "Hi", text: str = "Hello!", **fields: Any
    ) -> Run:
        """A whole turn; ``fields`` are the final's."""
        run = (await self.send(session, content)).run
        await self.claim(run)
        await self.end(run, text, **fields)
        return await self.run(run.id)

    async def cancel_unseen(self, run: Run) -> int:
        """A cancel as another store would append it."""
        subject = self.address(run).fact("cancel")
        return await extend(self.bus, subject, CancelRequested(at=ids.now()), expected=run.last_seq)


def final_of(text: str, status: EndStatus = "completed", **fields: Any) -> RunEnded:
    return RunEnded(
        at=ids.now(),
        status=status,
        text=text,
        length=len(text),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        **{"usage": Usage(input_tokens=3, output_tokens=5), **fields},
    )


def dump(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as SQLite holds it."""
    return {
        table.name: sorted(
            (tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table.name}")),
            key=repr,
        )
        for table in metadata.sorted_tables
    }
