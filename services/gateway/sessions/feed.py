"""A session's live tail, kept once and shared by all its clients (architecture.md, law 6).

A feed holds the latest facts and the text of the running reply.  It trusts no
delivery: what does not fit is read again from the log, in one task, and merged
so that nothing counts twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from services.gateway.sessions.client_events import RunView, view_of_turn, view_of_unfinished
from services.gateway.sessions.cursor import NOTHING_SEEN, Cursor
from services.gateway.sessions.typing_signals import TypingListeners
from shared.bus import Bus, BusError, Incoming, Listening, Stored
from shared.commands import GetFacts, GetMessage, ListMessages, OpenFeed
from shared.deltas import AttemptText, Merge, read_attempt
from shared.events import (
    Delta,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionDeleted,
    TodoChat,
    decode_token_event,
)
from shared.log import get_logger
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, is_packed, unpack
from shared.records import Message, Session
from shared.store_client import StoreClient
from shared.subjects import (
    EVENTS,
    Address,
    live_tokens_of_session,
    parse,
    session_address,
    typing,
)

log = get_logger()

KEPT_FACTS = 64
"""Facts that a feed keeps; a client further behind is served from the log."""
PAGE = 200
_MESSAGES = 1000
"""Messages of one answer of the store."""
_RETRY = 0.2

Wake = Callable[[], None]


class Running(AttemptText):
    """The reply that is being written."""

    __slots__ = ("heard", "run_id")

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(attempt)
        self.run_id = run_id
        self.heard = asyncio.get_running_loop().time()
        """When something new was last heard of it."""


class State(NamedTuple):
    """Where a session stood at one moment: what there is to be told before anything new."""

    place: Cursor
    unfinished: list[RunView]


class Feed:
    """One watched session: its latest facts, its running reply, who looks on.

    ``facts`` holds every fact of the session after ``floor``, up to ``seq``.
    """

    def __init__(self, bus: Bus, store: StoreClient, user: str, session_id: str) -> None:
        self.user = user
        self.session_id = session_id
        self.session: Session | None = None
        self.seq = self.floor = self.opened_at = 0
        self.facts: deque[LogEntry] = deque()
        self.runs: dict[str, RunView] = {}
        self.unfinished: dict[str, RunView] = {}
        self.running: Running | None = None
        self.gone = False
        self.watchers: set[Wake] = set()
        self.typists = TypingListeners()
        self._bus = bus
        self._store = store
        self._address = session_address(user, session_id)
        self._opened = False
        self._wanted = 0
        self._refilling: asyncio.Task[None] | None = None
        self._again = self._facts_due = False
        self._listening: list[Listening] = []

    # -- opening ------------------------------------------------------------------

    async def open(self) -> None:
        """Subscribe, then read where the session stands: so nothing falls between.

        Raises:
            NotFound: the session is not there, or not this user's.
            Unavailable, BusError: the store or the log cannot be asked.
        """
        token_events = live_tokens_of_session(self.user, self.session_id)
        signals = typing(self.user, self.session_id)
        self._listening.append(await self._bus.listen_live(token_events, self.on_token_event))
        self._listening.append(await self._bus.listen(signals, self.typists.on_signal))
        state = await self._store.ask(OpenFeed(user_id=self.user, session_id=self.session_id))
        self.session = state.session
        self.seq = self.floor = self.opened_at = state.seq
        for run in state.unfinished:
            view = view_of_unfinished(run)
            self.runs[view.run_id] = self.unfinished[view.run_id] = view
            if run.attempt:
                self.running = Running(run.run_id, run.attempt)
        await self._read_facts()
        await self._read_text()
        self._opened = True
        if self._again or self._wanted > self.seq:
            self.refill()

    async def close(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        for listening in self._listening:
            await listening.close()

    # -- what comes in live ---------------------------------------------------------

    def on_token_event(self, message: Incoming) -> None:
        """Take a delta (the gateway's hottest path)."""
        token_event = decode_token_event(message.data)
        if type(token_event) is not Delta:
            return
        running = self.running
        if running is None:
            if token_event.attempt > self.seq:  # its claim is not here yet
                self.refill()
            return
        merged = running.merge(token_event)
        if merged is Merge.GREW:
            running.heard = asyncio.get_running_loop().time()
            self.wake()
        elif merged is Merge.GAP:
            self.refill()

    def on_fact(self, seq: int, subject: str, data: bytes) -> None:
        """Take a fact in its order; what is packed, or follows a gap, is read from the log."""
        self._wanted = max(self._wanted, seq)
        if not self._opened or self._refilling is not None or is_packed(data):
            self.refill()
            return
        entry = LogEntry.read(seq, subject, data)
        if entry.fact.prev > self.seq:  # its predecessor should be here
            self.refill()
            return
        self._apply(entry)
        self.wake()

    def miss(self, seq: int) -> None:
        """A fact came while others may have been lost: take it from the log, in order."""
        self._wanted = max(self._wanted, seq)

    def wake(self) -> None:
        for wake in self.watchers:
            wake()

    def _apply(self, link: LogEntry) -> None:
        if link.seq <= self.seq:
            return
        self.seq = link.seq
        self.facts.append(link)
        run_id = parse(link.subject).run
        match link.fact:
            case RunWaiting() | TodoChat(n=0) as fact:
                self.runs[run_id] = self.unfinished[run_id] = view_of_turn(
                    fact,
                    run_id=run_id,
                    session_id=self.session_id,
                    seq=link.seq,
                    before=self.runs.get(run_id),
                )
            case RunClaimed():
                self.running = Running(run_id, link.seq)
            case RunEnded():
                self.unfinished.pop(run_id, None)
                if self.running is not None and self.running.run_id == run_id:
                    self.running = None
            case SessionDeleted():
                self.gone = True
            case _:
                pass
        self._forget()

    def _forget(self) -> None:
        while len(self.facts) > KEPT_FACTS:
            oldest = self.facts.popleft()
            self.floor = oldest.seq
            if isinstance(oldest.fact, RunEnded):
                self.runs.pop(parse(oldest.subject).run, None)

    # -- what is read again -----------------------------------------------------------

    def refill(self, *, facts: bool = True) -> None:
        """Read from the log what is missing, in one task however often this is called."""
        self._again = True
        self._facts_due = self._facts_due or facts
        if self._opened and self._refilling is None:
            self._refilling = asyncio.create_task(self._refill(), name="feed-refill")

    def refill_after_outage(self) -> None:
        """The missed facts were handed in; deltas were lost, and perhaps a fact since."""
        if self._wanted > self.seq:
            self.refill()
        elif self.running is not None:
            self.refill(facts=False)

    async def refilled(self) -> None:
        """Read whatever the log has beyond this feed, and wait for it."""
        self.refill()
        if self._refilling is not None:
            await asyncio.shield(self._refilling)

    async def _refill(self) -> None:
        try:
            while self._again or self._wanted > self.seq:
                facts, self._again, self._facts_due = self._facts_due, False, False
                try:
                    if facts or self._wanted > self.seq:
                        await self._read_facts()
                    await self._read_text()
                except BusError as error:
                    log.warning("feed.refill_failed", session_id=self.session_id, error=str(error))
                    self._again, self._facts_due = True, facts
                    await self._bus.wait_connected()
                    await asyncio.sleep(_RETRY)
                self.wake()
                if self._wanted > self.seq:  # a replica that lags, or a fact erased since
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
                EVENTS, self._address.session_facts, after=self.seq, limit=PAGE
            )
            for link in await self.links(stored):
                self._apply(link)
            if len(stored) < PAGE:
                return

    async def _read_text(self) -> None:
        running = self.running
        if running is None:
            return
        address = Address(self.user, self.session_id, running.run_id)
        written = await read_attempt(self._bus, address, running.attempt)
        # Deltas came in meanwhile: the same merge keeps what is longer.
        running.merge(Delta(attempt=running.attempt, offset=0, text=written.text))
        running.heard = asyncio.get_running_loop().time()

    async def check_silence(self) -> None:
        """A running reply says nothing: look whether its chain went on without us."""
        running = self.running
        if running is None:
            return
        running.heard = asyncio.get_running_loop().time()
        facts = Address(self.user, self.session_id, running.run_id).facts
        head = await self._bus.head(EVENTS, facts)
        if head is not None and head.seq > self.seq:
            self._wanted = max(self._wanted, head.seq)
            self.refill()

    def has(self, place: Cursor, run_id: str | None = None) -> bool:
        """Whether a client (of one run) can go on from ``place``: it is of this history."""
        running = self.running
        if place.seq > self.seq or place == NOTHING_SEEN:
            return False
        if running is None or place.seq < running.attempt:
            return True
        if run_id not in (None, running.run_id):
            return True
        return place.attempt == running.attempt

    # -- what clients read --------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands now."""
        place = Cursor(self.seq, self.running.attempt if self.running else 0)
        return State(place, list(self.unfinished.values()))

    async def facts_after(self, seq: int) -> list[LogEntry]:
        """The next facts after ``seq``: from memory, or for those far behind from the log.

        Empty means that there is none up to ``floor``.
        """
        if seq >= self.floor:
            return [link for link in self.facts if link.seq > seq]
        page = await self._store.ask(
            GetFacts(user_id=self.user, session_id=self.session_id, after=seq, limit=PAGE)
        )
        stored = [Stored(f.seq, f.subject, bytes(f.data)) for f in page.facts]
        if not stored:
            stored = await self._bus.read(
                EVENTS, self._address.session_facts, after=max(seq, page.upto), limit=PAGE
            )
        return [link for link in await self.links(stored) if link.seq <= self.seq]

    async def messages(self, at: int) -> list[Message]:
        """The active branch as it was when ``at`` was the last fact, asked of the store.

        What comes after that fact is told when a client comes to it, so it must not be
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

    async def links(self, stored: list[Stored]) -> list[LogEntry]:
        """The facts, unpacked; those that were erased meanwhile are left out."""
        found: list[LogEntry] = []
        for seq, subject, data in stored:
            try:
                found.append(LogEntry.read(seq, subject, await unpack(self._bus, data)))
            except ObjectMissing:
                log.info("feed.fact_erased", session_id=self.session_id, seq=seq)
        return found
