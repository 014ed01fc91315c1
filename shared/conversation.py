"""A session's messages from its facts: a tree, and which of its branches is the active one.

One fold, for tables, live streams, recordings and stories (pure).  Whatever somebody is
shown of a session's messages is made here from the facts up to one of them, so that a
replay shows the same.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from shared.events import (
    AnyFact,
    BranchChosen,
    Continued,
    History,
    MessageRated,
    RunEnded,
    RunFact,
    RunWaiting,
    SessionCreated,
    TodoChat,
    Turn,
)
from shared.log_entry import LogEntry
from shared.message_state import UNSENT, MessageState, grows, past_message, reply, user_message
from shared.records import Message, MessageStatus
from shared.run_state import RunState, state_before

# -- the states --------------------------------------------------------------------------


class BranchState(msgspec.Struct, kw_only=True):
    """Which branch of a session is the active one, and what waits to follow it."""

    active_leaf: str | None = None
    """Its last message."""
    depth: int = 0
    """How many messages it has."""
    waiting: int = 0
    """User messages whose turn has not come."""
    last_message_at: datetime | None = None


class KnownMessages(Protocol):
    """The messages that a fact may refer to (:func:`referred` and :func:`changed` name them)."""

    def find(self, message_id: str) -> MessageState | None:
        """The message."""
        ...

    def depth_of(self, message_id: str) -> int | None:
        """How deep in its branch it is; None where nobody knows it."""
        ...


class Conversation:
    """A session's messages as of the facts that it was given, from the first on."""

    def __init__(self) -> None:
        self.branch = BranchState()
        self.messages: dict[str, MessageState] = {}
        """By their ids, in the order in which they came."""
        self.runs: dict[str, RunState] = {}

    def apply(self, entry: LogEntry) -> list[MessageState]:
        """Take in the next fact; answers the messages that are new since, or others."""
        fact = entry.fact
        if not isinstance(fact, RunFact):
            return self._keep(apply(self.branch, None, self, entry))
        run = state_before(self.runs, entry, fact)
        new = self._keep(apply(self.branch, run, self, entry))
        run.apply(entry.seq, fact)
        return new

    def _keep(self, new: list[MessageState]) -> list[MessageState]:
        self.messages |= {message.id: message for message in new}
        return new

    def find(self, message_id: str) -> MessageState | None:
        """A message of any branch."""
        return self.messages.get(message_id)

    def depth_of(self, message_id: str) -> int | None:
        message = self.messages.get(message_id)
        return None if message is None else message.depth

    def active_branch(self) -> list[MessageState]:
        """The active branch's messages from the first on, and then those that wait."""
        waiting = [each for each in self.messages.values() if each.status == "waiting"]
        return branch_to(self.messages, self.branch.active_leaf) + waiting

    def children(self, message_id: str) -> list[MessageState]:
        """The messages that follow this one, in as many branches."""
        return [each for each in self.messages.values() if each.parent_id == message_id]


def branch_to(messages: Mapping[str, MessageState], leaf: str | None) -> list[MessageState]:
    """The messages from the first to ``leaf``, as far as they are known."""
    found: list[MessageState] = []
    while leaf is not None and (message := messages.get(leaf)) is not None:
        found.append(message)
        leaf = message.parent_id
    return found[::-1]


# -- the fold ----------------------------------------------------------------------------


def apply(
    branch: BranchState, run: RunState | None, known: KnownMessages, entry: LogEntry
) -> list[MessageState]:
    """Change ``branch`` as the fact says; answers the messages that are new, or others.

    ``run`` is the run whose fact it is, as of the fact before; it is given the depth of the
    message that it answers.
    """
    match entry.fact:
        case SessionCreated(history=history) if history is not None:
            return _begin(branch, history, entry)
        case RunWaiting(turn=turn) if run is not None:
            return _wait(branch, run, turn, entry)
        case TodoChat(turn=turn) if run is not None:
            return _begin_turn(branch, run, turn, known, entry)
        case RunEnded() as final if run is not None and run.turn is not None:
            return _end(branch, run, run.turn, final, known, entry)
        case BranchChosen(leaf=leaf) if (depth := known.depth_of(leaf)) is not None:
            branch.active_leaf, branch.depth = leaf, depth
        case MessageRated() as rated:
            return _rate(rated, known, entry)
        case _:
            pass
    return []


def referred(fact: AnyFact) -> set[str]:
    """The messages whose depth :func:`apply` may have to know for this fact."""
    match fact:
        case TodoChat(turn=turn):
            parent = turn.user_message_id if turn.content is None else turn.parent_id
            return set() if parent is None else {parent}
        case BranchChosen(leaf=leaf):
            return {leaf}
        case _:
            return set()


def changed(fact: AnyFact, run: RunState | None) -> set[str]:
    """The messages that :func:`apply` may have to find for this fact, to make them others."""
    match fact:
        case MessageRated(message_id=rated):
            return {rated}
        case RunWaiting(turn=turn) | TodoChat(turn=turn):
            pass
        case RunEnded() if run is not None:
            turn = run.turn
        case _:
            return set()
    return {turn.assistant_message_id} if turn and turn.continues is not None else set()


def _begin(branch: BranchState, history: History, entry: LogEntry) -> list[MessageState]:
    """What a session is opened with; its messages come each after its parent."""
    found: dict[str, MessageState] = {}
    for past in history.messages:
        parent = found.get(past.parent_id or "")
        found[past.id] = past_message(past, parent, entry)
    leaf = found.get(history.leaf or "")
    if leaf is not None:
        branch.active_leaf, branch.depth = leaf.id, leaf.depth
    branch.last_message_at = max((each.created_at for each in found.values()), default=None)
    return list(found.values())


def _wait(branch: BranchState, run: RunState, turn: Turn, entry: LogEntry) -> list[MessageState]:
    if turn.content is None:
        return []
    branch.waiting += 1
    branch.last_message_at = entry.fact.at
    return [_user_message(run, turn, turn.content, entry, status="waiting")]


def _begin_turn(
    branch: BranchState, run: RunState, turn: Turn, known: KnownMessages, entry: LogEntry
) -> list[MessageState]:
    """A turn has come: its user message is the end of the active branch."""
    new: list[MessageState] = []
    if turn.content is None:
        depth = known.depth_of(turn.user_message_id)
        run.user_depth = 1 if depth is None else depth
    else:
        run.user_depth = (known.depth_of(turn.parent_id or "") or 0) + 1
        new = [_user_message(run, turn, turn.content, entry, depth=run.user_depth)]
        if run.waiting:
            branch.waiting -= 1
        else:
            branch.last_message_at = entry.fact.at
    branch.active_leaf, branch.depth = turn.user_message_id, run.user_depth
    if turn.continues is not None:  # its reply is there, and stays until it has grown
        branch.active_leaf, branch.depth = turn.assistant_message_id, run.user_depth + 1
    return new


def _end(
    branch: BranchState,
    run: RunState,
    turn: Turn,
    final: RunEnded,
    known: KnownMessages,
    entry: LogEntry,
) -> list[MessageState]:
    if turn.continues is not None:
        return _grow(branch, turn, turn.continues, final, known, entry)
    branch.last_message_at = final.at
    depth = 0 if run.waiting else run.user_depth + 1
    end = [_reply(turn, final, entry, depth=depth, seq=entry.seq)]
    if run.waiting and turn.content is not None:
        branch.waiting -= 1
        end.insert(0, _user_message(run, turn, turn.content, entry, status=UNSENT))
    if not run.waiting and branch.active_leaf == turn.user_message_id:
        branch.active_leaf, branch.depth = turn.assistant_message_id, depth
    return end


def _grow(
    branch: BranchState,
    turn: Turn,
    before: Continued,
    final: RunEnded,
    known: KnownMessages,
    entry: LogEntry,
) -> list[MessageState]:
    """A reply that went on takes the place of what it was."""
    old = known.find(turn.assistant_message_id)
    if old is None or old.session_id != entry.address.session:
        return []  # named by an import: no other session's message is touched
    if not grows(before, final):
        return []
    branch.last_message_at = final.at
    return [_reply(turn, final, entry, depth=old.depth, seq=old.seq)]


def _rate(rated: MessageRated, known: KnownMessages, entry: LogEntry) -> list[MessageState]:
    message = known.find(rated.message_id)
    if message is None or message.session_id != entry.address.session:
        return []
    given = {"rating": rated.rating, "comment": rated.comment}
    feedback = {name: value for name, value in given.items() if value is not None}
    return [msgspec.structs.replace(message, feedback=feedback if rated.rating else None)]


# -- the messages ------------------------------------------------------------------------


def _user_message(
    run: RunState,
    turn: Turn,
    content: str,
    entry: LogEntry,
    *,
    depth: int = 0,
    status: MessageStatus = "completed",
) -> MessageState:
    message = user_message(
        turn,
        content,
        session_id=entry.address.session,
        run_id=entry.address.run,
        created_at=run.created_at,
        status=status,
    )
    return _state(message, entry, depth=depth, seq=run.first_seq)


def _reply(turn: Turn, final: RunEnded, entry: LogEntry, *, depth: int, seq: int) -> MessageState:
    message = reply(
        final,
        message_id=turn.assistant_message_id,
        parent_id=turn.user_message_id,
        session_id=entry.address.session,
        run_id=entry.address.run,
        before=turn.continues,
    )
    state = _state(message, entry, depth=depth, seq=seq)
    state.thoughts, state.provider = final.thoughts, final.provider
    state.error = message.error or None
    return state


def _state(message: Message, entry: LogEntry, *, depth: int, seq: int) -> MessageState:
    fields: dict[str, Any] = msgspec.structs.asdict(message) | {"thoughts": None, "error": None}
    return MessageState(**fields, user_id=entry.address.user, depth=depth, seq=seq)
