"""A session's live tail, kept once and shared by all its clients (architecture.md, law 6).

A feed keeps a session's state at the end of its log.  It trusts no delivery: what does
not fit is read again from the log, in one task, and merged so that nothing counts twice.
"""

import asyncio
from contextlib import AsyncExitStack

import msgspec

from services.gateway.sessions.client_events import RunView, view_of_run
from services.gateway.sessions.state import SessionState
from services.gateway.sessions.typing_signals import TypingListeners
from services.gateway.sessions.watchers import Watchers
from shared.bus import Bus, BusError, Incoming, Stored
from shared.commands import GetFacts, GetMessage, GetRun, ListMessages, OpenFeed
from shared.deltas import Merge, read_attempt
from shared.events import Delta, decode_token_event
from shared.log import get_logger
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, is_packed, unpack
from shared.records import Message
from shared.store_client import StoreClient
from shared.subjects import (
    EVENTS,
    Address,
    live_tokens_of_session,
    session_address,
    typing,
)

log = get_logger()

PAGE = 200
_MESSAGES = 1000
"""Messages of one answer of the store."""
_RETRY = 0.2


class Feed:
    """One watched session."""

    def __init__(self, bus: Bus, store: StoreClient, user: str, session_id: str) -> None:
        self.user = user
        self.session_id = session_id
        self.state = SessionState(session_id)
        self.watchers = Watchers[[]]()
        self.typing = TypingListeners()
        self._bus = bus
        self._store = store
        self._address = session_address(user, session_id)
        self._resources = AsyncExitStack()
        self._opened = False
        self._wanted = 0
        """The highest sequence that was heard of."""
        self._refilling: asyncio.Task[None] | None = None
        self._again = self._facts_due = False
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        """When something new was last heard of the running reply."""

    # -- opening ------------------------------------------------------------------

    async def open(self) -> None:
        """Subscribe, then read where the session stands: so nothing falls between.

        Raises:
            NotFound: the session is not there, or not this user's.
            Unavailable, BusError: the store or the log cannot be asked.
        """
        token_events = live_tokens_of_session(self.user, self.session_id)
        signals = typing(self.user, self.session_id)
        listening = await self._bus.listen_live(token_events, self.on_token_event)
        self._resources.push_async_callback(listening.close)
        listening = await self._bus.listen(signals, self.typing.on_signal)
        self._resources.push_async_callback(listening.close)
        opened = await self._store.ask(OpenFeed(user_id=self.user, session_id=self.session_id))
        self.state = SessionState(self.session_id, seq=opened.seq, unfinished=opened.unfinished)
        await self._read_facts()
        await self._read_text()
        self._opened = True
        if self._again or self._wanted > self.state.seq:
            self.refill()

    async def close(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        await self._resources.aclose()

    # -- what comes in live ---------------------------------------------------------

    def on_token_event(self, message: Incoming) -> None:
        """Take a delta (the gateway's hottest path)."""
        merged = self.state.merge(decode_token_event(message.data))
        if merged is Merge.GREW:
            self._heard_at = self._loop.time()
            self.watchers.wake()
        elif merged is Merge.GAP:
            self.refill()

    def on_fact(self, seq: int, subject: str, data: bytes) -> None:
        """Take a fact in its order; what is packed, or follows a gap, is read from the log."""
        self._wanted = max(self._wanted, seq)
        if not self._opened or self._refilling is not None or is_packed(data):
            self.refill()
            return
        entry = LogEntry.read(seq, subject, data)
        if entry.fact.prev > self.state.seq:  # its predecessor should be here
            self.refill()
            return
        self._apply(entry)
        self.watchers.wake()

    def miss(self, seq: int) -> None:
        """Have a fact read from the log, in order, because others before it may be lost."""
        self._wanted = max(self._wanted, seq)

    def _apply(self, entry: LogEntry) -> None:
        self.state.apply(entry)
        running = self.state.running
        if running is not None and entry.address.run == running.run_id:
            self._heard_at = self._loop.time()

    # -- what is read again -----------------------------------------------------------

    def refill(self, *, facts: bool = True) -> None:
        """Read from the log what is missing, in one task however often this is called."""
        self._again = True
        self._facts_due = self._facts_due or facts
        if self._opened and self._refilling is None:
            self._refilling = asyncio.create_task(self._refill(), name="feed-refill")

    def refill_after_outage(self) -> None:
        """Read again what an outage lost: deltas, and perhaps a fact since those handed in."""
        if self._wanted > self.state.seq:
            self.refill()
        elif self.state.running is not None:
            self.refill(facts=False)

    async def refilled(self) -> None:
        """Read whatever the log has beyond this feed, and wait for it."""
        self.refill()
        if self._refilling is not None:
            await asyncio.shield(self._refilling)

    async def _refill(self) -> None:
        try:
            while self._again or self._wanted > self.state.seq:
                facts, self._again, self._facts_due = self._facts_due, False, False
                try:
                    if facts or self._wanted > self.state.seq:
                        await self._read_facts()
                    await self._read_text()
                except BusError as error:
                    log.warning("feed.refill_failed", session_id=self.session_id, error=str(error))
                    self._again, self._facts_due = True, facts
                    await self._bus.wait_connected()
                    await asyncio.sleep(_RETRY)
                self.watchers.wake()
                if self._wanted > self.state.seq:  # a replica that lags, or a fact erased since
                    await asyncio.sleep(_RETRY)
                    self._wanted = min(self._wanted, await self._end())
        finally:
            self._refilling = None

    async def _end(self) -> int:
        head = await self._bus.head(EVENTS, self._address.session_facts)
        return head.seq if head else 0

    async def _read_facts(self) -> None:
        while True:
            stored = await self._bus.read(
                EVENTS, self._address.session_facts, after=self.state.seq, limit=PAGE
            )
            for entry in await self._entries(stored):
                self._apply(entry)
            if len(stored) < PAGE:
                return

    async def _read_text(self) -> None:
        running = self.state.running
        if running is None:
            return
        address = Address(self.user, self.session_id, running.run_id)
        written = await read_attempt(self._bus, address, running.attempt)
        # Deltas came in meanwhile: the same merge keeps what is longer.
        running.merge(Delta(attempt=running.attempt, offset=0, text=written.text))
        self._heard_at = self._loop.time()

    def is_silent(self, seconds: float) -> bool:
        """Whether a reply is being written, and nothing was heard of it for so long."""
        silence = self._loop.time() - self._heard_at
        return self.state.running is not None and silence > seconds

    async def check_silence(self) -> None:
        """Look whether a silent reply's chain went on without us."""
        running = self.state.running
        if running is None:
            return
        self._heard_at = self._loop.time()
        head = await self._bus.head(
            EVENTS, Address(self.user, self.session_id, running.run_id).facts
        )
        if head is not None and head.seq > self.state.seq:
            self._wanted = max(self._wanted, head.seq)
            self.refill()

    # -- what followers read (:class:`services.gateway.sessions.follower.SessionSource`) ---

    async def facts_after(self, seq: int) -> list[LogEntry]:
        """The next facts after ``seq``: from memory, or for those far behind from the log.

        Empty means that there is none up to the state's ``floor``.
        """
        if seq >= self.state.floor:
            return self.state.facts_after(seq)
        page = await self._store.ask(
            GetFacts(user_id=self.user, session_id=self.session_id, after=seq, limit=PAGE)
        )
        stored = [Stored(f.seq, f.subject, bytes(f.data)) for f in page.facts]
        if not stored:
            stored = await self._bus.read(
                EVENTS, self._address.session_facts, after=max(seq, page.upto), limit=PAGE
            )
        return [entry for entry in await self._entries(stored) if entry.seq <= self.state.seq]

    async def messages(self, at: int) -> list[Message]:
        """The active branch as it was when ``at`` was the last fact, asked of the store.

        What comes after that fact is shown when a client comes to it, so it must not be
        in here, however late the store answers.

        Raises:
            NotFound: the session is erased.
        """
        found: list[Message] = []
        while True:
            query = ListMessages(
                user_id=self.user,
                session_id=self.session_id,
                min_seq=at,
                at=at,
                limit=_MESSAGES,
                offset=len(found),
            )
            page = await self._store.ask(query)
            found += page.items
            if not page.items or len(found) >= page.total:
                return found

    async def message(self, message_id: str, seq: int) -> Message:
        """A message of any branch, as it was when ``seq`` was the last fact.

        Raises:
            NotFound: it was erased.
        """
        query = GetMessage(
            user_id=self.user,
            session_id=self.session_id,
            message_id=message_id,
            at=seq,
            min_seq=seq,
        )
        return (await self._store.ask(query)).message

    async def with_question(self, view: RunView) -> RunView:
        """The view with its user message, asked of the store when the fact did not repeat it.

        Only what is in a branch is answered anew, and that never changes: so it does not
        matter how far the store has got by now.

        Raises:
            NotFound: the session is erased.
        """
        if view.user_message is not None:
            return view
        query = GetMessage(
            user_id=self.user,
            session_id=self.session_id,
            message_id=view.user_message_id,
            min_seq=view.first_seq,
        )
        question = (await self._store.ask(query)).message
        return msgspec.structs.replace(view, user_message=question)

    async def run(self, run_id: str) -> RunView:
        """The view of a run that ended before anybody watched, asked of the store.

        Raises:
            NotFound: it was erased.
        """
        return view_of_run((await self._store.ask(GetRun(user_id=self.user, run_id=run_id))).run)

    async def _entries(self, stored: list[Stored]) -> list[LogEntry]:
        """The facts, unpacked; those that were erased meanwhile are left out."""
        found: list[LogEntry] = []
        for seq, subject, data in stored:
            try:
                found.append(LogEntry.read(seq, subject, await unpack(self._bus, data)))
            except ObjectMissing:
                log.info("feed.fact_erased", session_id=self.session_id, seq=seq)
        return found
