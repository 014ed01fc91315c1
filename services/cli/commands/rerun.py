"""``natterlog rerun``: run a reply or a job again, beside the old run, and compare both.

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
from services.cli.display.terminal import WIDTH, Output, Style, printable, table
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.repeat_job import plan_of, repeat_job
from services.cli.recorder.run_command import run_with_log
from services.cli.recorder.selection import Selection, find_selection
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
from shared.subjects import LIVE, Address, fact_kind

EXAMPLES = """\
examples:
  natterlog rerun 01a21645-bd32
  natterlog rerun 01a21645-bd32 --model ollama/llama3 --temperature 0
  natterlog rerun 01a21645-bd32 --system better.txt
  natterlog rerun 01a21645-bd32 --model recorded

--model recorded answers from the log, with the recorded timing and faults, and asks no
provider. A reply's new run stays in a session of its own that lists leave out; a job's
is another job of its user's.
Exit code: 0 done, 1 not possible, 2 wrong usage, 3 no such run."""

_LOOK_EVERY = 5.0
_WORD = re.compile(r"\n|[^\S\n]+|\S+")
_STYLES: Mapping[Kind, tuple[Style, ...]] = {"same": (), "gone": ("red",), "new": ("green",)}
MODE = "adhoc"


class _Compared(msgspec.Struct, frozen=True, kw_only=True, rename={"pieces": "words"}):
    """Both runs, as ``--json`` shows them."""

    old_run: str
    new_run: str
    new_session: str
    old: RunEnded
    new: RunEnded
    pieces: list[dict[str, str]]
    """The pieces of the texts: kind (same, gone, new) and text."""


class OldReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply's last attempt sent, and its end: enough to request it again."""

    content: str
    context: str
    source: PromptSource
    final: RunEnded
    continued: bool = False
    """It continued a reply that was cut; the rerun requests that reply whole."""


class OldJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job's plan and its end: enough to run it again."""

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
    parser.set_defaults(command=rerun, check_first=read_system_prompt)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2, and not {text[:40]!r}")
    return value


def read_system_prompt(args: argparse.Namespace) -> None:
    """Put the text of the file that is named beside its name.

    Raises:
        InvalidRequest: it holds no text.
        OSError: it cannot be read.
    """
    try:
        args.system_text = args.system and args.system.read_text(encoding="utf-8")
    except UnicodeError as error:
        raise InvalidRequest(f"{args.system} is no text in UTF-8.") from error


async def rerun(args: argparse.Namespace, log: RecordedLog) -> int:
    if log.bus is None:
        raise Unavailable("Nothing runs here: start natterlog, because a model is to be asked.")
    selection = await find_selection(log, args.run_id)
    old = old_run(selection)
    store = StoreClient(log.bus)
    if isinstance(old, OldJob):
        new = await _start_job(args, selection, old, store, log.bus)
    else:
        new = await _start_reply(args, selection, old, store)
    final = await _wait_for_end(log, new)
    pieces = word_diff(old.final.text, final.text)
    if args.json:
        compared = _Compared(
            old_run=selection.run_id or "",
            new_run=new.run,
            new_session=new.session,
            old=old.final,
            new=final,
            pieces=[piece._asdict() for piece in pieces],
        )
        Output().document(compared)
    else:
        _show(Output(), selection, new, old.final, final, pieces)
    return 0


def old_run(selection: Selection) -> OldReply | OldJob:
    """The reply or the job that is to be run again, from its session's facts.

    Raises:
        InvalidRequest: it is neither.
        Conflict: it has not ended, or no model was ever asked.
    """
    job = plan_of(selection.facts, selection.run_id)
    return _old_reply(selection) if job is None else _old_job(selection, *job)


def _old_job(selection: Selection, plan: Plan, priority: int) -> OldJob:
    if isinstance(plan, FilePlan):
        raise InvalidRequest("That run only read a file for messages: no model was asked.")
    opened = next((f.fact for f in selection.facts if isinstance(f.fact, SessionCreated)), None)
    finals = (f.fact for f in selection.facts if f.address.run == selection.run_id)
    final = next((fact for fact in finals if isinstance(fact, RunEnded)), None)
    if opened is None or final is None:
        raise Conflict("That job has not ended: there is nothing to compare.")
    return OldJob(plan=plan, priority=priority, opened=opened, final=final)


def _old_reply(selection: Selection) -> OldReply:
    turn: Turn | None = None
    source: PromptSource | None = None
    final: RunEnded | None = None
    contents: dict[str, str] = {}
    for fact in selection.facts:
        match fact.fact:
            case SessionCreated(history=history) if history is not None:
                contents |= {message.id: message.content for message in history.messages}
            case RunWaiting(turn=its) | TodoChat(turn=its):
                if its.content is not None:
                    contents[its.user_message_id] = its.content
                turn = its if fact.address.run == selection.run_id else turn
            case RunClaimed(prompt=prompt) if fact.address.run == selection.run_id:
                source = prompt or source
            case RunEnded() as ended if fact.address.run == selection.run_id:
                final = ended
            case _:
                pass
    if turn is None:
        raise InvalidRequest("One reply or job can be run again at a time; name its run.")
    if turn.user_message_id not in contents:
        raise Conflict("The message that this run answered is not in its session's facts.")
    if final is None or source is None:
        raise Conflict("That run never got to a model and to an end: there is nothing to compare.")
    return OldReply(
        content=contents[turn.user_message_id],
        context=turn.context or turn.user_message_id,
        source=source,
        final=final,
        continued=turn.continues is not None,
    )


async def _start_reply(
    args: argparse.Namespace, selection: Selection, old: OldReply, store: StoreClient
) -> Address:
    """Open a session for the new run, and send the old message."""
    source = old.source
    model = args.model or f"{source.provider}/{source.model}"
    if model == "recorded":
        model = f"recorded/{selection.run_id}"
    system = source.system if args.system_text is None else args.system_text
    session_id = new_id()
    await store.ask(
        CreateSession(
            user_id=selection.user,
            session_id=session_id,
            mode=MODE,
            model=model,
            temperature=source.temperature if args.temperature is None else args.temperature,
            max_tokens=source.max_tokens,
            system_prompt=system,
        )
    )
    accepted = await store.start_run(
        SendMessage(
            user_id=selection.user,
            session_id=session_id,
            content=old.content,
            context=old.context,
        )
    )
    if old.continued:
        sys.stderr.write("That run went on with a reply that was cut: all of it is asked for.\n")
    sys.stderr.write(f"Running as {accepted.run.id}, with {model}.\n")
    return Address(selection.user, session_id, accepted.run.id)


async def _start_job(
    args: argparse.Namespace, selection: Selection, old: OldJob, store: StoreClient, bus: Bus
) -> Address:
    """Begin the job again, with the options of the command line."""
    if args.system_text is not None:
        raise InvalidRequest("A job's steps have system prompts of their own; --system is no use.")
    opened = old.opened
    model = args.model or opened.model
    job = CreateJob(
        user_id=selection.user,
        session_id=new_id(),
        run_id=new_id(),
        plan=old.plan,
        mode=opened.mode,
        model=f"recorded/{selection.run_id}" if model == "recorded" else model,
        temperature=opened.temperature if args.temperature is None else args.temperature,
        max_tokens=opened.max_tokens,
        priority=old.priority,
    )
    await repeat_job(bus, store, job, old_session=selection.session_id)
    sys.stderr.write(f"Running as {job.run_id}, with {job.model or 'the default model'}.\n")
    return Address(selection.user, job.session_id, job.run_id)


async def _wait_for_end(log: RecordedLog, new: Address) -> RunEnded:
    """Wait for the new run's end."""
    assert log.bus is not None  # noqa: S101  (whoever calls has looked)
    ended = asyncio.Event()

    def on_fact(message: Incoming) -> None:
        if fact_kind(message.subject) == "final":
            ended.set()

    store = StoreClient(log.bus)
    subscription = await log.bus.listen_live(f"{LIVE}{new.facts}", on_fact)
    try:
        while True:
            async for fact in log.session_facts(new.session):
                if isinstance(fact.fact, RunEnded):
                    return fact.fact
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _LOOK_EVERY)
            await store.ask(GetRun(user_id=new.user, run_id=new.run))  # still there?
    finally:
        await subscription.close()


def _show(
    out: Output,
    selection: Selection,
    new: Address,
    old: RunEnded,
    final: RunEnded,
    pieces: list[Piece],
) -> None:
    rows = differences(old, final)
    table(out, ["", f"run {(selection.run_id or '')[:13]}", f"run {new.run[:13]}", ""], rows)
    out.line()
    if old.text == final.text:
        out.line("The texts are the same.")
    elif out.coloured:
        _flow(out, pieces)
    else:
        _flow(out, [Piece("same", marked(pieces))])
    if final.error is not None:
        out.line(f"The new run failed: {final.error.message} ({final.error.code})")
    out.line()
    out.line(f"It stays, as run {new.run}")
    out.line(f"in session {new.session}.")


def _flow(out: Output, pieces: list[Piece]) -> None:
    """Print the texts wrapped to the width, changes in colours."""
    line, width = "", 0
    for kind, text in pieces:
        for word in _WORD.findall(printable(text)):
            if word == "\n" or width + len(word) > WIDTH:
                out.line(line)
                line, width = "", 0
            if word != "\n" and (width or not word.isspace()):
                line += out.style(word, *_STYLES[kind])
                width += len(word)
    out.line(line)
