"""A recorded session's messages, from its facts alone: what the store would have answered then."""

import msgspec

from services.gateway.sessions.client_events import RunView, reply_of
from shared import conversation
from shared.errors import NotFound
from shared.events import (
    BranchChosen,
    History,
    MessageRated,
    RunEnded,
    RunWaiting,
    SessionCreated,
    TodoChat,
)
from shared.log_entry import LogEntry
from shared.records import Message
from shared.subjects import parse


class Remembered:
    """Every message so far, which branch is shown, and what waits."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._messages: dict[str, Message] = {}
        self._asked: dict[str, RunWaiting | TodoChat] = {}
        """Of each run that has not ended, its turn."""
        self._leaf: str | None = None

    def take(self, link: LogEntry) -> None:
        """Let a fact change the messages as it changes the store's."""
        run_id = parse(link.subject).run
        match link.fact:
            case SessionCreated(history=history) if history is not None:
                self._begin(history)
            case RunWaiting() | TodoChat(n=0) as fact:
                self._ask(run_id, fact)
            case RunEnded() as final if run_id in self._asked:
                self._end(run_id, self._asked.pop(run_id), final)
            case BranchChosen(leaf=leaf) if leaf in self._messages:
                self._leaf = leaf
            case MessageRated() as rated:
                self._rate(rated)
            case _:
                pass

    def find(self, message_id: str) -> Message | None:
        """One message, of whatever branch."""
        return self._messages.get(message_id)

    def shown(self) -> list[Message]:
        """The active branch, and then what waits."""
        branch: list[Message] = []
        leaf = self._leaf
        while leaf is not None and (message := self._messages.get(leaf)) is not None:
            branch.append(message)
            leaf = message.parent_id
        return branch[::-1] + [m for m in self._messages.values() if m.status == "waiting"]

    def message(self, message_id: str) -> Message:
        """A message of any branch.

        Raises:
            NotFound: there is none.
        """
        if message_id not in self._messages:
            raise NotFound("There is no such message.")
        return self._messages[message_id]

    def _begin(self, history: History) -> None:
        for past in history.messages:
            self._messages[past.id] = Message(
                id=past.id,
                session_id=self._session_id,
                parent_id=past.parent_id,
                role=past.role,
                content=past.content,
                tokens=past.tokens,
                latency_ms=past.latency_ms,
                created_at=past.created_at,
                status=past.status,
                feedback=past.feedback,
                attachments=past.attachments,
                model=past.model,
                run_id=None,
                stop_reason=conversation.stop_reason(past.status, past.stop_reason),
                thoughts=conversation.thoughts_text(past.thoughts),
            )
        self._leaf = history.leaf

    def _ask(self, run_id: str, fact: RunWaiting | TodoChat) -> None:
        turn, waits = fact.turn, isinstance(fact, RunWaiting)
        self._asked[run_id] = fact
        if turn.content is not None:
            before = self._messages.get(turn.user_message_id)
            self._messages[turn.user_message_id] = Message(
                id=turn.user_message_id,
                session_id=self._session_id,
                parent_id=None if waits else turn.parent_id,
                role="user",
                content=turn.content,
                tokens=None,
                latency_ms=None,
                created_at=fact.at if before is None else before.created_at,
                status="waiting" if waits else "completed",
                feedback=None,
                attachments=turn.attachments,
                model=None,
                run_id=run_id,
            )
        if not waits:
            going_on = turn.continues is not None  # its reply is there already
            self._leaf = turn.assistant_message_id if going_on else turn.user_message_id

    def _end(self, run_id: str, asked: RunWaiting | TodoChat, final: RunEnded) -> None:
        turn = asked.turn
        question = self._messages.get(turn.user_message_id)
        never_sent = isinstance(asked, RunWaiting)
        if never_sent and turn.content is not None and question is not None:
            unsent = msgspec.structs.replace(question, status="cancelled")
            self._messages[question.id] = unsent
        view = RunView(
            run_id=run_id,
            session_id=self._session_id,
            user_message_id=turn.user_message_id,
            assistant_message_id=turn.assistant_message_id,
            user_message=question,
            continues=turn.continues,
        )
        if turn.continues is not None:
            if conversation.grows(turn.continues, final):
                self._messages[turn.assistant_message_id] = reply_of(view, final)
            return
        self._messages[turn.assistant_message_id] = reply_of(view, final)
        if not never_sent and self._leaf == turn.user_message_id:
            self._leaf = turn.assistant_message_id

    def _rate(self, rated: MessageRated) -> None:
        message = self._messages.get(rated.message_id)
        if message is None:
            return
        said = {"rating": rated.rating, "comment": rated.comment}
        feedback = {name: value for name, value in said.items() if value is not None}
        self._messages[message.id] = msgspec.structs.replace(
            message, feedback=feedback if rated.rating else None
        )
