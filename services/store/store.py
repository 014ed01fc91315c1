"""The store: it archives every fact, applies it to the tables, and answers for them.

:meth:`Store.follow` is its heart, a loop over the log:

    read → archive → apply → wake those who wait → react

Commands only append facts; what they change, they change by way of this loop.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from msgspec import DecodeError
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from services.store import trim
from services.store.accounts import Accounts
from services.store.admission import Admission
from services.store.answering import Endpoint
from services.store.applying import apply, read_applied, read_epoch, set_epoch
from services.store.archive import Archive, Entry, entry, links
from services.store.branches import Branches
from services.store.chains import Chains
from services.store.commands import Commands
from services.store.context import Contexts
from services.store.continuing import Continuing
from services.store.database import Database, database_path
from services.store.dispatch import Dispatcher
from services.store.erase import Eraser
from services.store.gauges import measure_runs
from services.store.handlers import endpoints, react
from services.store.history import History
from services.store.hotlog import HotLog
from services.store.jobs import Jobs
from services.store.log_requests import LogRequests
from services.store.memory import Memory
from services.store.migrate import migrate
from services.store.model_names import ModelNames
from services.store.models import Models
from services.store.orphans import Orphans
from services.store.presets import Presets
from services.store.releasing import Releasing
from services.store.session_log import SessionLog
from services.store.turns import Turns
from services.store.watermark import Watermark
from shared.bus import Bus, BusError, Incoming
from shared.lifecycle import running
from shared.log import get_logger
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, is_packed, unpack
from shared.settings import Settings
from shared.streams import ensure_streams
from shared.subjects import EVENTS, EVERY_FACT, LIVE, LIVE_FACTS, parse

log = get_logger()

BATCH = 500
_STEP = 1.0
_RETRY = 0.2
GROUP = 0.01
"""Seconds of facts that one transaction takes."""
_MOST_LIVE = 2_000
MOST_REQUESTS = 10_000
"""Requests that may be here at once, most of them waiting (:mod:`services.store.admission`)."""

_archived = Counter("natterlog_store_facts", "Facts archived and applied")
_lag = Gauge("natterlog_store_lag_facts", "Facts that are known of and not applied yet")


async def main(settings: Settings) -> None:
    """Follow the log and answer, until told to stop."""
    # A database's thread hands the interpreter over at every statement; with the
    # usual 5 ms it would wait that long to get it back, whenever the loop is busy.
    sys.setswitchinterval(0.0005)
    async with running(settings, "store") as life, opened(settings, life.bus) as store:
        life.add_check("projection", store.check)
        life.measure(partial(measure_runs, database=store.database))
        async with store.at_work():
            await life.bus.serve("store", store.endpoints(), most=MOST_REQUESTS)
            life.ready()
            await life.stopping.wait()


@asynccontextmanager
async def opened(settings: Settings, bus: Bus) -> AsyncGenerator["Store"]:
    """A store on its files, not at work yet."""
    archive = Archive(settings.data_dir / "log.db")
    database = Database(database_path(settings), durable=False)
    store = Store(settings, bus, archive, database)
    try:
        await archive.open()
        await migrate(database)
        yield store
    finally:
        store.history.close()
        await archive.close()
        await database.close()


class Store:
    """What one store process consists of, and its loop over the log."""

    def __init__(self, settings: Settings, bus: Bus, archive: Archive, database: Database) -> None:
        self.bus = bus
        self.archive = archive
        self.database = database
        self.applied = Watermark()
        self.hot = HotLog(bus)
        self.eraser = Eraser(bus, archive, database, self.hot)
        self.memory = Memory(bus, database, self.hot, self.applied)
        self.chains = Chains(bus, self.hot, self.applied, self.memory)
        self.session_log = SessionLog(self.chains, self.memory, database, self.applied)
        self.dispatcher = Dispatcher(
            *(bus, database, self.hot, self.chains, self.memory, self.applied)
        )
        self.model_names = ModelNames(bus, database)
        self.turns = Turns(
            *(self.session_log, self.memory, database, self.applied, self.model_names, settings)
        )
        self.contexts = Contexts(self.memory, database, self.applied)
        self.commands = Commands(
            *(bus, settings, database, archive, self.chains, self.session_log),
            *(self.memory, self.applied, self.eraser, self.model_names),
        )
        self.jobs = Jobs(self.session_log, self.commands)
        self.branches = Branches(self.session_log, self.commands, self.turns, database)
        self.continuing = Continuing(self.session_log, self.turns, settings)
        self.releasing = Releasing(self.commands, database)
        self.eraser.release = self.releasing.release
        self.presets = Presets(self.chains, database, self.model_names)
        self.accounts = Accounts(self.chains, database)
        self.history = History(archive, database)
        self.orphans = Orphans(bus, archive, database, self.applied)
        self.models = Models(self.chains, database)
        self.log_requests = LogRequests(archive, database, self.applied)
        self.admission = Admission()
        self._settings = settings
        self._live: deque[Entry] = deque()
        self._heard = 0
        self._wake = asyncio.Event()
        self._adopted = False
        self._caught_up = False

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Follow the log, dispatch, erase and trim while this is open.

        A defect in one of them ends all, and with them the process: the next one
        starts from what is on disk.
        """
        await self._adopt()
        await self._project_archived()
        listening = await self.bus.listen_live(LIVE_FACTS, self._on_live)
        self.bus.on_reconnect(self._on_reconnect)
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(self.follow(), name="follow"),
                tasks.create_task(self.dispatcher.run(), name="dispatch"),
                tasks.create_task(self.eraser.run(), name="erase"),
                tasks.create_task(self._trim_now_and_then(), name="trim"),
                tasks.create_task(self.releasing.run(), name="release"),
                tasks.create_task(self.orphans.run(), name="orphans"),
            ]
            try:
                yield
            finally:
                for task in working:
                    task.cancel()
                await self.model_names.close()
                await listening.close()

    # -- the loop ---------------------------------------------------------------------

    async def follow(self) -> None:
        """Archive and apply every fact in order, for ever; outages are waited out."""
        while True:
            try:
                if not self._adopted:
                    await self._adopt()
                if self.applied.seq < self.archive.archived:
                    await self._project_archived()
                batch = await self._next()
                if batch:
                    await self.take(batch)
            except BusError as error:
                log.warning("store.log_unreachable", error=str(error))
                self._adopted = False
                await asyncio.sleep(_RETRY)
            except SQLAlchemyError:
                log.exception("store.write_failed", archived=self.archive.archived)
                await asyncio.sleep(_STEP)
                await self.archive.look()

    async def take(self, batch: list[Entry]) -> None:
        """Make some facts, the next ones, part of the archive and of the tables."""
        entries = [await self._whole(item) for item in batch]
        await self.archive.add(entries)
        upto = entries[-1].seq
        self.applied.advance(await self.database.write(apply, links(entries), upto))
        _archived.inc(len(entries))
        _lag.set(max(self._heard - upto, 0))
        self._react(entries)

    async def _next(self) -> list[Entry]:
        """The facts that follow the archive's last: as they were heard, else read."""
        if self._caught_up:
            await asyncio.sleep(GROUP)  # so that one transaction takes all that comes together
        batch = self._heard_next()
        if not batch and self._caught_up:
            await self._woken()
            await asyncio.sleep(GROUP)
            batch = self._heard_next()
        if not batch:
            after = self.archive.archived
            stored = await self.bus.read(EVENTS, EVERY_FACT, after=after, limit=BATCH)
            batch = [
                Entry(*each, None) if is_packed(each.data) else entry(*each) for each in stored
            ]
            self._caught_up = not batch
        return batch

    def _heard_next(self) -> list[Entry]:
        """Live facts as long as they follow without a gap (a schedule, an erased fact)."""
        live, after = self._live, self.archive.archived
        while live and live[0].seq <= after:
            live.popleft()
        batch: list[Entry] = []
        while live and live[0].seq == after + 1 and len(batch) < BATCH:
            batch.append(live.popleft())
            after += 1
        return batch

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(_STEP):
                await self._wake.wait()
        except TimeoutError:
            self._caught_up = False  # something may have been missed: read
        self._wake.clear()

    async def _whole(self, item: Entry) -> Entry:
        """The fact with what lies of it in FILES."""
        if not is_packed(item.data):
            return item
        data = item.data
        try:
            data = await unpack(self.bus, data)
        except (ObjectMissing, DecodeError):
            log.error("store.fact_incomplete", seq=item.seq, subject=item.subject)
        return entry(item.seq, item.subject, data)

    def _react(self, entries: list[Entry]) -> None:
        """Tell the store's parts of the facts that were just applied."""
        for item in entries:
            session = parse(item.subject).session
            if session in self.archive.deleted:
                self.history.forget(session)
                self.eraser.came_late()
            elif item.fact is not None:
                react((self.dispatcher, self.model_names), item.fact, session)

    # -- the log's incarnation ----------------------------------------------------------

    async def _adopt(self) -> None:
        """Make sure that EVENTS goes on where the archive ends.

        After the bus lost its data EVENTS begins at 1 again.  Sequences must never
        come twice, because they are attempts, cursors and keys: so it is moved on.
        """
        epoch = await ensure_streams(self.bus)
        _, last = await self.hot.refresh()
        known = max(self.archive.archived, await self.database.read(read_applied))
        if last < known:
            log.warning("store.log_moved_on", last=last, archived=known, epoch=epoch)
            await self.hot.drop_before(known + 1)
        if self.archive.epoch != epoch:
            await self.archive.set_epoch(epoch)
            self.memory.forget_all()
        if await self.database.read(read_epoch) != epoch:
            await self.database.write(set_epoch, epoch)
        self._adopted, self._caught_up = True, False

    async def _project_archived(self) -> None:
        """Apply what an earlier life archived and did not come to apply."""
        applied = await self.database.read(read_applied)
        async for entries in self.archive.entries(applied):
            await self.database.write(apply, links(entries), entries[-1].seq)
        applied = await self.database.write(apply, [], self.archive.archived)
        self.applied.advance(applied)

    def _on_live(self, message: Incoming) -> None:
        subject, seq = message.subject.removeprefix(LIVE), message.sequence
        if len(self._live) >= _MOST_LIVE:
            self._live.clear()  # far behind: it will be read
        packed = is_packed(message.data)
        item = (
            Entry(seq, subject, message.data, None) if packed else entry(seq, subject, message.data)
        )
        self._live.append(item)
        self._heard = seq
        self.applied.note(seq)
        self._hand_to_memory(item)
        self._wake.set()

    def _hand_to_memory(self, item: Entry) -> None:
        address = parse(item.subject)
        if item.fact is None:
            self.memory.hear(item.seq, None, address.session)
        else:
            heard = LogEntry(item.seq, item.subject, address, item.data, item.fact)
            self.memory.hear(item.seq, heard, address.session)

    def _on_reconnect(self) -> None:
        self._adopted = False
        self.memory.doubt()
        self._wake.set()

    async def _trim_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(trim.EVERY)
            try:
                await self.trim()
            except BusError as error:
                log.warning("store.trim_postponed", error=str(error))

    async def trim(self) -> int:
        """Trim EVENTS now; answers its first sequence."""
        keep = self._settings.hot_facts
        return await trim.trim(self.bus, self.hot, self.archive, self.database, keep=keep)

    # -- answering ----------------------------------------------------------------------

    def endpoints(self) -> dict[str, Endpoint]:
        """Every request that the store answers."""
        deciding = (self.commands, self.turns, self.continuing, self.branches, self.jobs)
        parts = (
            *deciding,
            self.contexts,
            self.presets,
            self.accounts,
            self.models,
            self.log_requests,
        )
        return endpoints(parts, self.database, self.history, self.applied, self.admission)

    async def check(self) -> str | None:
        """Why the store is not ready, if it is not."""
        lag = self._heard - self.applied.seq
        return f"{lag} facts behind" if lag > BATCH else None
