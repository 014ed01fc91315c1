"""What people see of runs and sessions: lists, stories and prompts at 80 columns (pure)."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from services.cli.display.terminal import (
    Page,
    Style,
    at,
    brief_ids,
    clock,
    dollars,
    shortened,
    span,
    table,
)
from services.cli.recorder.recorded_log import RecordedFact
from services.cli.stories.prompt import Part, SentPrompt
from services.cli.stories.story import Attempt, End, Story, say
from services.cli.stories.totals import Sum
from shared.events import SessionCreated, SessionDeleted, SessionUpdated, Try, Usage
from shared.inspection import FoundRun, FoundSession
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


def list_runs(page: Page, runs: Sequence[FoundRun]) -> None:
    """One line a run, the newest first."""
    brief = brief_ids(run.id for run in runs)
    rows = [
        (
            brief[run.id],
            at(run.created_at),
            run.status,
            span(first_word_ms(run)),
            _took(run),
            run.error.code if run.error else _written_by(run),
        )
        for run in runs
    ]
    table(page, ("RUN", "ACCEPTED (UTC)", "STATE", "FIRST", "TOOK", "MODEL OR ERROR"), rows)


def _written_by(run: FoundRun) -> str:
    """The model, or the kind of what asked none; and how it ended, where that is worth a word."""
    model = run.model or run.kind
    return model if run.stop_reason in (None, "end_turn") else f"{run.stop_reason}, {model}"


def first_word_ms(run: FoundRun) -> float | None:
    """From the acceptance to the first word of the reply; known once it has ended."""
    if run.ended_at is None or run.latency_ms is None or run.first_delta_ms is None:
        return None
    all_of_it = (run.ended_at - run.created_at).total_seconds() * 1000
    return max(all_of_it - run.latency_ms, 0) + run.first_delta_ms


def _took(run: FoundRun) -> str:
    if run.ended_at is None:
        return "–"
    return span((run.ended_at - run.created_at).total_seconds() * 1000)


def list_sums(page: Page, by: str, sums: Sequence[Sum]) -> None:
    """One line a key, the one that cost the most first."""
    brief = brief_ids(each.key for each in sums) if by in ("user", "session") else {}
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
        for each in sums
    ]
    table(page, (by.upper(), "RUNS", "FAILED", "IN", "OUT", "CACHED", "COST"), rows)


def _cost_of(each: Sum) -> str:
    told = [] if each.cost is None else [dollars(each.cost)]
    told += [f"{each.unpriced} unpriced"] if each.unpriced else []
    return ", ".join(told) or "–"


def list_sessions(page: Page, sessions: Sequence[FoundSession]) -> None:
    """One line a session, the one last written to first."""
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
    table(page, head, rows)


# -- a run ------------------------------------------------------------------------------


def show_story(page: Page, story: Story, now: datetime) -> None:
    """A run from its acceptance to its end, or to the present."""
    state = page.style(story.state, "bold", COLOURS.get(story.state, "cyan"))  # type: ignore[call-overload]
    page.line(f"{page.style('run', 'bold')} {story.run_id}  {state}")
    page.line(f"  session {story.session_id}")
    page.line(f"  user    {story.user_id}")
    page.line(f"  {story.kind}, accepted {at(story.accepted_at)} UTC{_conditions(story)}")
    page.line()
    for fact in story.facts:
        ms = page.style(f"{span(fact.ms):>12}", "dim")
        page.line(f"{ms}  {shortened(fact.told, 58)}  {page.style(f'#{fact.seq}', 'dim')}")
    if story.end is None:
        silence = (now - story.facts[-1].at).total_seconds() * 1000
        page.line(page.style(f"{'…':>12}  no fact since then, for {span(silence)}", "yellow"))
    for number, attempt in enumerate(story.attempts, start=1):
        page.line()
        _show_attempt(page, number, attempt)
    if story.end is not None:
        page.line()
        _show_end(page, story.end, asked=any(a.source is not None for a in story.attempts))


def _conditions(story: Story) -> str:
    told = ", imported" if story.imported else ""
    if story.continues is not None:
        told += f", goes on after {story.continues} chars"
    if story.waited_ms:
        told += f", waited {span(story.waited_ms)}"
    if story.due is not None:
        told += f", due {at(story.due)}"
    if story.priority is not None:
        told += f", priority {story.priority}"
    return told


def _show_attempt(page: Page, number: int, attempt: Attempt) -> None:
    step = f", step {attempt.step}" if attempt.step else ""
    page.line(page.style(f"attempt {number}", "bold") + f" (#{attempt.attempt}{step})")
    _pair(page, "claimed", f"{clock(attempt.at)}, {span(attempt.after_ms)} after its todo")
    _pair(page, "worker", attempt.worker)
    if attempt.source is not None:
        source = attempt.source
        told = f"{source.provider}/{source.model}"
        if source.temperature is not None:
            told += f", temperature {source.temperature:g}"
        if source.max_tokens is not None:
            told += f", at most {source.max_tokens} tokens"
        _pair(page, "asked", told)
        for note in source.notes:
            _pair(page, "note", note)
    if attempt.first_delta_ms is not None:
        _pair(page, "first", f"{span(attempt.first_delta_ms)} after the claim")
    if attempt.length is not None:
        _pair(page, "text", _text_of(attempt))
    for each, failed in enumerate(attempt.tries, start=1):
        _show_try(page, each, failed)
    for gap in attempt.gaps:
        told = f"{span(gap.ms)} without a word, {span(gap.at_ms)} in, after {gap.length} chars"
        _pair(page, "gap", page.style(told, "yellow"))
    ended = "still running" if attempt.ended is None else attempt.ended
    _pair(page, "ended", ended + (f", after {span(attempt.ended_ms)}" if attempt.ended else ""))


def _show_try(page: Page, number: int, failed: Try) -> None:
    """A failed call: when, with what, what it said and what it took."""
    status = "" if failed.status is None else f"{failed.status} "
    told = f"{status}{failed.code}, {span(failed.ms)} in"
    if failed.usage is not None:
        told += f"; {tokens(failed.usage)}"
    if failed.cost is not None:
        told += f"; {dollars(failed.cost)}"
    _pair(page, f"try {number}", page.style(told, "yellow"))
    page.words(failed.message, indent=" " * 10)


def _text_of(attempt: Attempt) -> str:
    told = f"{attempt.length} chars"
    if attempt.deltas:
        told += f" in {attempt.deltas} delta{'s' if attempt.deltas > 1 else ''}"
    if attempt.rate is not None:
        told += f", {attempt.rate:g} chars/s"
    if attempt.longest_ms is not None:
        told += f", longest silence {span(attempt.longest_ms)}"
    return told


def _show_end(page: Page, end: End, *, asked: bool) -> None:
    page.line(page.style("final", "bold") + f" (#{end.seq})")
    stop = f", {end.stop_reason}" if end.stop_reason else ""
    _pair(page, "state", f"{end.status}{stop}, {span(end.ms)} after the acceptance")
    if end.error is not None:
        again = " (may work another time)" if end.error.retryable else ""
        _pair(page, "error", page.style(f"{end.error.code}: {end.error.message}{again}", "red"))
    _pair(page, "text", f"{end.length} chars")
    if end.thoughts is not None:
        _pair(page, "thought", f"{end.thoughts} chars")
    intact = "matches the text" if end.intact else page.style("DOES NOT MATCH THE TEXT", "red")
    _pair(page, "sha256", end.sha256)
    _pair(page, "", intact)
    if end.usage is not None:
        _pair(page, "tokens", tokens(end.usage))
    if asked or end.cost is not None:
        _pair(page, "cost", _price(end))
    for note in end.notes:
        _pair(page, "note", note)


def tokens(usage: Usage) -> str:
    told = f"{usage.input_tokens} in, {usage.output_tokens} out"
    if usage.cache_read_input_tokens or usage.cache_creation_input_tokens:
        told += f", cache {usage.cache_read_input_tokens} read"
        told += f" {usage.cache_creation_input_tokens} written"
    return told


def _price(end: End) -> str:
    if end.cost is not None:
        return dollars(end.cost)
    why = "nobody counted its tokens" if end.usage is None else "its model has no known price"
    return f"{dollars(None)}: {why}"


def _pair(page: Page, name: str, value: str) -> None:
    page.line(f"  {page.style(name.ljust(8), 'dim')}{value}")


# -- prompts ----------------------------------------------------------------------------


def show_thoughts(page: Page, text: str) -> None:
    """What the model thought before it answered."""
    page.line()
    page.line(page.style("thoughts", "bold"))
    page.words(text, indent="  | ")


def show_prompt(page: Page, prompt: SentPrompt) -> None:
    """What an attempt asked, part by part, each with its origin."""
    page.line()
    page.line(page.style(f"prompt of attempt #{prompt.attempt}", "bold"))
    told = f"{prompt.provider}/{prompt.model}"
    if prompt.temperature is not None:
        told += f", temperature {prompt.temperature:g}"
    if prompt.max_tokens is not None:
        told += f", at most {prompt.max_tokens} tokens"
    page.line(f"  {told}")
    for part in prompt.parts:
        _show_part(page, part)
    for sentence in prompt.left_out:
        page.line(f"  {page.style('left out:', 'yellow')} {sentence}")


def _show_part(page: Page, part: Part) -> None:
    where = f" #{part.seq}" if part.seq is not None else ""
    page.line()
    page.line(f"  {page.style(part.role, 'bold')}{where} {page.style(part.origin, 'dim')}")
    if part.message_id is not None:
        page.line(f"  {page.style(f'message {part.message_id}', 'dim')}")
    if part.text is not None:
        page.words(part.text, indent="  | ")
    if part.file is not None:
        file = part.file
        name = shortened(file.name, 30)
        page.line(f"  | {name}, {file.media_type}, {file.size} bytes")
        page.line(f"  | sha256 {file.sha256[:16]}…, file {part.file_id or file.id}")
    elif part.file_id is not None:
        page.line(f"  | file {part.file_id}")
    for sentence in part.told:
        page.words(sentence, indent="  | ")
    if part.schema is not None:
        page.words(msgspec.json.format(msgspec.json.encode(part.schema)).decode(), indent="  | ")


# -- a session --------------------------------------------------------------------------


def show_session(page: Page, found: FoundSession, facts: Sequence[RecordedFact]) -> None:
    """A session with everything that happened in it, a line a fact."""
    session = found.session
    state = "is being imported" if found.importing else session.status
    page.line(f"{page.style('session', 'bold')} {session.id}  {state}")
    _pair(page, "user", session.user_id)
    if session.title is not None:
        _pair(page, "title", shortened(session.title, 66))
    _pair(page, "opened", f"{at(session.created_at)} UTC, changed {at(session.updated_at)}")
    counts = f"{found.runs} runs, {found.unfinished} of them open"
    _pair(page, "holds", f"{session.message_count} messages of the active branch, {counts}")
    _pair(page, "model", f"{session.model or '–'}, mode {session.mode}, busy: {session.on_busy}")
    page.line()
    brief = brief_ids(f.address.run for f in facts if f.address.run != "_")
    for fact in facts:
        show_fact(page, fact, brief)


def show_fact(page: Page, fact: RecordedFact, brief: dict[str, str]) -> None:
    """A line: when, whose, what."""
    run = fact.address.run
    where = "" if run == "_" else brief.get(run, run[:18])
    when = page.style(f"{fact.fact.at:%m-%d} {clock(fact.fact.at)}", "dim")
    said = shortened(_said(fact), max(20, 80 - 19 - len(where) - len(str(fact.seq)) - 5))
    page.line(f"{when} {where} {said} {page.style(f'#{fact.seq}', 'dim')}".replace("  ", " "))


def _said(fact: RecordedFact) -> str:
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
            return say(fact)


_CHANGES = frozenset(SessionUpdated.__struct_fields__) - {"at", "prev", "nonce"}
