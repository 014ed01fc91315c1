"""A reply that was cut goes on: a new run, whose text is the whole of it.

Its message is another only once the run has ended well (:mod:`services.store.projection`).
Until then nothing may follow it, and nobody else may go on with it: so what the run
begins with is what the message has, whenever its turn comes.
"""

from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from services.store import queries
from services.store.keys import digest
from services.store.rows import MessageRow, RunRow, run_row
from services.store.schema import messages, runs
from services.store.session_log import SessionLog, SessionState
from services.store.turns import Turns
from shared.commands import Accepted, ContinueReply
from shared.errors import Conflict
from shared.events import Continued, Turn
from shared.settings import Settings

CUT = ("max_tokens", "max_length")
"""The stop reasons of replies that might have been longer."""


class Continuing:
    """The command that lets a reply go on."""

    def __init__(self, log: SessionLog, turns: Turns, settings: Settings) -> None:
        self._log = log
        self._turns = turns
        self._most = settings.max_reply

    async def continue_reply(self, request: ContinueReply) -> Accepted:
        """Accept a turn whose reply is there already, and is to be longer."""
        reply = await self._log.message(request.user_id, request.message_id)
        turn = Turn(
            user_message_id=reply.parent_id or "",
            assistant_message_id=reply.id,
            content=None,
            idempotency_key=request.idempotency_key,
            idempotency_digest=digest(request),
        )

        async def turn_in(state: SessionState) -> Turn:
            at = state.session.last_seq
            found = await self._log.read_at(at, find_reply, request.user_id, reply.id)
            self._check(found, state)
            return _turn(turn, found)

        return await self._turns.accept(
            request.user_id, reply.session_id, turn, turn_in, run_id=request.run_id
        )

    def _check(self, found: "Reply", state: SessionState) -> None:
        """Whether the reply can go on.

        Raises:
            Conflict: it cannot; the sentence says why.
        """
        reply = found.message
        if reply.role != "assistant":
            raise Conflict("Only a reply can go on; this message is yours.")
        if any(run.assistant_message_id == reply.id for run in state.unfinished):
            raise Conflict("This reply is being written; try again when it is complete.")
        if reply.status == "failed":
            raise Conflict("This reply failed; ask for it anew instead.")
        if reply.status == "completed" and reply.stop_reason not in CUT:
            raise Conflict("This reply is complete.")
        if not reply.content or reply.parent_id is None or reply.depth == 0:
            raise Conflict("There is nothing here to go on from; ask for the reply anew instead.")
        if len(reply.content.encode()) >= self._most:
            raise Conflict("This reply is as long as a reply may be.")
        waits = state.session.on_busy == "queue" and any(map(_will_follow, state.unfinished))
        if found.is_followed or waits:
            raise Conflict(
                "The conversation went on after this reply; only its last one can go on."
            )


def _will_follow(run: RunRow) -> bool:
    """Whether a message waits, to follow whatever is the last one then."""
    turn = run.turn
    return run.waiting and turn is not None and turn.content is not None and turn.edits is None


class Reply(NamedTuple):
    """A message that is to go on, what was asked for with it, and whether another follows it."""

    message: MessageRow
    turn: Turn | None
    """Of the run that wrote it; None where it was copied or imported."""
    is_followed: bool


def find_reply(connection: sa.Connection, user_id: str, message_id: str) -> Reply:
    message = queries.find_message(connection, user_id, message_id)
    run = connection.execute(sa.select(runs).where(runs.c.id == message.run_id)).one_or_none()
    following = sa.select(messages.c.id).where(
        messages.c.session_id == message.session_id, messages.c.parent_id == message.id
    )
    return Reply(
        message,
        None if run is None else run_row(run).turn,
        connection.execute(following.limit(1)).first() is not None,
    )


def _turn(turn: Turn, found: Reply) -> Turn:
    """The turn of the continuation: what was asked for with this reply alone counts again."""
    reply, first = found.message, found.turn or turn
    return msgspec.structs.replace(
        turn,
        model=first.model,
        temperature=first.temperature,
        max_tokens=first.max_tokens,
        system=first.system,
        notes=first.notes,
        context=first.context,
        continues=Continued(
            length=len(reply.content), tokens=reply.tokens, created_at=reply.created_at
        ),
    )
