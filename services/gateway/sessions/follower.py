"""One client's cursor in a session, and what is new to it since (architecture.md, *Cursors*)."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, Protocol

from services.gateway.sessions.client_events import (
    ClientEvent,
    MessagesChanged,
    ReplyDue,
    ReplyEnded,
    ReplyReset,
    RunView,
    SessionChanged,
    SessionGone,
    TextAdded,
    ThoughtsAdded,
    TurnAccepted,
    reply_of,
    view_of_turn,
)
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.state import SessionState
from services.gateway.sessions.watchers import Watchers
from shared.errors import NotFound
from shared.events import (
    BranchChosen,
    Fact,
    MessageRated,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
)
from shared.log_entry import LogEntry
from shared.message_state import grows
from shared.records import Message

ClientEvents = list[tuple[Cursor, ClientEvent]]
"""Each event with the cursor of a client that has seen it."""


class SessionSource(Protocol):
    """A session that can be followed: its state, and what a follower reads beyond that.

    Live it is a feed, which reads the log and asks the store; of a recording, the
    recording itself.
    """

    @property
    def state(self) -> SessionState: ...

    @property
    def watchers(self) -> Watchers[[]]:
        """Called whenever there may be something new."""
        ...

    async def facts_after(self, seq: int) -> list[LogEntry]:
        """The next facts; empty when there is none up to the state's ``floor``."""
        ...

    async def messages(self, at: int) -> list[Message]:
        """The active branch as it was when ``at`` was the last fact."""
        ...

    async def message(self, message_id: str, seq: int) -> Message:
        """A message of any branch, as it was when ``seq`` was the last fact."""
        ...

    async def with_question(self, view: RunView) -> RunView:
        """The view with the message that its run answers."""
        ...

    async def run(self, run_id: str) -> RunView:
        """The view of a run that the state does not know any more."""
        ...


class Follower:
    """Walks a session from a cursor onwards; with ``run_id`` it sees nothing but that run.

    ``shows_branches``: whether it says what is shown when another branch is; that is
    a question to the store, so only where the dialect has a frame for it.
    """

    def __init__(
        self,
        source: SessionSource,
        cursor: Cursor,
        *,
        run_id: str | None = None,
        shows_branches: bool = False,
    ) -> None:
        self.source = source
        self.cursor = cursor
        self._run_id = run_id
        self._shows_branches = shows_branches
        self._runs: dict[str, RunView] = {}
        self._sent_again: list[tuple[int, str | None]] = []

    def send_again(self, first_seq: int, client_id: str | None) -> None:
        """The client sent a message that is there already: bring it up to date.

        A message whose run begins (``first_seq``) behind the client's cursor comes by
        itself.  For any other the messages are shown as they are at that cursor: so no
        reply is begun twice, and whatever is being written goes on.
        """
        self._sent_again.append((first_seq, client_id))

    @property
    def is_behind(self) -> bool:
        """Whether there are facts that the client has not seen."""
        return self.cursor.seq < self.source.state.seq

    async def next_events(self) -> ClientEvents:
        """What is new, in order; empty when the client has seen everything.

        The text of the running reply is one piece however often it grew, so a
        client that reads slowly gets fewer and larger ones.

        Raises:
            NatterlogError, BusError: old facts could not be read.
        """
        found: ClientEvents = []
        with suppress(NotFound):  # the session is erased, and that comes next
            await self._answer_sent_again(found)
        while not found and self.is_behind:
            entries = await self.source.facts_after(self.cursor.seq)
            for entry in entries:
                with suppress(NotFound):  # as above
                    await self._show(entry, found)
                self._move_to(entry.seq)
            if not entries:
                self._move_to(max(self.cursor.seq, self.source.state.floor))
        if self.cursor.seq == self.source.state.seq:
            self._show_new_text(found)
        return found

    def new_text(self) -> ClientEvents:
        """What is new of the running reply's text; nothing where there is more to show.

        The way of nearly every token: it waits for nobody, and needs no task.
        """
        found: ClientEvents = []
        if self.cursor.seq == self.source.state.seq and not self._sent_again:
            self._show_new_text(found)
        return found

    async def _answer_sent_again(self, found: ClientEvents) -> None:
        while self._sent_again:
            first_seq, client_id = self._sent_again.pop(0)
            if first_seq <= self.cursor.seq:
                await self._show_messages(self.cursor.seq, found, client_id=client_id)

    def _show_new_text(self, found: ClientEvents) -> None:
        running = self.source.state.running
        if running is None or self._run_id not in (None, running.run_id):
            return
        cursor, text = self.cursor, running.text
        if running.attempt == cursor.attempt and len(text) > cursor.offset:
            self.cursor = Cursor(cursor.seq, cursor.attempt, len(text))
            found.append((self.cursor, TextAdded(text, cursor.offset)))

    async def _show(self, entry: LogEntry, found: ClientEvents) -> None:
        """Show one fact and move the cursor behind it."""
        fact = entry.fact
        react = self.FACTS.get(type(fact))
        is_other_run = self._run_id not in (None, entry.address.run)
        if react is None or (is_other_run and not isinstance(fact, SessionDeleted)):
            self._move_to(entry.seq)
        else:
            await react(self, entry, fact, found)

    async def show_claim(self, entry: LogEntry, _: RunClaimed, found: ClientEvents) -> None:
        shown = self.cursor.offset > 0
        self.cursor = Cursor(entry.seq, entry.seq, 0)
        if shown:
            found.append((self.cursor, ReplyReset()))

    async def show_change(
        self, entry: LogEntry, change: SessionUpdated, found: ClientEvents
    ) -> None:
        self._append(entry.seq, SessionChanged(change), found)

    async def show_branch(
        self, entry: LogEntry, _: BranchChosen | MessageRated, found: ClientEvents
    ) -> None:
        self._move_to(entry.seq)
        if self._shows_branches:
            await self._show_messages(entry.seq, found)

    async def show_gone(self, entry: LogEntry, _: SessionDeleted, found: ClientEvents) -> None:
        self._append(entry.seq, SessionGone(), found)

    async def _show_messages(
        self, at: int, found: ClientEvents, *, client_id: str | None = None
    ) -> None:
        """Show the messages as they are after the fact ``at``.

        Of a new turn they are shown before the turn, so that they come again with it.
        """
        messages = await self.source.messages(at)
        found.append((self.cursor, MessagesChanged(messages, client_id)))

    def _move_to(self, seq: int) -> None:
        self.cursor = self.cursor._replace(seq=seq)

    def _append(self, seq: int, event: ClientEvent, found: ClientEvents) -> None:
        self._move_to(seq)
        found.append((self.cursor, event))

    async def show_turn(
        self, entry: LogEntry, fact: RunWaiting | TodoChat, found: ClientEvents
    ) -> None:
        run_id, state = entry.address.run, self.source.state
        known = self._runs.get(run_id) or state.runs.get(run_id)
        if isinstance(fact, TodoChat) and fact.n:
            self._move_to(entry.seq)
            return
        first = isinstance(fact, RunWaiting) or await self._is_first(entry, known)
        before = None if first else known
        view = view_of_turn(
            fact, run_id=run_id, session_id=state.session_id, seq=entry.seq, before=before
        )
        self._runs[run_id] = view = await self.source.with_question(view)
        if view.branches and self._shows_branches and not view.waiting:
            await self._show_messages(entry.seq, found)
        self._append(entry.seq, TurnAccepted(view) if first else ReplyDue(view), found)

    async def _is_first(self, entry: LogEntry, known: RunView | None) -> bool:
        """Whether this todo is the run's acceptance, or its turn had to wait before."""
        if known is not None and (known.first_seq or entry.seq > self.source.state.opened_at):
            return known.first_seq == entry.seq
        return (await self.source.run(entry.address.run)).first_seq == entry.seq

    async def show_end(self, entry: LogEntry, final: RunEnded, found: ClientEvents) -> None:
        """Heal from the final: the rest of its text, or all of it after a reset."""
        seq, run_id = entry.seq, entry.address.run
        run = self._runs.pop(run_id, None) or self.source.state.runs.get(run_id)
        run = run or await self.source.run(run_id)
        message = await self._reply(seq, run, final)
        cursor, text = self.cursor, message.content
        if cursor.offset and (cursor.attempt != final.attempt or cursor.offset > len(text)):
            cursor = Cursor(cursor.seq, final.attempt, 0)
            found.append((cursor, ReplyReset()))
        if len(text) > cursor.offset:
            shown = cursor.offset
            cursor = Cursor(cursor.seq, final.attempt, len(text))
            found.append((cursor, TextAdded(text, shown)))
        if message.thoughts is not None and final.status != "failed":
            # At the cursor before: who is cut off behind it must still be shown the end.
            found.append((cursor, ThoughtsAdded(message.thoughts)))
        self.cursor = Cursor(seq)
        found.append((self.cursor, ReplyEnded(run, final, message)))

    async def _reply(self, seq: int, run: RunView, final: RunEnded) -> Message:
        """The reply as it is since; one that a cancel left as it was is not in its run."""
        before = run.continues
        if before is None or final.status != "cancelled" or grows(before, final):
            return reply_of(run, final)
        try:
            return await self.source.message(run.assistant_message_id, seq)
        except NotFound:  # erased with its session, which is shown next
            return reply_of(run, final)

    FACTS: ClassVar[dict[type[Fact], Callable[..., Awaitable[None]]]] = {
        RunWaiting: show_turn,
        TodoChat: show_turn,
        RunClaimed: show_claim,
        RunEnded: show_end,
        SessionUpdated: show_change,
        BranchChosen: show_branch,
        MessageRated: show_branch,
        SessionDeleted: show_gone,
    }
    """What clients are shown; all other facts are passed by."""
