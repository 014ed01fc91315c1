"""Dead letters: what they say, what has become of their runs, and what putting one back means.

A todo that nobody can handle ends its run as failed, beside the letter.  So to put
it back is to ask for the work anew: for a reply as its user would, by answering the
message again; for a job by a new one with the same plan and file.  Every request
has a key or an id that follows from the letter, so that asking twice is asking once.
"""

from collections.abc import AsyncGenerator
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

from services.cli.recorder.recorded_log import RecordedFact, RecordedLog
from services.cli.recorder.repeat_job import do_again
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
from shared.objects import erase_message
from shared.store_client import StoreClient
from shared.streams import DEAD
from shared.subjects import parse

_SPACE = UUID("0d1f0d9c-6f6e-5c3a-9d7e-3a1f5be0c001")


class Letter(NamedTuple):
    """A dead letter and its number, by which it is named."""

    number: int
    letter: DeadLetter

    @property
    def run_id(self) -> str:
        return parse(self.letter.subject).run

    def made(self, what: str) -> str:
        """An id that follows from the letter: always the same one."""
        letter = self.letter
        return str(uuid5(_SPACE, f"{letter.subject} {letter.seq} {letter.at} {what}"))


class Case(NamedTuple):
    """A letter with what is known of its run; ``obstacle`` is why it cannot be put back."""

    letter: Letter
    facts: list[RecordedFact]
    final: RunEnded | None
    obstacle: str | None

    @property
    def state(self) -> str:
        if self.final is not None:
            return self.final.status
        return "unfinished" if self.facts else "gone"


async def letters(bus: Bus) -> AsyncGenerator[Letter]:
    """Every dead letter, the oldest first.

    Raises:
        BusError: they could not be read.
    """
    after = 0
    while batch := await bus.read(DEAD, "dead.>", after=after):
        for stored in batch:
            after = stored.seq
            yield Letter(stored.seq, msgspec.json.decode(stored.data, type=DeadLetter))


async def find(bus: Bus, number: int) -> Letter:
    """The letter of that number.

    Raises:
        NotFound: there is none.
    """
    async for letter in letters(bus):
        if letter.number == number:
            return letter
    raise NotFound(f"There is no dead letter {number}; `natterlog dead ls` shows those there are.")


async def case_of(log: RecordedLog, letter: Letter) -> Case:
    """What has become of the letter's run."""
    address = parse(letter.letter.subject)
    facts = [
        fact
        async for fact in log.session_facts(address.session)
        if fact.address.run == letter.run_id
    ]
    final = next((f.fact for f in facts if isinstance(f.fact, RunEnded)), None)
    return Case(letter, facts, final, _obstacle(facts, final))


def _obstacle(facts: list[RecordedFact], final: RunEnded | None) -> str | None:
    if not facts:
        return "its session was deleted; the letter can only be dropped"
    if final is None:
        return "its run is not over: it is delivered again by itself"
    if final.status != "failed":
        return f"its run ended otherwise ({final.status}): nobody waits for it"
    return None


async def put_back(log: RecordedLog, bus: Bus, letter: Letter, *, anyway: bool = False) -> str:
    """Ask for the letter's work anew, and drop the letter; answers the new run's id.

    Raises:
        Conflict: nobody wants it any more, or it cannot be read still.
        NatterlogError: the store refuses.
    """
    case = await case_of(log, letter)
    if case.obstacle is not None:
        raise Conflict(f"Dead letter {letter.number} cannot be put back: {case.obstacle}.")
    begun = _begun(case)
    store = StoreClient(bus)
    if isinstance(begun, Turn):
        run_id = await _answer_again(store, letter, begun, anyway=anyway)
    else:
        run_id = await _do_again(log, bus, store, letter, begun)
    await drop(bus, letter)
    return run_id


async def drop(bus: Bus, letter: Letter) -> None:
    """Forget the letter.

    Raises:
        BusError: it is not known to be gone.
    """
    await erase_message(bus, DEAD, letter.number)


def _begun(case: Case) -> Turn | RunScheduled | TodoProcess | TodoGenerate:
    """What the run was to do, from its first fact that says so."""
    for fact in case.facts:
        match fact.fact:
            case TodoChat(turn=turn) | RunWaiting(turn=turn):
                return turn
            case RunScheduled() | TodoProcess() | TodoGenerate() as begun:
                return begun
            case _:
                pass
    raise Conflict(
        f"Dead letter {case.letter.number}: this version cannot read what was to be done either."
    )


async def _answer_again(store: StoreClient, letter: Letter, turn: Turn, *, anyway: bool) -> str:
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
    key = letter.made("key")
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


async def _do_again(
    log: RecordedLog,
    bus: Bus,
    store: StoreClient,
    letter: Letter,
    begun: RunScheduled | TodoProcess | TodoGenerate,
) -> str:
    address = parse(letter.letter.subject)
    (found,) = await log.sessions(FindSessions(prefix=address.session))
    session, new_session = found.session, letter.made("session")
    job = CreateJob(
        user_id=address.user,
        session_id=new_session,
        run_id=letter.made("run"),
        plan=begun.plan,
        mode=session.mode,
        model=session.model,
        temperature=session.temperature,
        max_tokens=session.max_tokens,
        priority=begun.priority,
        client_ref=session.client_ref,
    )
    return await do_again(bus, store, job, old_session=address.session)
