"""What a client is shown of a session, in no dialect yet.

A follower (:mod:`services.gateway.sessions.follower`) turns facts and deltas into
client events, and decides there, once for every dialect, what must be shown anew.  A
dialect turns them into its own frames and decides nothing.
"""

import hashlib

import msgspec

from shared import message_state
from shared.commands import UnfinishedRun
from shared.events import Continued, RunEnded, RunWaiting, SessionUpdated, TodoChat
from shared.records import Message, Run


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a run while its session is watched."""

    run_id: str
    session_id: str
    user_message_id: str
    assistant_message_id: str
    user_message: Message | None
    """None while unknown: a reply that is asked for anew does not repeat the question."""
    client_id: str | None = None
    regenerated: bool = False
    branches: bool = False
    """Whether the reply goes on from somewhere else than where the conversation ended."""
    first_seq: int = 0
    """The sequence of the run's first fact, 0 when it is not known."""
    waiting: bool = False
    continues: Continued | None = None
    """What the reply had, where it was there before and goes on: its text is the whole of it."""


class TurnAccepted(msgspec.Struct, frozen=True, gc=False):
    """A user message is in the log; its ``run`` may be waiting for another."""

    run: RunView


class ReplyDue(msgspec.Struct, frozen=True, gc=False):
    """A turn that had to wait is next."""

    run: RunView


class TextAdded(msgspec.Struct, frozen=True, gc=False):
    """The reply grew: ``text`` is all of it, ``text[offset:]`` is new."""

    text: str
    offset: int


class ReplyReset(msgspec.Struct, frozen=True, gc=False):
    """The text shown so far is void: the reply starts over."""


class ThoughtsAdded(msgspec.Struct, frozen=True, gc=False):
    """What the model thought before it answered: all of it, just before the end."""

    text: str


class ReplyEnded(msgspec.Struct, frozen=True, gc=False):
    """The reply is over; its text was shown up to the last character."""

    run: RunView
    final: RunEnded
    message: Message
    """The reply as it is since; where the run failed, nobody's but the run's."""

    @property
    def sha256(self) -> str:
        """Of the message's text: the run's own, unless its end left the message as it was."""
        if self.message.content == self.final.text:
            return self.final.sha256
        return hashlib.sha256(self.message.content.encode()).hexdigest()


class SessionChanged(msgspec.Struct, frozen=True, gc=False):
    """Some of the session's own fields changed."""

    change: SessionUpdated


class MessagesChanged(msgspec.Struct, frozen=True, gc=False):
    """Another branch is shown, or a message is another than before: these are all of them now."""

    messages: list[Message]
    client_id: str | None = None
    """Set where a message of the client's came again: this is what became of it."""


class SessionGone(msgspec.Struct, frozen=True, gc=False):
    """The session was erased: nothing more will come."""


ClientEvent = (
    TurnAccepted
    | ReplyDue
    | TextAdded
    | ReplyReset
    | ThoughtsAdded
    | ReplyEnded
    | SessionChanged
    | MessagesChanged
    | SessionGone
)


# -- where views come from ------------------------------------------------------


def view_of_turn(
    fact: RunWaiting | TodoChat,
    *,
    run_id: str,
    session_id: str,
    seq: int,
    before: RunView | None = None,
) -> RunView:
    """The view of a run after this fact; ``before`` is what was known of it."""
    turn, waiting = fact.turn, isinstance(fact, RunWaiting)
    message = None if before is None else before.user_message
    created_at = fact.at if message is None else message.created_at
    if turn.content is not None:
        message = message_state.user_message(
            turn,
            turn.content,
            session_id=session_id,
            run_id=run_id,
            created_at=created_at,
            status="waiting" if waiting else "completed",
        )
    return RunView(
        run_id=run_id,
        session_id=session_id,
        user_message_id=turn.user_message_id,
        assistant_message_id=turn.assistant_message_id,
        user_message=message,
        client_id=turn.client_id,
        regenerated=turn.content is None,
        branches=turn.content is None or turn.edits is not None,
        first_seq=seq if before is None else before.first_seq,
        waiting=waiting,
        continues=turn.continues,
    )


def view_of_unfinished(run: UnfinishedRun) -> RunView:
    """The view of a run that began before anybody watched."""
    return RunView(
        run_id=run.run_id,
        session_id=run.user_message.session_id,
        user_message_id=run.user_message.id,
        assistant_message_id=run.assistant_message_id,
        user_message=run.user_message,
        waiting=run.waiting,
        continues=run.continues,
    )


def view_of_run(run: Run) -> RunView:
    """The view of a reply that ended before anybody watched (jobs have no messages)."""
    return RunView(
        run_id=run.id,
        session_id=run.session_id,
        user_message_id=run.user_message_id or "",
        assistant_message_id=run.assistant_message_id or "",
        user_message=None,
        first_seq=run.first_seq,
        continues=run.continues,
    )


def reply_of(run: RunView, final: RunEnded) -> Message:
    """The reply as the store keeps it once it has applied ``final`` and that changed it."""
    return message_state.reply(
        final,
        message_id=run.assistant_message_id,
        parent_id=run.user_message_id,
        session_id=run.session_id,
        run_id=run.run_id,
        before=run.continues,
    )


def question_of(run: RunView) -> Message | None:
    """The user's message as it is once its run has ended; None when it is not known."""
    if run.user_message is None or run.regenerated or not run.waiting:
        return run.user_message
    return msgspec.structs.replace(run.user_message, status=message_state.UNSENT)
