"""Branches of a session: said in another way, copied into a session of their own, chosen, rated.

A session's messages are a tree.  Its active branch is the one that ends in
``active_leaf``; whatever is written next goes on from there.
"""

from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from services.store import file_queries, past, queries
from services.store.commands import Commands
from services.store.database import Database
from services.store.keys import digest
from services.store.rows import MessageRow, SessionRow, message_row
from services.store.schema import messages
from services.store.session_log import SessionLog, SessionState
from services.store.turns import Turns
from shared import ids
from shared.commands import (
    Accepted,
    ChooseBranch,
    EditMessage,
    ForkSession,
    GetMessage,
    GetSession,
    MessageAnswer,
    RateMessage,
    SessionAnswer,
)
from shared.errors import Conflict
from shared.events import BranchChosen, MessageRated, SessionCreated, Turn
from shared.records import HIDDEN_MODES
from shared.subjects import session_address


class Branches:
    """The commands on a session's branches."""

    def __init__(
        self, log: SessionLog, commands: Commands, turns: Turns, database: Database
    ) -> None:
        self._log = log
        self._commands = commands
        self._turns = turns
        self._database = database

    async def edit(self, request: EditMessage) -> Accepted:
        """Accept a turn beside the one that is edited; its reply is written like any other."""
        self._turns.check_length(request.content)
        old = await self._log.message(request.user_id, request.message_id)
        if old.role != "user":
            raise Conflict("Only what you said can be edited; ask for a reply anew instead.")
        if old.depth == 0:
            raise queries.never_sent()
        attached = old.attachments if request.attachments is None else request.attachments
        if request.attachments is not None:
            await self._database.read(
                file_queries.check_there, request.user_id, request.attachments
            )
        turn = Turn(
            user_message_id=ids.new_id(),
            assistant_message_id=ids.new_id(),
            content=request.content,
            parent_id=old.parent_id,
            attachments=attached,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            idempotency_key=request.idempotency_key,
            idempotency_digest=digest(request),
            edits=old.id,
        )

        async def turn_in(state: SessionState) -> Turn:
            del state  # wherever the session is by now, an edit stands beside the old message
            return turn

        return await self._turns.accept(
            request.user_id, old.session_id, turn, turn_in, run_id=request.run_id
        )

    async def fork(self, request: ForkSession) -> SessionAnswer:
        branch = await self._database.read(branch_up_to, request)
        session = branch.session
        fact = SessionCreated(
            at=ids.now(),
            title=session.title,
            mode="general" if session.mode in HIDDEN_MODES else session.mode,
            model=session.model,
            temperature=session.temperature,
            max_tokens=session.max_tokens,
            system_prompt=session.system_prompt,
            context_tags=session.context_tags,
            on_busy=session.on_busy,
            enable_tools=session.enable_tools,
            history=past.history_of(branch.messages),
        )
        return await self._commands.open_session(request.user_id, request.new_session_id, fact)

    async def choose(self, request: ChooseBranch) -> SessionAnswer:
        user, session_id = request.user_id, request.session_id

        async def attempt(state: SessionState) -> int:
            at = state.session.last_seq
            chosen = await self._log.read_at(at, branch_up_to, request)
            if state.unfinished:
                raise Conflict("A reply is being written here; try again when it is complete.")
            leaf = await self._database.read(leaf_below, chosen.messages[-1])
            if leaf != state.session.active_leaf:
                address = session_address(user, session_id)
                at = await self._log.append(address, BranchChosen(at=ids.now(), leaf=leaf), at)
            return at

        seq = await self._log.decide(user, session_id, attempt)
        query = GetSession(user_id=user, session_id=session_id)
        return await self._log.read_at(seq, queries.get_session, query)

    async def rate(self, request: RateMessage) -> MessageAnswer:
        rated = await self._log.message(request.user_id, request.message_id)
        if rated.role != "assistant":
            raise Conflict("Only a reply can be rated.")
        fact = MessageRated(
            at=ids.now(),
            message_id=rated.id,
            rating=request.rating,
            comment=request.comment if request.rating else None,
        )

        address = session_address(request.user_id, rated.session_id)

        async def attempt(state: SessionState) -> int:
            now = msgspec.structs.replace(fact, at=ids.now())
            return await self._log.append(address, now, state.session.last_seq)

        seq = await self._log.decide(request.user_id, rated.session_id, attempt)
        query = GetMessage(
            user_id=request.user_id, session_id=rated.session_id, message_id=rated.id
        )
        return await self._log.read_at(seq, queries.get_message, query)


# -- queries ------------------------------------------------------------------------


class Branch(NamedTuple):
    """A session, and its messages from the first to the one that was named."""

    session: SessionRow
    messages: list[MessageRow]


def branch_up_to(connection: sa.Connection, request: ForkSession | ChooseBranch) -> Branch:
    session = queries.find_session(connection, request.user_id, request.session_id)
    if not ids.is_id(request.message_id):
        raise queries.not_found("message")
    message = queries.find_message(connection, request.user_id, request.message_id)
    if message.session_id != session.id:
        raise queries.not_found("message")
    if message.depth == 0:
        raise Conflict("That message is in no branch: it waits, or was cancelled before its turn.")
    return Branch(session, branch_of(connection, message.id))


def branch_of(connection: sa.Connection, leaf: str | None) -> list[MessageRow]:
    """The messages from the first to this one."""
    return [message_row(row) for row in connection.execute(_BRANCH, {"leaf": leaf})]


def leaf_below(connection: sa.Connection, message: MessageRow) -> str:
    """The newest message that follows from this one, with none after it; itself when there is none.

    Each step of a branch is newer than the one before it, except for messages that
    were copied: those are told apart by their ids, which rise in the same order.
    """
    # One look at the session: a recursive query would look at all of it once a message.
    later = (
        sa.select(messages.c.id, messages.c.parent_id, messages.c.seq)
        .where(messages.c.session_id == message.session_id, messages.c.depth > message.depth)
        .order_by(messages.c.depth)
    )
    leaves = {message.id: message.seq}
    below = {message.id}
    for row in connection.execute(later):
        if row.parent_id in below:
            below.add(row.id)
            leaves.pop(row.parent_id, None)
            leaves[row.id] = row.seq
    return max(leaves, key=lambda leaf: (leaves[leaf], leaf))


def _branch() -> Any:
    """The messages from the first to ``leaf``."""
    walk = (
        sa.select(messages.c.id, messages.c.parent_id)
        .where(messages.c.id == sa.bindparam("leaf"))
        .cte("walk", recursive=True)
    )
    walk = walk.union_all(
        sa.select(messages.c.id, messages.c.parent_id).join(walk, messages.c.id == walk.c.parent_id)
    )
    return sa.select(messages).join(walk, walk.c.id == messages.c.id).order_by(messages.c.depth)


_BRANCH = _branch()
