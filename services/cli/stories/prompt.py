"""The prompt of an attempt, part by part, each with where it came from (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from services.cli.recorder.attachments import AttachedFile
from shared.conversation import Conversation, branch_to
from shared.events import (
    FileRef,
    MessageRated,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SentFile,
    SessionCreated,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
)
from shared.log_entry import LogEntry
from shared.message_state import MessageState

CONTEXT_MESSAGES = 20
"""As many messages of a branch as a chat's prompt has at most."""


class Part(msgspec.Struct, frozen=True, kw_only=True, rename={"notes": "told"}):
    """A piece of a prompt; ``text`` is None when the log does not hold it (any more)."""

    role: str
    text: str | None
    origin: str
    """Where it came from, in a sentence."""
    seq: int | None
    """The fact that holds it."""
    message_id: str | None = None
    file: FileRef | None = None
    file_id: str | None = None
    """The attachment's, by which its user knows it."""
    notes: list[str] = []
    """How the file was sent, and what of it was cut or is missing, one sentence each."""
    schema: dict[str, Any] | None = None


class SentPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt that an attempt sent to its provider."""

    attempt: int
    provider: str
    model: str
    temperature: float | None
    max_tokens: int | None
    parts: list[Part]
    left_out: list[str]
    """What of the branch was not sent, and why, one sentence each."""
    notes: list[str]
    """Which parts of the request the provider does not take."""


def branch_of(facts: Sequence[LogEntry]) -> str | None:
    """The message whose branch a run's prompt is, where that is said: of another session."""
    turns = (fact.fact.turn for fact in facts if isinstance(fact.fact, TodoChat | RunWaiting))
    return next((turn.context for turn in turns), None)


def prompts(
    facts: Sequence[LogEntry],
    run_id: str,
    *,
    elsewhere: Sequence[LogEntry] = (),
    files: Mapping[str, AttachedFile] | None = None,
) -> list[SentPrompt]:
    """The prompts of a run's attempts that asked a provider, from its session's facts.

    ``elsewhere`` are those of the session whose branch was asked again; ``files`` is what
    is known of the messages' files.
    """
    by_seq = {entry.seq: entry for entry in facts}
    messages = _Messages(elsewhere)
    found: list[SentPrompt] = []
    for position, entry in enumerate(facts):
        claim = entry.fact
        messages.take(entry)
        if entry.address.run != run_id or not isinstance(claim, RunClaimed):
            continue
        if claim.prompt is None:
            continue
        todo = by_seq.get(claim.todo)
        if todo is not None and isinstance(todo.fact, TodoGenerate):
            parts, left_out = _of_step(todo, todo.fact, claim.prompt), list[str]()
        else:
            before = [*elsewhere, *facts[:position]]
            parts, left_out = _of_chat(before, messages, claim.prompt, todo, files or {})
        found.append(
            SentPrompt(
                attempt=entry.seq,
                provider=claim.prompt.provider,
                model=claim.prompt.model,
                temperature=claim.prompt.temperature,
                max_tokens=claim.prompt.max_tokens,
                parts=parts,
                left_out=left_out,
                notes=claim.prompt.notes,
            )
        )
    return found


class _Messages:
    """The messages so far, of the session and of the one whose branch is asked, by their ids."""

    def __init__(self, elsewhere: Sequence[LogEntry]) -> None:
        self.found: dict[str, MessageState] = {}
        self.held_by: dict[str, int] = {}
        """The fact that holds a message's text."""
        self._conversation = Conversation()
        for entry in elsewhere:
            self.take(entry)
        self._conversation = Conversation()

    def take(self, entry: LogEntry) -> None:
        for message in self._conversation.apply(entry):
            self.found[message.id] = message
            if _holds(entry, message):
                self.held_by[message.id] = entry.seq


def _holds(entry: LogEntry, message: MessageState) -> bool:
    """Whether the fact holds the message's text: it may only rate it, or say it was never sent."""
    if isinstance(entry.fact, RunEnded):
        return message.role == "assistant"
    return not isinstance(entry.fact, MessageRated)


# -- a conversation's ------------------------------------------------------------------


def _of_chat(
    before: Sequence[LogEntry],
    messages: _Messages,
    source: PromptSource,
    todo: LogEntry | None,
    files: Mapping[str, AttachedFile],
) -> tuple[list[Part], list[str]]:
    parts = [] if source.system is None else [_system(before, source.system, todo)]
    for each in source.message_ids:
        message = messages.found.get(each)
        parts.append(_message(message, each, messages.held_by.get(each)))
        parts += _attachments(message, each, source.files, files)
    if source.go_on is not None:
        origin = "natterlog asks for the reply to go on"
        parts.append(Part(role="user", text=source.go_on, origin=origin, seq=None))
    turn = todo.fact.turn if todo and isinstance(todo.fact, TodoChat) else None
    leaf = turn and (turn.context or turn.user_message_id)
    return parts, _left_out(messages.found, leaf, source.message_ids)


def _system(before: Sequence[LogEntry], system: str, todo: LogEntry | None) -> Part:
    """The system prompt, with the fact that last set it: of the message, or of the session."""
    if todo is not None and isinstance(todo.fact, TodoChat) and todo.fact.turn.system == system:
        return Part(role="system", text=system, origin="came with the message", seq=todo.seq)
    for recorded in reversed(before):
        fact = recorded.fact
        if isinstance(fact, SessionCreated | SessionUpdated) and fact.system_prompt == system:
            did = "opened with it" if isinstance(fact, SessionCreated) else "changed to it"
            origin = f"the session was {did}"
            return Part(role="system", text=system, origin=origin, seq=recorded.seq)
    return Part(
        role="system", text=system, origin="the claim says so; not the session's own", seq=None
    )


def _message(message: MessageState | None, message_id: str, seq: int | None) -> Part:
    return Part(
        role="?" if message is None else message.role,
        text=None if message is None else message.content,
        origin=_origin(message),
        seq=seq,
        message_id=message_id,
    )


def _origin(message: MessageState | None) -> str:
    if message is None:
        return "no fact of the session holds this message"
    if message.run_id is None:
        return "the session was opened with it"
    if message.role == "user":
        return f"asked in run {message.run_id}"
    return f"the {message.status} reply of run {message.run_id}"


def _attachments(
    message: MessageState | None,
    message_id: str,
    sent: Sequence[SentFile] | None,
    files: Mapping[str, AttachedFile],
) -> Iterator[Part]:
    """The files of a message, in its order, each with how it was sent."""
    how = {file.id: file for file in sent or [] if file.message_id == message_id}
    for file_id in dict.fromkeys([*(message.attachments if message else ()), *how]):
        file = files.get(file_id)
        origin = "erased since then" if file is None else f"uploaded, read by run {file.run_id}"
        if sent is None:
            notes = ["how it went along was not recorded"]
        else:
            notes = _how_sent(how.get(file_id), file)
        yield Part(
            role="file",
            text=None,
            origin=origin,
            seq=file and file.seq,
            message_id=message_id,
            file=file and file.ref,
            file_id=file_id,
            notes=notes,
        )


def _how_sent(sent: SentFile | None, file: AttachedFile | None) -> list[str]:
    """How a file was sent to the model, one sentence each."""
    if sent is None or sent.missing == "gone":
        return ["not sent: it was gone"]
    if sent.missing == "unread":
        return ["not sent: it had not been read yet"]
    if sent.missing == "unreadable":
        fault = file and file.final and file.final.error
        return [f"not sent: it could not be read{f': {fault.message}' if fault else ''}"]
    notes = _as_it_is(sent, file)
    if sent.characters is not None:
        notes.append(_as_text(sent.characters, sent.length or 0))
    return notes + (file.notes if file else [])


def _as_it_is(sent: SentFile, file: AttachedFile | None) -> list[str]:
    if file is None or not sent.as_it_is:
        return [f"{len(sent.as_it_is)} parts of it were sent as they are"] if sent.as_it_is else []
    if file.ref.id in sent.as_it_is:
        return ["sent as it is, whole"]
    results = file.final.results if file.final else []
    pictures = [image for result in results for image in result.images if image.kind == "image"]
    if file.ref.kind == "image" and len(pictures) == 1:
        return ["sent as a picture"]
    return [f"sent as {len(sent.as_it_is)} of its {len(pictures)} pictures"]


def _as_text(characters: int, length: int) -> str:
    if not length:
        return "no text could be read from it"
    if characters < length:
        return f"cut: {characters:,} of the {length:,} characters read from it were sent as text"
    return f"sent as text: the {length:,} characters read from it"


def _left_out(messages: dict[str, MessageState], leaf: str | None, sent: list[str]) -> list[str]:
    """How many messages of the branch were not sent, and why, one sentence each."""
    cut, empty, failed = 0, 0, 0
    for message in branch_to(messages, leaf):
        if message.id not in sent:
            if message.status == "failed":
                failed += 1
            elif not message.content:
                empty += 1
            else:
                cut += 1
    notes: list[str] = []
    if cut:
        notes.append(
            f"{cut} older message{'s' if cut > 1 else ''} of the branch: "
            f"a prompt has its last {CONTEXT_MESSAGES}"
        )
    if failed:
        notes.append(f"{failed} failed repl{'ies' if failed > 1 else 'y'}")
    if empty:
        notes.append(f"{empty} empty message{'s' if empty > 1 else ''}")
    return notes


# -- a job's ---------------------------------------------------------------------------


def _of_step(todo: LogEntry, fact: TodoGenerate, source: PromptSource) -> list[Part]:
    ask, seq = fact.ask, todo.seq
    parts: list[Part] = []
    if ask.system is not None:
        parts.append(
            Part(role="system", text=ask.system, origin=f"step {ask.step} of the plan", seq=seq)
        )
    again = f", asked again after {ask.misses} misses" if ask.misses else ""
    origin = f"step {ask.step}{again}"
    parts.append(Part(role="user", text=ask.prompt, origin=origin, seq=seq))
    parts += [_file(seq, file, source.files) for file in ask.files]
    parts += [_note(note) for note in source.notes]
    if ask.instead and (source.files is None or any(file.characters for file in source.files)):
        origin = "what was read from the file follows the prompt"
        if source.files is None:
            origin = "follows the prompt where the model does not take the files"
        parts.append(Part(role="user", text=ask.instead, origin=origin, seq=seq))
    if ask.schema is not None:
        origin = "the answer must fit this schema; the model is told so"
        parts.append(Part(role="schema", text=None, origin=origin, seq=seq, schema=ask.schema))
    return parts


def _file(seq: int, file: FileRef, sent: Sequence[SentFile] | None) -> Part:
    origin = "sent as it is where the model takes it"
    if sent is not None:
        went = any(file.id in each.as_it_is for each in sent)
        origin = "sent as it is" if went else "not sent as it is"
    return Part(role="file", text=None, origin=origin, seq=seq, file=file)


def _note(note: str) -> Part:
    return Part(role="note", text=note, origin="told with the prompt", seq=None)
