"""Hard delete: after it no file of natterlog's holds a word of the session (docs/failures.md).

The tombstone is a fact, and from then on what is left to do can be seen from
what is still there, so that a crash only delays it.  Nothing can come back: once
a run's facts are erased its chain is empty, and a worker that goes on writing
expects a head that is no longer there.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from services.store import schedules
from services.store.archive import Archive, Tombstone, links
from services.store.database import Database
from services.store.dispatch import ended_by_store
from services.store.hotlog import HotLog
from services.store.projection import Rows, project
from services.store.rows import RunRow
from services.store.trim import drop_remains
from shared.attachments import attached_in
from shared.bus import Bus, BusError, Stored
from shared.chain import Overtaken, extend
from shared.errors import Unavailable
from shared.events import Delta, encode
from shared.log import get_logger
from shared.objects import erase as erase_object
from shared.objects import erase_message, erase_refs
from shared.streams import DEAD, FILES
from shared.subjects import EVENTS, NONE, TOKENS, Address

log = get_logger()

WAIT_FOR_WORKERS = 2.0
"""Seconds that workers get to end a deleted session's replies themselves."""
_AT_ONCE = 32
_RETRY = 5.0
_ROLL_EVERY = 60.0
_FILLER = 900_000
_FILLERS = 10
"""Together more than a block of the server's, each less than any server takes."""


Release = Callable[[str, list[str]], Awaitable[None]]
"""Told a user and the files that a session of his referred to."""


async def _keep_all(user_id: str, file_ids: list[str]) -> None:
    del user_id, file_ids


class Eraser:
    """Erases deleted sessions: the one that was just deleted, and what an earlier life left."""

    def __init__(self, bus: Bus, archive: Archive, database: Database, hot: HotLog) -> None:
        self._bus = bus
        self._archive = archive
        self._database = database
        self._hot = hot
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.release: Release = _keep_all
        """Lets go of files that the erased session referred to; set by whoever owns them."""
        self._unrolled = False
        self._roll_after = 0.0
        self._late = asyncio.Event()
        self._new_fact = asyncio.Event()
        self.idle = asyncio.Event()
        """Nothing is left to erase, as far as is known."""

    def came_late(self) -> None:
        """Have deleted sessions erased soon: a tombstone was archived, or a fact after one."""
        self.idle.clear()
        self._late.set()
        self._new_fact.set()

    async def run(self) -> None:
        """Take up what an earlier life left, and whatever comes late, for ever."""
        while True:
            self._late.clear()
            try:
                for tombstone in await self._archive.unerased():
                    await self._erase(tombstone)
                await self._roll_tokens()
                if not self._late.is_set():
                    self.idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROLL_EVERY):
                        await self._late.wait()
            except (BusError, Unavailable) as error:
                log.warning("store.erasing_postponed", error=str(error))
                await asyncio.sleep(_RETRY)

    async def erase(self, session_id: str) -> None:
        """Erase a session whose tombstone is archived; it is gone when this returns.

        Raises:
            BusError: it is not all gone yet; that is taken up again.
        """
        try:
            for tombstone in await self._archive.unerased():
                if tombstone.session == session_id:
                    await self._erase(tombstone)
        finally:
            self._late.set()

    # -- the steps ----------------------------------------------------------------------

    async def _erase(self, tombstone: Tombstone) -> None:
        async with self._locks.setdefault(tombstone.session, asyncio.Lock()):
            if tombstone not in await self._archive.unerased():
                return
            barred = await self._end_runs(tombstone)
            await schedules.delete(self._bus, tombstone.address.session_schedules)
            await drop_remains(self._bus, self._hot, self._archive, self._database, tombstone)
            while facts := await self._hot_facts(tombstone):
                await self._erase_facts(facts)
            await self._erase_token_events(tombstone, barred)
            await self._erase_objects(tombstone)
            await self._release_files(tombstone)
            await self._erase_letters(tombstone)
            await self._archive.erase(tombstone)
            await self._database.forget()
            await self._archive.set_erased(tombstone)
            self._unrolled = True
        log.info("store.session_erased", session_id=tombstone.session, seq=tombstone.seq)

    async def _release_files(self, tombstone: Tombstone) -> None:
        # The facts that name them are there until the next step, so a crash only delays it.
        entries = await self._archive.session_entries(tombstone)
        await self.release(tombstone.user, attached_in(entry.fact for entry in entries))

    async def _end_runs(self, tombstone: Tombstone) -> set[int]:
        """Let each reply come to its end, so that whoever reads it learns of it.

        Answers what bars the deltas of those that the store had to end: a worker
        that was asleep, and is about to write a run's first delta, would find no
        other delta in its way.
        """
        try:
            async with asyncio.timeout(WAIT_FOR_WORKERS):
                while any(run.attempt for run in await self._unfinished(tombstone)):
                    await self._new_fact.wait()
                    self._new_fact.clear()
        except TimeoutError:
            pass  # nobody is at it, or somebody who does not listen
        barred: set[int] = set()
        for run in await self._unfinished(tombstone):
            address = Address(run.user_id, run.session_id, run.id)
            final = ended_by_store(run, "cancelled", "")
            with suppress(Overtaken):  # it ended itself just now, or its chain is erased already
                await extend(
                    self._bus,
                    address.subject_of(final),
                    final,
                    expected=self._hot.expected(run.last_seq),
                    tries=2,
                )
            bar = encode(Delta(attempt=run.attempt, offset=0, text=""))
            barred.add(await self._bus.store(address.tokens, bar))
        return barred

    async def _unfinished(self, tombstone: Tombstone) -> list[RunRow]:
        """The session's runs that have no end yet, from what is left of its facts."""
        rows = Rows()
        for link in links(await self._archive.session_entries(tombstone)):
            project(rows, link)
        return [run for run in rows.runs.values() if run.ended_at is None]

    async def _hot_facts(self, tombstone: Tombstone) -> list[Stored]:
        found = await self._bus.facts_after(EVENTS, tombstone.address.session_facts, 0)
        return [fact for fact in found if fact.seq != tombstone.seq]

    async def _erase_facts(self, facts: list[Stored]) -> None:
        # The last ones first: a chain that has lost its head refuses whatever comes.
        for fact in reversed(facts):
            await erase_refs(self._bus, fact.data)
            await erase_message(self._bus, EVENTS, fact.seq)

    async def _erase_token_events(self, tombstone: Tombstone, barred: set[int]) -> None:
        subject, after = tombstone.address.session_tokens, 0
        while messages := await self._bus.read(TOKENS, subject, after=after):
            after = messages[-1].seq
            written = [message.seq for message in messages if message.seq not in barred]
            for start in range(0, len(written), _AT_ONCE):
                part = written[start : start + _AT_ONCE]
                await asyncio.gather(*(erase_message(self._bus, TOKENS, seq) for seq in part))

    async def _roll_tokens(self) -> None:
        """Let TOKENS begin a new block, so that what had expired before is gone in minutes.

        An expired delta cannot be overwritten; its bytes go with the block, and
        that goes when all in it is expired and it is not the last.
        """
        now = asyncio.get_running_loop().time()
        if not self._unrolled or now < self._roll_after:
            return
        self._unrolled, self._roll_after = False, now + _ROLL_EVERY
        state = (await self._bus.api(f"STREAM.INFO.{TOKENS}"))["state"]
        if state["messages"]:
            filler = Address(NONE, NONE, NONE).tokens
            for _ in range(_FILLERS):
                await self._bus.store(filler, bytes(_FILLER))
            await self._bus.api(f"STREAM.PURGE.{TOKENS}", {"filter": filler})

    async def _erase_objects(self, tombstone: Tombstone) -> None:
        """Erase what was kept in FILES for the session's facts, the refused ones included."""
        prefix = base64.urlsafe_b64encode(f"{tombstone.session}/".encode())[:_SAFE].decode()
        after = 0
        while batch := await self._bus.read(FILES, "$O.FILES.M.>", after=after):
            after = batch[-1].seq
            for meta in batch:
                token = meta.subject.rpartition(".")[2]
                if token.startswith(prefix):
                    await erase_object(self._bus, base64.urlsafe_b64decode(token).decode())

    async def _erase_letters(self, tombstone: Tombstone) -> None:
        """Erase what is told of facts that nobody could handle: its reason may quote them.

        A letter is not decoded for that, because one that cannot be read must go as well.
        """
        session = tombstone.session.encode()
        after = 0
        while batch := await self._bus.read(DEAD, "dead.>", after=after):
            after = batch[-1].seq
            for stored in batch:
                if session in stored.data:
                    await erase_message(self._bus, DEAD, stored.seq)


_SAFE = 48
"""Base64 characters that a session's id (36 bytes) fixes, whatever follows it."""
