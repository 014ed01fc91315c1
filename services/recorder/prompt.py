"""The prompt of an attempt, part by part, with the place that each came from (pure)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from services.recorder.reading import Recorded
from shared.events import (
    FileRef,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionCreated,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
)

CONTEXT_MESSAGES = 20
"""As many messages of a branch as a chat's prompt has at most."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a prompt; ``text`` is None when the log does not hold it (any more)."""

    role: str
    text: str | None
    origin: str
    """Where it came from, in a sentence."""
    seq: int | None
    """The fact that holds it."""
    message_id: str | None = None
    file: FileRef | None = None
    schema: dict[str, Any] | None = None


class SentPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt asked of its provider."""

    attempt: int
    provider: str
    model: str
    temperature: float | None
    max_tokens: int | None
    parts: list[Part]
    left_out: list[str]
    """What of the branch was not sent, and why, one sentence each."""
    notes: list[str]
    """What the provider could not be told."""


class _Known(msgspec.Struct, frozen=True):
    """A message as the session's facts tell it."""

    id: str
    role: str
    parent: str | None
    text: str
    seq: int
    origin: str
    status: str = "completed"


def prompts(facts: Sequence[Recorded], run_id: str) -> list[SentPrompt]:
    """The prompts of a run's attempts that asked a provider, from its session's facts."""
    by_seq = {fact.seq: fact for fact in facts}
    found: list[SentPrompt] = []
    for position, recorded in enumerate(facts):
        claim = recorded.fact
        if recorded.address.run != run_id or not isinstance(claim, RunClaimed):
            continue
        if claim.prompt is None:
            continue
        before = facts[:position]
        todo = by_seq.get(claim.todo)
        if todo is not None and isinstance(todo.fact, TodoGenerate):
            parts, left_out = _of_step(todo, todo.fact, claim.prompt), list[str]()
        else:
            parts, left_out = _of_chat(before, claim.prompt, todo)
        found.append(
            SentPrompt(
                attempt=recorded.seq,
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


# -- a conversation's ------------------------------------------------------------------


def _of_chat(
    before: Sequence[Recorded], source: PromptSource, todo: Recorded | None
) -> tuple[list[Part], list[str]]:
    known = _messages(before)
    parts = [] if source.system is None else [_system(before, source.system, todo)]
    parts += [_message(known.get(each), each) for each in source.message_ids]
    leaf = todo.fact.turn.user_message_id if todo and isinstance(todo.fact, TodoChat) else None
    return parts, _left_out(known, leaf, source.message_ids)


def _system(before: Sequence[Recorded], system: str, todo: Recorded | None) -> Part:
    """What set the system prompt to these words: the message itself, or last the session."""
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


def _message(known: _Known | None, message_id: str) -> Part:
    if known is None:
        return Part(
            role="?",
            text=None,
            origin="no fact of the session holds this message",
            seq=None,
            message_id=message_id,
        )
    return Part(
        role=known.role,
        text=known.text,
        origin=known.origin,
        seq=known.seq,
        message_id=message_id,
    )


def _messages(facts: Sequence[Recorded]) -> dict[str, _Known]:
    """Every message of the session by its id."""
    found: dict[str, _Known] = {}
    asked: dict[str, TodoChat | RunWaiting] = {}
    for recorded in facts:
        fact, run = recorded.fact, recorded.address.run
        if isinstance(fact, TodoChat | RunWaiting):
            asked[run] = fact
            turn = fact.turn
            if turn.content is not None:
                found[turn.user_message_id] = _Known(
                    turn.user_message_id,
                    "user",
                    turn.parent_id,
                    turn.content,
                    recorded.seq,
                    f"asked in run {run}",
                )
        elif isinstance(fact, RunEnded) and run in asked:
            turn = asked[run].turn
            found[turn.assistant_message_id] = _Known(
                turn.assistant_message_id,
                "assistant",
                turn.user_message_id,
                fact.text,
                recorded.seq,
                f"the {fact.status} reply of run {run}",
                fact.status,
            )
    return found


def _left_out(known: dict[str, _Known], leaf: str | None, sent: list[str]) -> list[str]:
    """What the branch holds besides, from the message that was answered to its start."""
    cut, empty, failed = 0, 0, 0
    while leaf is not None and (message := known.get(leaf)) is not None:
        if message.id not in sent:
            if message.status == "failed":
                failed += 1
            elif not message.text:
                empty += 1
            else:
                cut += 1
        leaf = message.parent
    told: list[str] = []
    if cut:
        told.append(
            f"{cut} older message{'s' if cut > 1 else ''} of the branch: "
            f"a prompt has its last {CONTEXT_MESSAGES}"
        )
    if failed:
        told.append(f"{failed} failed repl{'ies' if failed > 1 else 'y'}")
    if empty:
        told.append(f"{empty} empty message{'s' if empty > 1 else ''}")
    return told


# -- a job's ---------------------------------------------------------------------------


def _of_step(todo: Recorded, fact: TodoGenerate, source: PromptSource) -> list[Part]:
    ask, seq = fact.ask, todo.seq
    parts: list[Part] = []
    if ask.system is not None:
        parts.append(
            Part(role="system", text=ask.system, origin=f"step {ask.step} of the plan", seq=seq)
        )
    again = f", asked again after {ask.misses} misses" if ask.misses else ""
    origin = f"step {ask.step}{again}"
    parts.append(Part(role="user", text=ask.prompt, origin=origin, seq=seq))
    parts += [_file(seq, file) for file in ask.files]
    parts += [_note(note) for note in source.notes]
    if ask.instead:
        origin = "follows the prompt where the model does not take the files"
        parts.append(Part(role="user", text=ask.instead, origin=origin, seq=seq))
    if ask.schema is not None:
        origin = "the answer must fit this schema; the model is told so"
        parts.append(Part(role="schema", text=None, origin=origin, seq=seq, schema=ask.schema))
    return parts


def _file(seq: int, file: FileRef) -> Part:
    origin = "sent as it is where the model takes it"
    return Part(role="file", text=None, origin=origin, seq=seq, file=file)


def _note(note: str) -> Part:
    return Part(role="note", text=note, origin="told with the prompt", seq=None)
