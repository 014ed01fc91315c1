"""The log's side of the evidence: runs as plain data, from their facts (pure)."""

from shared.events import (
    DocumentPlan,
    PipelinePlan,
    Plan,
    RunClaimed,
    RunEnded,
    RunWaiting,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
)
from shared.log_entry import LogEntry
from tests.chaos.harness.evidence import Attempt, Fact, Final, LoggedRun
from tests.chaos.harness.prompts import mark_of
from tests.support.log_checks import RunLog


def logged_run(run: RunLog) -> LoggedRun:
    """One run of the log, without what is not held against anything."""
    facts = [entry.fact for entry in run.links]
    turn = next((fact.turn for fact in facts if isinstance(fact, RunWaiting | TodoChat)), None)
    plan = next((fact.plan for fact in facts if isinstance(fact, TodoProcess | TodoGenerate)), None)
    followed = [f for f in facts if isinstance(f, RunClaimed | TodoProcess | TodoGenerate)]
    previous = [fact.previous for fact in followed if fact.previous is not None]
    tries = [*(p.tries for p in previous), *(f.tries for f in run.finals)]
    return LoggedRun(
        run_id=run.run_id,
        session_id=run.links[0].address.session,
        mark=mark_of(_prompt(turn, plan)),
        is_job=plan is not None,
        user_message_id=turn.user_message_id if turn else "",
        assistant_message_id=turn.assistant_message_id if turn else "",
        key=(turn.idempotency_key or "") if turn else "",
        facts=[Fact(seq=e.seq, kind=e.kind, prev=e.fact.prev) for e in run.links],
        claims=[entry.seq for entry in run.claims],
        failed_calls=sum(map(len, tries)),
        lost=[Attempt(attempt=p.attempt, text=p.text) for p in previous],
        finals=[_final(entry) for entry in run.links if isinstance(entry.fact, RunEnded)],
    )


def _prompt(turn: Turn | None, plan: Plan | None) -> str:
    match plan:
        case DocumentPlan(prompt=prompt):
            return prompt
        case PipelinePlan(inputs=inputs):
            return " ".join(inputs.values())
        case _:
            return (turn.content or "") if turn else ""


def _final(entry: LogEntry) -> Final:
    final = entry.fact
    assert isinstance(final, RunEnded)
    return Final(
        seq=entry.seq,
        status=final.status,
        attempt=final.attempt,
        text=final.text,
        length=final.length,
        sha256=final.sha256,
        code=final.error.code if final.error else "",
        retryable=final.error is not None and final.error.retryable,
        output_tokens=final.usage.output_tokens if final.usage else 0,
        results={result.step: result.text for result in final.results},
    )
