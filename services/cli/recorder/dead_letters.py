"""Dead letters: read them, see what has become of their runs, and retry their work.

A todo that nobody can handle becomes a dead letter, and its run ends as failed.  To retry
it is to request the work anew: a reply by answering its message again, as its user would;
a job by a new one with the same plan and file.  Every request has a key or an id that is
derived from the letter, so that a second retry does nothing more.
"""

from collections.abc import AsyncGenerator
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.repeat_job import repeat_job
from shared.bus import Bus
from shared.commands import ContinueReply, CreateJob, ListMessages, Regenerate, SendMessage
from shared.consumer import DeadLetter
from shared.errors import Conflict, NotFound
from shared.events import (
    RunEnded,
    RunScheduled,
    RunWaiting,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
)
from shared.inspection import FindSessions
from shared.log_entry import LogEntry
from shared.objects import erase_message
from shared.store_client import StoreClient
from shared.streams import DEAD
from shared.subjects import parse

_SPACE = UUID("0d1f0d9c-6f6e-5c3a-9d7e-3a1f5be0c001")


class StoredLetter(NamedTuple):
    """A dead letter with its sequence in DEAD, which is its number for operators."""

    number: int
    letter: DeadLetter

    @property
    def run_id(self) -> str:
        return parse(self.letter.subject).run

    def derived_id(self, purpose: str) -> str:
        """An id for this purpose, always the same one for the same letter."""
        letter = self.letter
        return str(uuid5(_SPACE, f"{letter.subject} {letter.seq} {letter.at} {purpose}"))


class Case(NamedTuple):
    """A letter with the facts of its run; ``obstacle`` is why it cannot be retried."""

    letter: StoredLetter
    facts: list[LogEntry]
    final: RunEnded | None
    obstacle: str | None

    @property
    def state(self) -> str:
        if self.final is not None:
            return self.final.status
        return "unfinished" if self.facts else "gone"


async def dead_letters(bus: Bus) -> AsyncGenerator[StoredLetter]:
    """Every dead letter, the oldest first.

    Raises:
        BusError: they could not be read.
    """
    after = 0
    while batch := await bus.read(DEAD, "dead.>", after=after):
        for stored in batch:
            after = stored.seq
            yield StoredLetter(stored.seq, msgspec.json.decode(stored.data, type=DeadLetter))


async def find_letter(bus: Bus, number: int) -> StoredLetter:
    """The letter of that number.

    Raises:
        NotFound: there is none.
    """
    async for letter in dead_letters(bus):
        if letter.number == number:
            return letter
    raise NotFound(f"There is no dead letter {number}; `natterlog dead ls` shows those there are.")


async def case_of(log: RecordedLog, letter: StoredLetter) -> Case:
    """A letter with what has become of its run."""
    address = parse(letter.letter.subject)
    facts = [
        fact
        async for fact in log.session_facts(address.session)
        if fact.address.run == letter.run_id
    ]
    final = next((f.fact for f in facts if isinstance(f.fact, RunEnded)), None)
    return Case(letter, facts, final, _obstacle(facts, final))


def _obstacle(facts: list[LogEntry], final: RunEnded | None) -> str | None:
    if not facts:
        return "its session was deleted; the letter can only be dropped"
    if final is None:
        return "its run is not over: it is delivered again by itself"
    if final.status != "failed":
        return f"its run ended otherwise ({final.status}): nobody waits for it"
    return None


async def put_back(
    log: RecordedLog, bus: Bus, letter: StoredLetter, *, anyway: bool = False
) -> str:
    """Request the letter's work anew, and drop the letter → the new run's id.

    Raises:
        Conflict: there is an obstacle, or the todo can still not be read.
        NatterlogError: the store refuses.
    """
    case = await case_of(log, letter)
    if case.obstacle is not None:
        raise Conflict(f"Dead letter {letter.number} cannot be put back: {case.obstacle}.")
    task = _first_task(case)
    store = StoreClient(bus)
    if isinstance(task, Turn):
        run_id = await _repeat_reply(store, letter, task, anyway=anyway)
    else:
        run_id = await _repeat_job(log, bus, store, letter, task)
    await drop_letter(bus, letter)
    return run_id


async def drop_letter(bus: Bus, letter: StoredLetter) -> None:
    """Erase the letter.

    Raises:
        BusError: it may still be there.
    """
    await erase_message(bus, DEAD, letter.number)


def _first_task(case: Case) -> Turn | RunScheduled | TodoProcess | TodoGenerate:
    """What the run was to do: the turn of a reply, or the first todo of a job."""
    for fact in case.facts:
        match fact.fact:
            case TodoChat(turn=turn) | RunWaiting(turn=turn):
                return turn
            case RunScheduled() | TodoProcess() | TodoGenerate() as task:
                return task
            case _:
                pass
    raise Conflict(
        f"Dead letter {case.letter.number}: this version cannot read what was to be done either."
    )


async def _repeat_reply(
    store: StoreClient, letter: StoredLetter, turn: Turn, *, anyway: bool
) -> str:
    user, session, _ = parse(letter.letter.subject)
    latest = await store.ask(
        ListMessages(user_id=user, session_id=session, limit=1, descending=True)
    )
    last = latest.items[0].id if latest.items else None
    if last not in (None, turn.user_message_id, turn.assistant_message_id) and not anyway:
        raise Conflict(
            "The conversation went on since: another answer now would put an older branch in "
            "front. `--anyway` does that."
        )
    key = letter.derived_id("key")
    if turn.continues is not None:
        again = ContinueReply(
            user_id=user, message_id=turn.assistant_message_id, idempotency_key=key
        )
        return (await store.start_run(again)).run.id
    try:
        accepted = await store.start_run(
            Regenerate(
                user_id=user,
                session_id=session,
                message_id=turn.user_message_id,
                idempotency_key=key,
            )
        )
    except NotFound:  # what asked for it could not be read then, and can be now
        if turn.content is None:
            raise
        accepted = await store.start_run(
            SendMessage(
                user_id=user,
                session_id=session,
                content=turn.content,
                attachments=turn.attachments,
                model=turn.model,
                temperature=turn.temperature,
                max_tokens=turn.max_tokens,
                idempotency_key=key,
            )
        )
    return accepted.run.id


async def _repeat_job(
    log: RecordedLog,
    bus: Bus,
    store: StoreClient,
    letter: StoredLetter,
    task: RunScheduled | TodoProcess | TodoGenerate,
) -> str:
    address = parse(letter.letter.subject)
    (found,) = await log.sessions(FindSessions(prefix=address.session))
    session, new_session = found.session, letter.derived_id("session")
    job = CreateJob(
        user_id=address.user,
        session_id=new_session,
        run_id=letter.derived_id("run"),
        plan=task.plan,
        mode=session.mode,
        model=session.model,
        temperature=session.temperature,
        max_tokens=session.max_tokens,
        priority=task.priority,
        client_ref=session.client_ref,
    )
    return await repeat_job(bus, store, job, old_session=address.session)
