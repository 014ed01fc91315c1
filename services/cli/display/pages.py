"""What people see of runs and sessions: lists, stories and prompts at 80 columns (pure)."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from services.cli.display.terminal import (
    Output,
    Style,
    at,
    brief_ids,
    clock,
    dollars,
    shortened,
    span,
    table,
)
from services.cli.stories.prompt import Part, SentPrompt
from services.cli.stories.story import Attempt, End, Story, describe_fact
from services.cli.stories.totals import Total
from shared.events import SessionCreated, SessionDeleted, SessionUpdated, Try, Usage
from shared.inspection import FoundRun, FoundSession
from shared.log_entry import LogEntry
from shared.records import RunStatus

COLOURS: dict[RunStatus, Style] = {
    "queued": "cyan",
    "scheduled": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}


# -- lists ------------------------------------------------------------------------------


def list_runs(out: Output, runs: Sequence[FoundRun]) -> None:
    """Print runs, a line each, the newest first."""
    brief = brief_ids(run.id for run in runs)
    rows = [
        (
            brief[run.id],
            at(run.created_at),
            run.status,
            span(first_word_ms(run)),
            _took(run),
            _how_it_went(run),
        )
        for run in runs
    ]
    table(out, ("RUN", "ACCEPTED (UTC)", "STATE", "FIRST", "TOOK", "MODEL OR ERROR"), rows)


def _how_it_went(run: FoundRun) -> str:
    """The error, else the model or the run's kind; before it what is unusual."""
    parts = [run.error.code] if run.error else [run.model or run.kind]
    if run.error is None and run.stop_reason not in (None, "end_turn"):
        parts.insert(0, run.stop_reason)
    if run.restarts:
        parts.insert(0, f"{run.restarts + 1} attempts")
    return ", ".join(parts)


def first_word_ms(run: FoundRun) -> float | None:
    """Milliseconds from the acceptance to the first text that its user saw."""
    if run.first_word_at is None:
        return None
    return max((run.first_word_at - run.created_at).total_seconds() * 1000, 0)


def _took(run: FoundRun) -> str:
    if run.ended_at is None:
        return "–"
    return span((run.ended_at - run.created_at).total_seconds() * 1000)


def list_totals(out: Output, by: str, totals: Sequence[Total]) -> None:
    """Print totals, a line each, the one that cost the most first."""
    brief = brief_ids(each.key for each in totals) if by in ("user", "session") else {}
    rows = [
        (
            shortened(brief.get(each.key, each.key), 32),
            str(each.runs),
            str(each.failed),
            f"{each.input_tokens:,}",
            f"{each.output_tokens:,}",
            f"{each.cached_tokens:,}",
            _cost_of(each),
        )
        for each in totals
    ]
    table(out, (by.upper(), "RUNS", "FAILED", "IN", "OUT", "CACHED", "COST"), rows)


def _cost_of(each: Total) -> str:
    text = [] if each.cost is None else [dollars(each.cost)]
    text += [f"{each.unpriced} unpriced"] if each.unpriced else []
    return ", ".join(text) or "–"


def list_sessions(out: Output, sessions: Sequence[FoundSession]) -> None:
    """Print sessions, a line each, the one last written to first."""
    brief = brief_ids(found.session.id for found in sessions)
    rows = [
        (
            brief[found.session.id],
            at(found.session.updated_at),
            found.session.mode[:10],
            str(found.runs),
            str(found.unfinished) if found.unfinished else "–",
            str(found.session.message_count),
            shortened(found.session.title or "–", 24),
        )
        for found in sessions
    ]
    head = ("SESSION", "CHANGED (UTC)", "MODE", "RUNS", "OPEN", "MSGS", "TITLE")
    table(out, head, rows)


# -- a run ------------------------------------------------------------------------------


def show_story(out: Output, story: Story, now: datetime) -> None:
    """Print a run from its acceptance to its end, or to the present."""
    state = out.style(story.state, "bold", COLOURS.get(story.state, "cyan"))  # type: ignore[call-overload]
    out.line(f"{out.style('run', 'bold')} {story.run_id}  {state}")
    out.line(f"  session {story.session_id}")
    out.line(f"  user    {story.user_id}")
    out.line(f"  {story.kind}, accepted {at(story.accepted_at)} UTC{_conditions(story)}")
    out.line()
    for fact in story.facts:
        ms = out.style(f"{span(fact.ms):>12}", "dim")
        out.line(f"{ms}  {shortened(fact.text, 58)}  {out.style(f'#{fact.seq}', 'dim')}")
    if story.end is None:
        silence = (now - story.facts[-1].at).total_seconds() * 1000
        out.line(out.style(f"{'…':>12}  no fact since then, for {span(silence)}", "yellow"))
    for number, attempt in enumerate(story.attempts, start=1):
        out.line()
        _show_attempt(out, number, attempt)
    if story.end is not None:
        out.line()
        _show_end(out, story.end, model_called=any(a.source is not None for a in story.attempts))


def _conditions(story: Story) -> str:
    text = ", imported" if story.imported else ""
    if story.continues is not None:
        text += f", goes on after {story.continues} chars"
    if story.waited_ms:
        text += f", waited {span(story.waited_ms)}"
    if story.due is not None:
        text += f", due {at(story.due)}"
    if story.priority is not None:
        text += f", priority {story.priority}"
    return text


def _show_attempt(out: Output, number: int, attempt: Attempt) -> None:
    step = f", step {attempt.step}" if attempt.step else ""
    out.line(out.style(f"attempt {number}", "bold") + f" (#{attempt.attempt}{step})")
    _pair(out, "claimed", f"{clock(attempt.at)}, {span(attempt.after_ms)} after its todo")
    _pair(out, "worker", attempt.worker)
    if attempt.source is not None:
        source = attempt.source
        text = f"{source.provider}/{source.model}"
        if source.temperature is not None:
            text += f", temperature {source.temperature:g}"
        if source.max_tokens is not None:
            text += f", at most {source.max_tokens} tokens"
        _pair(out, "asked", text)
        for note in source.notes:
            _pair(out, "note", note)
    if attempt.first_delta_ms is not None:
        _pair(out, "first", f"{span(attempt.first_delta_ms)} after the claim")
    if attempt.length is not None:
        _pair(out, "text", _text_of(attempt))
    for each, failed in enumerate(attempt.tries, start=1):
        _show_try(out, each, failed)
    for gap in attempt.gaps:
        text = f"{span(gap.ms)} without a word, {span(gap.at_ms)} in, after {gap.length} chars"
        _pair(out, "gap", out.style(text, "yellow"))
    ended = "still running" if attempt.ended is None else attempt.ended
    _pair(out, "ended", ended + (f", after {span(attempt.ended_ms)}" if attempt.ended else ""))


def _show_try(out: Output, number: int, failed: Try) -> None:
    """A failed call: its status, code, time, usage, cost and message."""
    status = "" if failed.status is None else f"{failed.status} "
    text = f"{status}{failed.code}, {span(failed.ms)} in"
    if failed.usage is not None:
        text += f"; {tokens(failed.usage)}"
    if failed.cost is not None:
        text += f"; {dollars(failed.cost)}"
    _pair(out, f"try {number}", out.style(text, "yellow"))
    out.wrapped(failed.message, indent=" " * 10)


def _text_of(attempt: Attempt) -> str:
    text = f"{attempt.length} chars"
    if attempt.deltas:
        text += f" in {attempt.deltas} delta{'s' if attempt.deltas > 1 else ''}"
    if attempt.rate is not None:
        text += f", {attempt.rate:g} chars/s"
    if attempt.longest_ms is not None:
        text += f", longest silence {span(attempt.longest_ms)}"
    return text


def _show_end(out: Output, end: End, *, model_called: bool) -> None:
    out.line(out.style("final", "bold") + f" (#{end.seq})")
    stop = f", {end.stop_reason}" if end.stop_reason else ""
    _pair(out, "state", f"{end.status}{stop}, {span(end.ms)} after the acceptance")
    if end.error is not None:
        again = " (may work another time)" if end.error.retryable else ""
        _pair(out, "error", out.style(f"{end.error.code}: {end.error.message}{again}", "red"))
    _pair(out, "text", f"{end.length} chars")
    if end.thoughts is not None:
        _pair(out, "thought", f"{end.thoughts} chars")
    intact = "matches the text" if end.intact else out.style("DOES NOT MATCH THE TEXT", "red")
    _pair(out, "sha256", end.sha256)
    _pair(out, "", intact)
    if end.usage is not None:
        _pair(out, "tokens", tokens(end.usage))
    if model_called or end.cost is not None:
        _pair(out, "cost", _price(end))
    for note in end.notes:
        _pair(out, "note", note)


def tokens(usage: Usage) -> str:
    text = f"{usage.input_tokens} in, {usage.output_tokens} out"
    if usage.cache_read_input_tokens or usage.cache_creation_input_tokens:
        text += f", cache {usage.cache_read_input_tokens} read"
        text += f" {usage.cache_creation_input_tokens} written"
    return text


def _price(end: End) -> str:
    if end.cost is not None:
        return dollars(end.cost)
    why = "nobody counted its tokens" if end.usage is None else "its model has no known price"
    return f"{dollars(None)}: {why}"


def _pair(out: Output, name: str, value: str) -> None:
    out.line(f"  {out.style(name.ljust(8), 'dim')}{value}")


# -- prompts ----------------------------------------------------------------------------


def show_thoughts(out: Output, text: str) -> None:
    """Print what the model thought before it answered."""
    out.line()
    out.line(out.style("thoughts", "bold"))
    out.wrapped(text, indent="  | ")


def show_prompt(out: Output, prompt: SentPrompt) -> None:
    """Print the prompt of an attempt, part by part, each with its origin."""
    out.line()
    out.line(out.style(f"prompt of attempt #{prompt.attempt}", "bold"))
    text = f"{prompt.provider}/{prompt.model}"
    if prompt.temperature is not None:
        text += f", temperature {prompt.temperature:g}"
    if prompt.max_tokens is not None:
        text += f", at most {prompt.max_tokens} tokens"
    out.line(f"  {text}")
    for part in prompt.parts:
        _show_part(out, part)
    for sentence in prompt.left_out:
        out.line(f"  {out.style('left out:', 'yellow')} {sentence}")


def _show_part(out: Output, part: Part) -> None:
    where = f" #{part.seq}" if part.seq is not None else ""
    out.line()
    out.line(f"  {out.style(part.role, 'bold')}{where} {out.style(part.origin, 'dim')}")
    if part.message_id is not None:
        out.line(f"  {out.style(f'message {part.message_id}', 'dim')}")
    if part.text is not None:
        out.wrapped(part.text, indent="  | ")
    if part.file is not None:
        file = part.file
        name = shortened(file.name, 30)
        out.line(f"  | {name}, {file.media_type}, {file.size} bytes")
        out.line(f"  | sha256 {file.sha256[:16]}…, file {part.file_id or file.id}")
    elif part.file_id is not None:
        out.line(f"  | file {part.file_id}")
    for sentence in part.notes:
        out.wrapped(sentence, indent="  | ")
    if part.schema is not None:
        out.wrapped(msgspec.json.format(msgspec.json.encode(part.schema)).decode(), indent="  | ")


# -- a session --------------------------------------------------------------------------


def show_session(out: Output, found: FoundSession, facts: Sequence[LogEntry]) -> None:
    """Print a session with everything that happened in it, a line a fact."""
    session = found.session
    state = "is being imported" if found.importing else session.status
    out.line(f"{out.style('session', 'bold')} {session.id}  {state}")
    _pair(out, "user", session.user_id)
    if session.title is not None:
        _pair(out, "title", shortened(session.title, 66))
    _pair(out, "opened", f"{at(session.created_at)} UTC, changed {at(session.updated_at)}")
    counts = f"{found.runs} runs, {found.unfinished} of them open"
    _pair(out, "holds", f"{session.message_count} messages of the active branch, {counts}")
    _pair(out, "model", f"{session.model or '–'}, mode {session.mode}, busy: {session.on_busy}")
    out.line()
    brief = brief_ids(f.address.run for f in facts if f.address.run != "_")
    for fact in facts:
        show_fact(out, fact, brief)


def show_fact(out: Output, fact: LogEntry, brief: dict[str, str]) -> None:
    """Print a fact in one line: when, of which run, what happened."""
    run = fact.address.run
    where = "" if run == "_" else brief.get(run, run[:18])
    when = out.style(f"{fact.fact.at:%m-%d} {clock(fact.fact.at)}", "dim")
    text = shortened(_describe(fact), max(20, 80 - 19 - len(where) - len(str(fact.seq)) - 5))
    out.line(f"{when} {where} {text} {out.style(f'#{fact.seq}', 'dim')}".replace("  ", " "))


def _describe(fact: LogEntry) -> str:
    match fact.fact:
        case SessionCreated():
            return "the session is opened"
        case SessionUpdated():
            given = msgspec.json.decode(fact.data, type=dict[str, msgspec.Raw])
            names = [name for name in given if name in _CHANGES]
            return f"changed: {', '.join(names)}"
        case SessionDeleted():
            return "the session is deleted"
        case _:
            return describe_fact(fact)


_CHANGES = frozenset(SessionUpdated.__struct_fields__) - {"at", "prev", "nonce"}
