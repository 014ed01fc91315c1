"""The model of a busy session lets pass what its policy allows, and nothing else."""

import msgspec
import pytest

from tests.chaos.harness.policy_model import Answered, Played, Policy, SessionFact, faults_of


def facts(*kinds: str) -> list[SessionFact]:
    """``"todo a"`` and so on, a second apart."""
    pairs = (kind.split() for kind in kinds)
    return [SessionFact(kind=k, run=run, at=float(at)) for at, (k, run) in enumerate(pairs)]


def played(policy: Policy, *kinds: str, branch: str = "aabb", refused_at: float = -1.0) -> Played:
    found = facts(*kinds)
    accepted = dict.fromkeys(fact.run for fact in found)
    answers = [Answered(run=run, sent_at=0.0, answered_at=1.0) for run in accepted]
    if refused_at >= 0:
        answers.append(Answered(run="", sent_at=refused_at, answered_at=refused_at))
    return Played(policy=policy, facts=found, answers=answers, branch=list(branch))


QUEUED = ("todo a", "waiting b", "claim a", "completed a", "todo b", "claim b", "completed b")
INTERRUPTED = ("todo a", "waiting b", "cancel a", "cancelled a", "todo b", "completed b")
REJECTED = ("todo a", "claim a", "completed a", "todo b", "completed b")


@pytest.mark.parametrize(
    "sound",
    [
        played("queue", *QUEUED),
        played("interrupt", *INTERRUPTED),
        played("interrupt", *("todo a", "waiting b", "completed a", "todo b", "completed b")),
        played(
            "interrupt",
            *("todo a", "waiting b", "cancel a", "waiting c", "cancel b", "cancelled b"),
            *("cancelled a", "todo c", "completed c"),
            branch="aacc",
        ),
        played("reject", *REJECTED, refused_at=1.0),
    ],
)
def test_what_a_policy_allows_has_no_fault(sound: Played):
    assert faults_of(sound) == []


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (played("queue", "todo a", "todo b", "completed a", "completed b"), "while a was active"),
        (played("queue", "todo a", "waiting b", "completed a"), "b has no end"),
        (played("queue", *QUEUED[:4], "cancelled b", branch="aa"), "before it began"),
        (played("queue", *QUEUED, branch="bbaa"), "the branch reads"),
        (played("queue", *QUEUED, refused_at=1.0), "takes messages"),
        (played("queue", "todo a", "cancel a", "cancelled a", branch="aa"), "by nobody"),
        (played("queue", "todo a", "failed a", branch="aa"), "ended as failed"),
        (played("queue", "todo a", "completed a", "completed a", branch="aa"), "ended twice"),
        (played("queue", "waiting a", "todo a", "completed a", branch="aa"), "waits for nobody"),
        (
            played(
                "queue",
                *("todo a", "waiting b", "waiting c", "completed a", "todo c", "completed c"),
                *("todo b", "completed b"),
                branch="aaccbb",
            ),
            "before b, which waited longer",
        ),
        (
            played(
                "queue",
                *("todo a", "waiting b", "completed a", "todo c", "completed c"),
                *("todo b", "completed b"),
                branch="aaccbb",
            ),
            "went before b",
        ),
        (played("reject", *QUEUED), "although the session rejects"),
        (played("reject", *REJECTED, refused_at=60.0), "while nothing was active"),
        (
            played("interrupt", "todo a", "cancel a", "cancelled a", branch="aa"),
            "ended as cancelled",
        ),
        (played("queue", "todo a", "claim b", "completed a", branch="aa"), "not the active one"),
    ],
)
def test_what_a_policy_does_not_allow_is_named(wrong: Played, fault: str):
    assert any(fault in each for each in faults_of(wrong))


def test_every_run_is_some_senders_own():
    sound = played("queue", *QUEUED)

    nobodys = msgspec.structs.replace(sound, answers=sound.answers[:1])
    shared = msgspec.structs.replace(sound, answers=[*sound.answers, sound.answers[0]])

    assert any("answers and log differ" in each for each in faults_of(nobodys))
    assert faults_of(shared) == ["two senders were given one run"]
