"""One client's place in a session, and what is new to it since (architecture.md, *Cursors*)."""

from contextlib import suppress

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
    view_of_run,
    view_of_turn,
)
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
from shared.commands import GetRun
from shared.conversation import grows
from shared.errors import NotFound
from shared.events import (
    BranchChosen,
    MessageRated,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
)
from shared.log_entry import LogEntry
from shared.records import Message
from shared.store_client import StoreClient
from shared.subjects import parse

ClientEvents = list[tuple[Cursor, ClientEvent]]
"""Each moment with the place of a client that has seen it."""


class Follower:
    """Walks a feed from a place onwards; with ``run_id`` it sees nothing but that run.

    ``tells_branches``: whether it says what is shown when another branch is; that is
    a question to the store, so only where the dialect has a word for it.
    """

    def __init__(
        self,
        feed: Feed,
        store: StoreClient,
        place: Cursor,
        *,
        run_id: str | None = None,
        tells_branches: bool = False,
    ) -> None:
        self.feed = feed
        self.place = place
        self._store = store
        self._run_id = run_id
        self._tells_branches = tells_branches
        self._runs: dict[str, RunView] = {}
        self._sent_again: list[tuple[int, str | None]] = []

    def send_again(self, first_seq: int, client_id: str | None) -> None:
        """The client sent a message that is there already: bring it up to date.

        A message whose run begins (``first_seq``) behind the client's place comes by
        itself.  For any other the messages are told as they are at that place: so no
        reply is begun twice, and whatever is being written goes on.
        """
        self._sent_again.append((first_seq, client_id))

    async def news(self) -> ClientEvents:
        """What is new, in order; empty when the client has seen everything.

        The text of the running reply is one piece however often it grew, so a
        client that reads slowly gets fewer and larger ones.

        Raises:
            NatterlogError, BusError: old facts could not be read.
        """
        found: ClientEvents = []
        with suppress(NotFound):  # the session is erased, and that comes next
            await self._answer_sent_again(found)
        while not found and self.place.seq < self.feed.seq:
            links = await self.feed.facts_after(self.place.seq)
            for link in links:
                with suppress(NotFound):  # as above
                    await self._pass(link, found)
                self.place = self.place._replace(seq=link.seq)
            if not links:
                self.place = self.place._replace(seq=max(self.place.seq, self.feed.floor))
        if self.place.seq == self.feed.seq:
            self._tail(found)
        return found

    async def _answer_sent_again(self, found: ClientEvents) -> None:
        while self._sent_again:
            first_seq, client_id = self._sent_again.pop(0)
            if first_seq <= self.place.seq:
                await self._tell_messages(self.place.seq, found, client_id=client_id)

    def _tail(self, found: ClientEvents) -> None:
        running = self.feed.running
        if running is None or self._run_id not in (None, running.run_id):
            return
        place, text = self.place, running.text
        if running.attempt == place.attempt and len(text) > place.offset:
            self.place = Cursor(place.seq, place.attempt, len(text))
            found.append((self.place, TextAdded(text, place.offset)))

    async def _pass(self, link: LogEntry, found: ClientEvents) -> None:
        """Show one fact and stand behind it."""
        run_id = parse(link.subject).run
        if self._run_id not in (None, run_id) and not isinstance(link.fact, SessionDeleted):
            self.place = self.place._replace(seq=link.seq)
            return
        match link.fact:
            case RunWaiting() | TodoChat() as fact:
                await self._turn(link, fact, run_id, found)
            case RunClaimed():
                shown = self.place.offset > 0
                self.place = Cursor(link.seq, link.seq, 0)
                if shown:
                    found.append((self.place, ReplyReset()))
            case RunEnded() as final:
                await self._end(link.seq, final, run_id, found)
            case SessionUpdated() as change:
                self._stand(link.seq, SessionChanged(change), found)
            case BranchChosen() | MessageRated() if self._tells_branches:
                self.place = self.place._replace(seq=link.seq)
                await self._tell_messages(link.seq, found)
            case SessionDeleted():
                self._stand(link.seq, SessionGone(), found)
            case _:
                self.place = self.place._replace(seq=link.seq)

    async def _tell_messages(
        self, at: int, found: ClientEvents, *, client_id: str | None = None
    ) -> None:
        """Say what is shown after the fact ``at``.

        Of a new turn it is said before the turn, so that it comes again with it.
        """
        messages = await self.feed.messages(at)
        found.append((self.place, MessagesChanged(messages, client_id)))

    def _stand(self, seq: int, moment: ClientEvent, found: ClientEvents) -> None:
        self.place = self.place._replace(seq=seq)
        found.append((self.place, moment))

    async def _turn(
        self, link: LogEntry, fact: RunWaiting | TodoChat, run_id: str, found: ClientEvents
    ) -> None:
        known = self._runs.get(run_id) or self.feed.runs.get(run_id)
        if isinstance(fact, TodoChat) and fact.n:
            self.place = self.place._replace(seq=link.seq)
            return
        first = isinstance(fact, RunWaiting) or await self._is_first(link, run_id, known)
        before = None if first else known
        view = view_of_turn(
            fact, run_id=run_id, session_id=self.feed.session_id, seq=link.seq, before=before
        )
        self._runs[run_id] = view = await self.feed.with_question(view)
        if view.branches and self._tells_branches and not view.waiting:
            await self._tell_messages(link.seq, found)
        self._stand(link.seq, TurnAccepted(view) if first else ReplyDue(view), found)

    async def _is_first(self, link: LogEntry, run_id: str, known: RunView | None) -> bool:
        """Whether this todo is the run's acceptance, or its turn had to wait before."""
        if known is not None and (known.first_seq or link.seq > self.feed.opened_at):
            return known.first_seq == link.seq
        return (await self._ask_run(run_id)).first_seq == link.seq

    async def _end(self, seq: int, final: RunEnded, run_id: str, found: ClientEvents) -> None:
        """Heal from the final: the rest of its text, or all of it after a reset."""
        run = self._runs.pop(run_id, None) or self.feed.runs.get(run_id)
        run = run or await self._ask_run(run_id)
        message = await self._reply(seq, run, final)
        place, text = self.place, message.content
        if place.offset and (place.attempt != final.attempt or place.offset > len(text)):
            place = Cursor(place.seq, final.attempt, 0)
            found.append((place, ReplyReset()))
        if len(text) > place.offset:
            shown = place.offset
            place = Cursor(place.seq, final.attempt, len(text))
            found.append((place, TextAdded(text, shown)))
        if message.thoughts is not None and final.status != "failed":
            # At the place before: who is cut off behind it must still be told the end.
            found.append((place, ThoughtsAdded(message.thoughts)))
        self.place = Cursor(seq)
        found.append((self.place, ReplyEnded(run, final, message)))

    async def _reply(self, seq: int, run: RunView, final: RunEnded) -> Message:
        """The reply as it is since; one that a cancel left as it was is not in its run."""
        before = run.continues
        if before is None or final.status != "cancelled" or grows(before, final):
            return reply_of(run, final)
        try:
            return await self.feed.message(run.assistant_message_id, seq)
        except NotFound:  # erased with its session, which is told next
            return reply_of(run, final)

    async def _ask_run(self, run_id: str) -> RunView:
        answer = await self._store.ask(GetRun(user_id=self.feed.user, run_id=run_id))
        return view_of_run(answer.run)
