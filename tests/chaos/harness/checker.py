"""Holds what clients, log, store and provider have against each other (pure).

:data:`RULES` is the list of what must be true, whatever was killed, stopped or cut.
An honest failure breaks none of them; a wrong text always does.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec

from tests.chaos.harness.differences import common_prefix, difference
from tests.chaos.harness.evidence import (
    Call,
    Evidence,
    Final,
    LoggedRun,
    Shown,
    StoredMessage,
    sha256,
)

MOST_CLAIMS = 12
"""Attempts of one todo: six silent deaths and three failures of a provider end it before."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must not be."""

    rule: str
    where: str
    """The client, run, session or message that it is about."""
    detail: str


Findings = Iterator[Finding]


class Sides:
    """The evidence, and where in it to look for a run."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._runs: dict[str, LoggedRun] = {}
        for run in evidence.runs:
            names = (run.run_id, run.assistant_message_id, run.session_id if run.is_job else "")
            self._runs |= {name: run for name in names if name}
        self.calls: defaultdict[str, list[Call]] = defaultdict(list)
        for call in evidence.calls:
            self.calls[call.mark].append(call)

    def run_of(self, shown: Shown) -> LoggedRun | None:
        """The run that a client was shown; None where the log does not know it."""
        return self._runs.get(shown.run_id or shown.message_id or shown.session_id)

    def run(self, run_id: str) -> LoggedRun | None:
        return self._runs.get(run_id)

    def texts(self, run: LoggedRun) -> list[str]:
        """Every text that an attempt of the run may have had."""
        lost = [attempt.text for attempt in run.lost]
        return [*lost, *(call.text for call in self.calls[run.mark])]


def check(evidence: Evidence) -> list[Finding]:
    """Everything that must not be, rule by rule."""
    sides = Sides(evidence)
    return [finding for rule in RULES for finding in rule(sides)]


# -- what clients hold ------------------------------------------------------------------


def clients_object_to_nothing(sides: Sides) -> Findings:
    """A client written from its contract alone met what its contract does not have."""
    for shown in sides.evidence.shown:
        if shown.problem:
            yield _finding("client", shown, shown.problem)


def what_is_shown_is_in_the_log(sides: Sides) -> Findings:
    """The same text, end and digest: whole where the end was shown, else its beginning."""
    for shown in sides.evidence.shown:
        run = sides.run_of(shown)
        if run is None:
            if shown.run_id or shown.message_id or shown.session_id:
                yield _finding("missing", shown, "the log has no such run")
        elif run.final is None:
            if shown.status:
                yield _finding("missing", shown, f"{shown.status} is not in the log")
        elif shown.status in ("completed", "cancelled"):
            yield from _is_the_final(shown, run.final, sides.texts(run))
        else:
            yield from _is_a_beginning(shown, run, sides)


def _is_the_final(shown: Shown, final: Final, others: Sequence[str]) -> Findings:
    if shown.status != final.status:
        yield _finding("wrong end", shown, f"{shown.status} was shown, the log has {final.status}")
    if shown.sha256 and shown.sha256 != final.sha256:
        yield _finding("wrong digest", shown, f"{shown.sha256} was shown, not {final.sha256}")
    truth = final.results.get(shown.step, "") if shown.step else final.text
    if sha256(shown.text) != sha256(truth):
        yield from _differs(shown, shown.text, truth, others)


def _is_a_beginning(shown: Shown, run: LoggedRun, sides: Sides) -> Findings:
    """What was shown of a reply that failed, or that this client did not see to its end."""
    final = run.final
    assert final is not None
    if shown.status and shown.status != final.status:
        yield _finding("wrong end", shown, f"{shown.status} was shown, the log has {final.status}")
    texts = [final.text, *sides.texts(run)]
    if not any(text.startswith(shown.text) for text in texts):
        nearest = max(texts, key=lambda text: common_prefix(shown.text, text))
        yield from _differs(shown, shown.text, nearest[: len(shown.text)], texts)


def an_end_is_shown_once(sides: Sides) -> Findings:
    for shown in sides.evidence.shown:
        if shown.ends > 1:
            yield _finding("two ends", shown, f"{shown.ends} ends were shown")


def progress_only_grows(sides: Sides) -> Findings:
    """0 to 100, and 100 at the end of what is completed."""
    for shown in sides.evidence.shown:
        seen = shown.progress
        if seen != sorted(seen) or not all(0 <= each <= 100 for each in seen):
            yield _finding("progress", shown, f"went back or too far: {seen}")


def steps_come_once_and_in_order(sides: Sides) -> Findings:
    """Every connection is shown the steps from the first on, and none twice."""
    for shown in sides.evidence.shown:
        longest = max(shown.steps, key=len, default=[])
        for steps in shown.steps:
            if steps != longest[: len(steps)] or len(steps) != len(set(steps)):
                yield _finding("steps", shown, f"{steps} beside {longest}")


# -- what the log says --------------------------------------------------------------------


def every_run_ends_once(sides: Sides) -> Findings:
    """One final, and nothing after it."""
    for run in sides.evidence.runs:
        if not run.finals:
            yield _about(run, "stuck", f"no end after {run.facts[-1].kind}")
        elif len(run.finals) > 1:
            yield _about(run, "two finals", ", ".join(str(final.seq) for final in run.finals))
        elif run.facts[-1].seq != run.finals[0].seq:
            later = run.facts[-1]
            yield _about(run, "went on", f"{later.kind} at {later.seq} after the final")


def every_chain_is_unbroken(sides: Sides) -> Findings:
    """Each fact expects the one before it; a turn's todo, which extends its session's, a later one.

    What a schedule or a dispatch appends is checked against no chain of the run.
    """
    for run in sides.evidence.runs:
        for before, after in itertools.pairwise(run.facts):
            is_todo = after.kind.startswith("todo.chat")
            if after.prev < before.seq if is_todo else after.prev != before.seq:
                yield _about(run, "fork", f"{after.kind} at {after.seq} expected {after.prev}")


def every_final_is_true_to_itself(sides: Sides) -> Findings:
    """Its length and digest are its text's, and its attempt is one of the run's claims."""
    for run in sides.evidence.runs:
        for final in run.finals:
            if final.length != len(final.text):
                yield _about(run, "wrong digest", f"length {final.length} of {len(final.text)}")
            if final.sha256 != sha256(final.text):
                yield _about(run, "wrong digest", f"{final.sha256} is not of its text")
            if final.attempt not in (0, *run.claims):
                yield _about(run, "wrong attempt", f"{final.attempt} is none of {run.claims}")


def attempts_are_bounded_and_numbered_once(sides: Sides) -> Findings:
    owners: dict[int, str] = {}
    for run in sides.evidence.runs:
        todos = sum(fact.kind.startswith("todo.") for fact in run.facts)
        if len(run.claims) > MOST_CLAIMS * max(todos, 1):
            yield _about(run, "attempts", f"{len(run.claims)} claims of {todos} todos")
        for claim in run.claims:
            if claim in owners:
                yield _about(run, "attempts", f"{claim} is an attempt of {owners[claim]} as well")
            owners[claim] = run.run_id


def a_session_has_one_run_at_a_time(sides: Sides) -> Findings:
    """A turn is begun only when the one before it has ended."""
    sessions: defaultdict[str, list[LoggedRun]] = defaultdict(list)
    for run in sides.evidence.runs:
        sessions[run.session_id].append(run)
    for session_id, runs in sessions.items():
        begun = sorted((begin, run) for run in runs if (begin := _begin_of(run)) is not None)
        for (_, before), (begin, after) in itertools.pairwise(begun):
            if before.final is None or before.final.seq > begin:
                detail = f"{after.run_id} began at {begin} before {before.run_id} had ended"
                yield Finding(rule="two at once", where=session_id, detail=detail)


def _begin_of(run: LoggedRun) -> int | None:
    return next((fact.seq for fact in run.facts if fact.kind.startswith("todo.")), None)


def a_key_is_one_turn(sides: Sides) -> Findings:
    """A message that was sent again under its key is answered anew only if it failed in passing."""
    keys: defaultdict[str, list[LoggedRun]] = defaultdict(list)
    for run in sides.evidence.runs:
        if run.key:
            keys[run.key].append(run)
    for key, runs in keys.items():
        for before in sorted(runs, key=lambda run: run.facts[0].seq)[:-1]:
            if before.final is None or not before.final.retryable:
                detail = f"another run follows {before.run_id}, which did not fail in passing"
                yield Finding(rule="sent twice", where=key, detail=detail)


# -- what the provider sent -----------------------------------------------------------------


def every_text_is_one_calls(sides: Sides) -> Findings:
    """Whole if the run completed, else its beginning; or a sentence of natterlog's own, which
    only an odd answer of the provider can be the reason of."""
    for run in sides.evidence.runs:
        if not run.mark or run.final is None:
            continue
        final, calls = run.final, sides.calls[run.mark]
        for text in [*final.results.values(), final.text] if run.is_job else [final.text]:
            whole = final.status == "completed"
            if not _is_from_a_call(text, calls, whole=whole) and not _is_read(run, text):
                yield from _not_from_a_call(run, text, calls)


def _is_from_a_call(text: str, calls: Sequence[Call], *, whole: bool) -> bool:
    if any(call.case for call in calls) and not any(_is_tagged(text, call) for call in calls):
        return True
    if whole:
        return any(text == call.text for call in calls)
    return any(call.text.startswith(text) for call in calls) or not text


def _is_tagged(text: str, call: Call) -> bool:
    """Whether the provider's own marks are in the text: each token of a call has its tag."""
    return f"{call.tag}-" in text


def _is_read(run: LoggedRun, text: str) -> bool:
    """Whether it is what a processor read, and no answer of a model."""
    return run.is_job and not text


def _not_from_a_call(run: LoggedRun, text: str, calls: Sequence[Call]) -> Findings:
    texts = [call.text for call in calls]
    if not texts:
        yield _about(run, "wrong", f"nobody was called for {text[:60]!r}")
        return
    nearest = max(texts, key=lambda each: common_prefix(text, each))
    found = difference(text, nearest, [each for each in texts if each != nearest])
    assert found is not None
    yield _about(run, found.kind, f"against what the provider sent: {found.detail}")


def nothing_is_charged_twice(sides: Sides) -> Findings:
    """A call that was answered whole is paid: each is a claim's own, or a call that failed."""
    due: Counter[str] = Counter()
    for run in sides.evidence.runs:
        due[run.mark] += len(run.claims) + run.failed_calls
    for mark, calls in sides.calls.items():
        paid = sum(call.whole and bool(call.text) and not call.case for call in calls)
        if mark and paid > due[mark]:
            detail = f"{paid} whole answers for {due[mark]} claims and failed calls"
            yield Finding(rule="charged twice", where=mark, detail=detail)


def usage_is_counted_once(sides: Sides) -> Findings:
    """What ``GET /usage`` adds up is what the finals have."""
    counted = sides.evidence.output_tokens
    logged = sum(f.output_tokens for run in sides.evidence.runs for f in run.finals)
    if counted is not None and counted != logged:
        detail = f"{counted} tokens are counted, the log has {logged}"
        yield Finding(rule="charged twice", where="usage", detail=detail)


# -- what the store answers -----------------------------------------------------------------


def every_reply_is_stored_once_and_true(sides: Sides) -> Findings:
    """A message of each run that ended with text, with the log's text and status."""
    replies: defaultdict[str, list[StoredMessage]] = defaultdict(list)
    for message in sides.evidence.messages:
        if message.role == "assistant" and message.run_id:
            replies[message.run_id].append(message)
    for run_id, messages in replies.items():
        run = sides.run(run_id)
        if run is None or run.final is None:
            yield Finding(rule="missing", where=run_id, detail="stored, and not in the log")
            continue
        if len(messages) > 1:
            yield _about(run, "message twice", ", ".join(message.id for message in messages))
        for message in messages:
            if found := difference(message.content, run.final.text, sides.texts(run)):
                yield _about(run, found.kind, f"as the store has it: {found.detail}")
            if message.status != run.final.status:
                yield _about(run, "wrong end", f"stored as {message.status}")


def every_user_message_is_stored_once(sides: Sides) -> Findings:
    """One that was cancelled while it waited was never sent, and is in no conversation."""
    counts = Counter(m.content for m in sides.evidence.messages if m.role == "user")
    for content, count in counts.items():
        if count > 1:
            yield Finding(rule="message twice", where=content[:60], detail=f"{count} times")
    stored = {message.id for message in sides.evidence.messages}
    sessions = {message.session_id for message in sides.evidence.messages}
    for run in sides.evidence.runs:
        is_due = run.session_id in sessions and _begin_of(run) is not None
        if is_due and run.user_message_id not in (*stored, ""):
            yield _about(run, "missing", "its user message is not stored")


def every_run_is_stored_as_it_ended(sides: Sides) -> Findings:
    for stored in sides.evidence.stored_runs:
        run = sides.run(stored.id)
        final = run.final if run else None
        if run is None or final is None:
            continue  # a rule of its own
        truth = (final.status, final.sha256, final.length)
        if (stored.status, stored.sha256, stored.length) != truth:
            yield _about(run, "wrong end", f"stored as {stored.status}, {stored.sha256}")


def the_api_shows_the_log(sides: Sides) -> Findings:
    """``GET …/events`` has every fact of a session, once and in order."""
    for session_id, shown in sides.evidence.api_facts.items():
        logged = sides.evidence.log_facts.get(session_id, [])
        if shown != logged:
            odd = sorted(set(shown) ^ set(logged)) or shown
            yield Finding(rule="events", where=session_id, detail=f"they differ at {odd[:5]}")


# -- how a finding is written ---------------------------------------------------------------


def _finding(rule: str, shown: Shown, detail: str) -> Finding:
    way = " → ".join(shown.via)
    return Finding(rule=rule, where=f"{shown.client} ({way}) {shown.mark}", detail=detail)


def _about(run: LoggedRun, rule: str, detail: str) -> Finding:
    return Finding(rule=rule, where=f"run {run.run_id} {run.mark}", detail=detail)


def _differs(shown: Shown, held: str, truth: str, others: Sequence[str]) -> Findings:
    found = difference(held, truth, [other for other in others if other != truth])
    if found is not None:
        yield _finding(found.kind, shown, found.detail)


RULES: tuple[Callable[[Sides], Findings], ...] = (
    clients_object_to_nothing,
    what_is_shown_is_in_the_log,
    an_end_is_shown_once,
    progress_only_grows,
    steps_come_once_and_in_order,
    every_run_ends_once,
    every_chain_is_unbroken,
    every_final_is_true_to_itself,
    attempts_are_bounded_and_numbered_once,
    a_session_has_one_run_at_a_time,
    a_key_is_one_turn,
    every_text_is_one_calls,
    nothing_is_charged_twice,
    usage_is_counted_once,
    every_reply_is_stored_once_and_true,
    every_user_message_is_stored_once,
    every_run_is_stored_as_it_ended,
    the_api_shows_the_log,
)
