"""What a run's facts say: to somebody who is about to work on it, and to everybody."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shared.events import (
    CancelRequested,
    Continued,
    Fault,
    PreviousAttempt,
    PromptSource,
    RunClaimed,
    RunEnded,
    TodoChat,
    TodoProcess,
    Turn,
)
from shared.ids import now
from shared.log_entry import LogEntry
from shared.run_state import ChainState, RunState, begin
from tests.support.plans import a_document

SOURCE = PromptSource(
    provider="p", model="m", system=None, message_ids=[], temperature=None, max_tokens=None
)
CLAIM = RunClaimed(at=now(), worker="one", todo=7, prompt=SOURCE, failures=2)
NEXT_CLAIM = RunClaimed(at=now(), worker="other", todo=7, prompt=SOURCE, failures=1)
CANCEL = CancelRequested(at=now())
FINAL = RunEnded(at=now(), status="completed", attempt=8, text="", length=0, sha256="")
TODO = TodoChat(
    at=now(), n=1, turn=Turn(user_message_id="u", assistant_message_id="a", content=None)
)
STEP = TodoProcess(at=now(), n=1, priority=0, step="next", plan=a_document())

ECHO = TodoProcess(at=now(), n=0, priority=0, step="first", plan=a_document())


def after(*facts: Any) -> ChainState:
    return ChainState(7, [LogEntry.of(8 + n, "evt.u.s.r.x", fact) for n, fact in enumerate(facts)])


def fields_of(state: ChainState) -> dict[str, object]:
    hidden = ("claim", "n", "_failed")
    return {name: value for name, value in vars(state).items() if name not in hidden}


@pytest.mark.parametrize(
    ("facts", "stands"),
    [
        ([], {"head": 7, "attempt": 0, "claims": 0, "cancelled": False, "over": False}),
        ([CLAIM], {"head": 8, "attempt": 8, "claims": 1, "cancelled": False, "over": False}),
        (
            [CLAIM, NEXT_CLAIM],
            {"head": 9, "attempt": 9, "claims": 2, "cancelled": False, "over": False},
        ),
        ([CANCEL], {"head": 8, "attempt": 0, "claims": 0, "cancelled": True, "over": False}),
        ([CLAIM, FINAL], {"head": 9, "attempt": 8, "claims": 1, "cancelled": False, "over": True}),
        ([TODO], {"head": 8, "attempt": 0, "claims": 0, "cancelled": False, "over": True}),
        ([STEP], {"head": 8, "attempt": 0, "claims": 0, "cancelled": False, "over": True}),
        ([ECHO], {"head": 8, "attempt": 0, "claims": 0, "cancelled": False, "over": False}),
    ],
)
def test_a_run_stands_where_its_facts_say(facts: list[Any], stands: dict[str, object]):
    assert fields_of(after(*facts)) == stands


def test_failures_are_those_that_the_latest_claim_knew_of():
    assert [after().failures, after(CLAIM).failures, after(CLAIM, NEXT_CLAIM).failures] == [0, 2, 1]


def test_an_attempt_that_its_provider_ended_is_no_death():
    fault = Fault(code="timeout", message="")
    failed = PreviousAttempt(attempt=8, text="", reason="the provider failed", fault=fault)
    lost = PreviousAttempt(attempt=8, text="", reason="its worker was lost")
    after_failure = msgspec.structs.replace(CLAIM, previous=failed)
    after_loss = msgspec.structs.replace(CLAIM, previous=lost)

    deaths = [after(CLAIM, *more).deaths for more in ([], [after_failure], [after_loss] * 2)]

    assert deaths == [1, 1, 3]


def test_facts_that_come_later_are_taken_in():
    state = after(CLAIM)

    state.add([LogEntry.of(20, "evt.u.s.r.cancel", CANCEL)])

    assert (state.claim, state.head, state.cancelled) == (CLAIM, 20, True)


# -- how it went ---------------------------------------------------------------------------

BEGAN = now()


def a_claim(seconds: float, previous: PreviousAttempt | None = None) -> RunClaimed:
    at = BEGAN + timedelta(seconds=seconds)
    return msgspec.structs.replace(CLAIM, at=at, previous=previous)


def state_of(*facts: Any) -> RunState:
    """A reply's state after its todo, which has the sequence 1, and these facts."""
    state = begin(1, TODO)
    for seq, fact in enumerate((TODO, *facts), start=1):
        state.apply(seq, fact)
    return state


def test_the_first_word_is_the_one_that_a_lost_attempt_had_shown():
    lost = PreviousAttempt(attempt=2, text="ab", reason="lost", timeline=[(30, 1), (40, 2)])
    final = msgspec.structs.replace(FINAL, attempt=3, timeline=[(7, 1)])

    state = state_of(a_claim(1), a_claim(9, lost), final)

    assert state.first_word_at == BEGAN + timedelta(seconds=1.03)
    assert (state.restarts, state.claimed_at) == (1, BEGAN + timedelta(seconds=9))


def test_an_attempt_that_was_lost_without_a_word_is_not_the_first():
    lost = PreviousAttempt(attempt=2, text="", reason="lost")
    final = msgspec.structs.replace(FINAL, attempt=3, timeline=[(7, 1)])

    state = state_of(a_claim(1), a_claim(9, lost), final)

    assert state.first_word_at == BEGAN + timedelta(seconds=9.007)


def test_a_reply_that_goes_on_has_its_first_word_where_it_grows():
    goes_on = msgspec.structs.replace(TODO.turn, continues=Continued(length=5))
    final = msgspec.structs.replace(FINAL, attempt=3, timeline=[(0, 5), (300, 6)])

    state = state_of(msgspec.structs.replace(TODO, turn=goes_on), a_claim(1), final)

    assert state.first_word_at == BEGAN + timedelta(seconds=1.3)


def test_a_step_after_another_is_no_restart():
    state = begin(1, ECHO)

    for seq, fact in enumerate((ECHO, a_claim(1), STEP, a_claim(2)), start=1):
        state.apply(seq, fact)

    assert state.restarts == 0
