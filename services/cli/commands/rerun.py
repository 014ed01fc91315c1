"""``natterlog rerun``: run something once more, beside the old run, and tell the difference.

A reply's new run is a session of its own with the mode ``adhoc``, which no list
shows unless it is asked for: its user's conversation, branch and open windows stay
as they are.  Its prompt is the old one's branch, which is named and not copied.  A
job's is another job of the same user, with the same plan and file.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from services.cli.commands.arguments import add_examples, add_json
from services.cli.display.comparison import Kind, Piece, differences, marked, word_diff
from services.cli.display.terminal import WIDTH, Page, Style, printable, table
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.repeat_job import do_again, plan_of
from services.cli.recorder.run_command import run_with_log
from services.cli.recorder.selection import Named, find
from shared.bus import Bus, Incoming
from shared.commands import CreateJob, CreateSession, GetRun, SendMessage
from shared.errors import Conflict, InvalidRequest, Unavailable
from shared.events import (
    FilePlan,
    Plan,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionCreated,
    TodoChat,
    Turn,
)
from shared.ids import new_id
from shared.store_client import StoreClient
from shared.subjects import LIVE, Address, what

EXAMPLES = """\
examples:
  natterlog rerun 01a21645-bd32
  natterlog rerun 01a21645-bd32 --model ollama/llama3 --temperature 0
  natterlog rerun 01a21645-bd32 --system better.txt
  natterlog rerun 01a21645-bd32 --model recorded

--model recorded answers from the log, with the recorded timing and faults, and asks no
provider. A reply's new run stays in a session of its own that lists leave out; a job's
is another job of its user's.
Exit code: 0 done, 1 not possible, 2 asked wrongly, 3 no such run."""

_LOOK_EVERY = 5.0
_WORD = re.compile(r"\n|[^\S\n]+|\S+")
_STYLES: Mapping[Kind, tuple[Style, ...]] = {"same": (), "gone": ("red",), "new": ("green",)}
MODE = "adhoc"


class _Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Both runs, for programs."""

    old_run: str
    new_run: str
    new_session: str
    old: RunEnded
    new: RunEnded
    words: list[dict[str, str]]
    """The pieces of the texts: kind (same, gone, new) and text."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the old run asked: enough to ask it again."""

    content: str
    context: str
    source: PromptSource
    final: RunEnded
    went_on: bool = False
    """It went on with a reply that was cut: the whole of that is asked for again."""


class AskedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the old job was to do: enough to have it done again."""

    plan: Plan
    priority: int
    opened: SessionCreated
    final: RunEnded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run a reply or a job once more with the same prompt, beside the old one."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    parser.add_argument("run_id", metavar="RUN", help="its id, or the beginning of it")
    parser.add_argument("--model", metavar="M", help="another model, as provider/name; or recorded")
    parser.add_argument("--temperature", type=_temperature, metavar="T", help="0 to 2")
    parser.add_argument("--system", type=Path, metavar="FILE", help="another system prompt")
    add_json(parser)
    parser.set_defaults(command=rerun)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2, and not {text[:40]!r}")
    return value


async def rerun(asked: argparse.Namespace, log: RecordedLog) -> int:
    if log.bus is None:
        raise Unavailable("Nothing runs here: start natterlog, because a model is to be asked.")
    named = await find(log, asked.run_id)
    before = asked_by(named)
    store = StoreClient(log.bus)
    if isinstance(before, AskedJob):
        new = await _begin_job(asked, named, before, store, log.bus)
    else:
        new = await _begin(asked, named, before, store)
    final = await _end(log, new)
    pieces = word_diff(before.final.text, final.text)
    if asked.json:
        compared = _Compared(
            old_run=named.run_id or "",
            new_run=new.run,
            new_session=new.session,
            old=before.final,
            new=final,
            words=[piece._asdict() for piece in pieces],
        )
        Page().document(compared)
    else:
        _show(Page(), named, new, before.final, final, pieces)
    return 0


def asked_by(named: Named) -> Asked | AskedJob:
    """What a run's last attempt asked, or what a job was to do, from its session's facts.

    Raises:
        InvalidRequest: it is neither.
        Conflict: it has not ended, or no model was ever asked.
    """
    job = plan_of(named.facts, named.run_id)
    return _reply(named) if job is None else _job(named, *job)


def _job(named: Named, plan: Plan, priority: int) -> AskedJob:
    if isinstance(plan, FilePlan):
        raise InvalidRequest("That run only read a file for messages: no model was asked.")
    opened = next((f.fact for f in named.facts if isinstance(f.fact, SessionCreated)), None)
    finals = (f.fact for f in named.facts if f.address.run == named.run_id)
    final = next((fact for fact in finals if isinstance(fact, RunEnded)), None)
    if opened is None or final is None:
        raise Conflict("That job has not ended: there is nothing to compare.")
    return AskedJob(plan=plan, priority=priority, opened=opened, final=final)


def _reply(named: Named) -> Asked:
    turn: Turn | None = None
    source: PromptSource | None = None
    final: RunEnded | None = None
    contents: dict[str, str] = {}
    for fact in named.facts:
        match fact.fact:
            case SessionCreated(history=history) if history is not None:
                contents |= {message.id: message.content for message in history.messages}
            case RunWaiting(turn=its) | TodoChat(turn=its):
                if its.content is not None:
                    contents[its.user_message_id] = its.content
                turn = its if fact.address.run == named.run_id else turn
            case RunClaimed(prompt=prompt) if fact.address.run == named.run_id:
                source = prompt or source
            case RunEnded() as ended if fact.address.run == named.run_id:
                final = ended
            case _:
                pass
    if turn is None:
        raise InvalidRequest("One reply or job can be run again at a time; name its run.")
    if turn.user_message_id not in contents:
        raise Conflict("The message that this run answered is not in its session's facts.")
    if final is None or source is None:
        raise Conflict("That run never got to a model and to an end: there is nothing to compare.")
    return Asked(
        content=contents[turn.user_message_id],
        context=turn.context or turn.user_message_id,
        source=source,
        final=final,
        went_on=turn.continues is not None,
    )


async def _begin(
    asked: argparse.Namespace, named: Named, before: Asked, store: StoreClient
) -> Address:
    """Open a session for the new run and ask."""
    source = before.source
    model = asked.model or f"{source.provider}/{source.model}"
    if model == "recorded":
        model = f"recorded/{named.run_id}"
    system = asked.system.read_text() if asked.system is not None else source.system
    session_id = new_id()
    await store.ask(
        CreateSession(
            user_id=named.user,
            session_id=session_id,
            mode=MODE,
            model=model,
            temperature=source.temperature if asked.temperature is None else asked.temperature,
            max_tokens=source.max_tokens,
            system_prompt=system,
        )
    )
    accepted = await store.start_run(
        SendMessage(
            user_id=named.user,
            session_id=session_id,
            content=before.content,
            context=before.context,
        )
    )
    if before.went_on:
        sys.stderr.write("That run went on with a reply that was cut: all of it is asked for.\n")
    sys.stderr.write(f"Running as {accepted.run.id}, with {model}.\n")
    return Address(named.user, session_id, accepted.run.id)


async def _begin_job(
    asked: argparse.Namespace, named: Named, before: AskedJob, store: StoreClient, bus: Bus
) -> Address:
    """Have the job done once more, with what was asked for changed."""
    if asked.system is not None:
        raise InvalidRequest("A job's steps have system prompts of their own; --system is no use.")
    opened = before.opened
    model = asked.model or opened.model
    job = CreateJob(
        user_id=named.user,
        session_id=new_id(),
        run_id=new_id(),
        plan=before.plan,
        mode=opened.mode,
        model=f"recorded/{named.run_id}" if model == "recorded" else model,
        temperature=opened.temperature if asked.temperature is None else asked.temperature,
        max_tokens=opened.max_tokens,
        priority=before.priority,
    )
    await do_again(bus, store, job, old_session=named.session_id)
    sys.stderr.write(f"Running as {job.run_id}, with {job.model or 'the default model'}.\n")
    return Address(named.user, job.session_id, job.run_id)


async def _end(log: RecordedLog, new: Address) -> RunEnded:
    """Wait for the new run's end."""
    assert log.bus is not None  # noqa: S101  (whoever calls has looked)
    ended = asyncio.Event()

    def heard(message: Incoming) -> None:
        if what(message.subject) == "final":
            ended.set()

    store = StoreClient(log.bus)
    listening = await log.bus.listen_live(f"{LIVE}{new.facts}", heard)
    try:
        while True:
            async for fact in log.session_facts(new.session):
                if isinstance(fact.fact, RunEnded):
                    return fact.fact
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _LOOK_EVERY)
            await store.ask(GetRun(user_id=new.user, run_id=new.run))  # still there?
    finally:
        await listening.close()


def _show(
    page: Page, named: Named, new: Address, old: RunEnded, final: RunEnded, pieces: list[Piece]
) -> None:
    rows = differences(old, final)
    table(page, ["", f"run {(named.run_id or '')[:13]}", f"run {new.run[:13]}", ""], rows)
    page.line()
    if old.text == final.text:
        page.line("The texts are the same.")
    elif page.coloured:
        _flow(page, pieces)
    else:
        _flow(page, [Piece("same", marked(pieces))])
    if final.error is not None:
        page.line(f"The new run failed: {final.error.message} ({final.error.code})")
    page.line()
    page.line(f"It stays, as run {new.run}")
    page.line(f"in session {new.session}.")


def _flow(page: Page, pieces: list[Piece]) -> None:
    """The words in lines of the page's width, the changed ones in colours."""
    line, width = "", 0
    for kind, text in pieces:
        for word in _WORD.findall(printable(text)):
            if word == "\n" or width + len(word) > WIDTH:
                page.line(line)
                line, width = "", 0
            if word != "\n" and (width or not word.isspace()):
                line += page.style(word, *_STYLES[kind])
                width += len(word)
    page.line(line)
