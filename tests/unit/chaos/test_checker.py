"""The checker passes what is sound, and fails whatever was planted: it can be believed."""

import copy
from collections.abc import Callable

import msgspec
import pytest

from tests.chaos.harness.checker import RULES, Sides, check
from tests.chaos.harness.evidence import (
    Attempt,
    Call,
    Evidence,
    Fact,
    Final,
    LoggedRun,
    Shown,
    StoredMessage,
    StoredRun,
    sha256,
)

LOST = "a1-0 a1-1 "
TEXT = "a2-0 a2-1 a2-2 a2-3 "
ANSWER = "a3-0 a3-1 "
POST = "a5-0 a5-1 "
PLAN, VERDICT = '{"tone": "a4-0"}', '{"approved": true, "disclaimer": "a6-0"}'


def final(seq: int, text: str, status: str = "completed", **more: object) -> Final:
    fields = {"attempt": seq - 1, "length": len(text), "sha256": sha256(text), **more}
    return msgspec.convert({"seq": seq, "status": status, "text": text, **fields}, Final)


def chain(*facts: tuple[int, str]) -> list[Fact]:
    befores = [0, *(seq for seq, _ in facts)]
    return [Fact(seq=s, kind=k, prev=p) for (s, k), p in zip(facts, befores, strict=False)]


CHAT = LoggedRun(
    run_id="chat",
    session_id="talk",
    mark="m1",
    user_message_id="u1",
    assistant_message_id="r1",
    key="k1",
    facts=chain((10, "todo.chat.0"), (11, "claim"), (12, "claim"), (13, "final")),
    claims=[11, 12],
    failed_calls=1,
    lost=[Attempt(attempt=11, text=LOST)],
    finals=[final(13, TEXT, output_tokens=4)],
)
JOB = LoggedRun(
    run_id="job",
    session_id="file",
    mark="m2",
    is_job=True,
    facts=chain((20, "todo.process.0"), (21, "claim"), (22, "final")),
    claims=[21],
    finals=[final(22, ANSWER, output_tokens=2, results={"extract": "", "answer": ANSWER})],
)
PIPELINE = LoggedRun(
    run_id="pipeline",
    session_id="post",
    mark="m3",
    is_job=True,
    facts=chain((30, "todo.process.0"), (31, "claim"), (32, "claim"), (33, "claim"), (34, "final")),
    claims=[31, 32, 33],
    finals=[
        final(
            34,
            VERDICT,
            results={
                "keywords": PLAN,
                "content_generation": POST,
                "compliance_check": VERDICT,
            },
        )
    ],
)


def call(tag: str, mark: str, text: str, *, whole: bool = True, case: str = "") -> Call:
    return Call(tag=tag, mark=mark, text=text, whole=whole, case=case)


def message(name: str, role: str, content: str, **more: str) -> StoredMessage:
    fields = {"session_id": "talk", "status": "completed", "run_id": "chat", **more}
    return msgspec.convert({"id": name, "role": role, "content": content, **fields}, StoredMessage)


def shown(**fields: object) -> Shown:
    """A client that moved about, and holds all of the chat's reply."""
    sound = {
        "client": "native0",
        "dialect": "assistant",
        "via": ["stream", "socket"],
        "mark": "m1",
        "run_id": "chat",
        "text": TEXT,
        "status": "completed",
        "ends": 1,
        "sha256": sha256(TEXT),
    }
    return msgspec.convert(sound | fields, Shown)


SOUND = Evidence(
    shown=[
        shown(),
        shown(dialect="channels", run_id="", message_id="r1", sha256=""),
        shown(text=LOST[:7], status="", ends=0, sha256=""),  # left in the attempt that was lost
        shown(run_id="job", text=ANSWER, sha256="", progress=[0, 20, 100], mark="m2"),
        shown(
            run_id="",
            session_id="post",
            step="content_generation",
            text=POST,
            sha256="",
            mark="m3",
            steps=[["keywords"], ["keywords", "content_generation"]],
        ),
    ],
    runs=[CHAT, JOB, PIPELINE],
    messages=[message("u1", "user", "mark=m1 tokens=4"), message("r1", "assistant", TEXT)],
    stored_runs=[
        StoredRun(id="chat", status="completed", attempt=12, sha256=sha256(TEXT), length=len(TEXT))
    ],
    calls=[
        call("a1", "m1", LOST + "a1-2 ", whole=False),
        call("a2", "m1", TEXT),
        call("a3", "m2", ANSWER),
        call("a4", "m3", PLAN),
        call("a5", "m3", POST),
        call("a6", "m3", VERDICT),
    ],
    api_facts={"talk": [10, 11, 12, 13]},
    log_facts={"talk": [10, 11, 12, 13]},
    output_tokens=6,
)

Change = Callable[[Evidence], None]


def in_shown(number: int = 0, **fields: object) -> Change:
    def change(evidence: Evidence) -> None:
        evidence.shown[number] = msgspec.structs.replace(evidence.shown[number], **fields)

    return change


def in_run(number: int = 0, **fields: object) -> Change:
    def change(evidence: Evidence) -> None:
        evidence.runs[number] = msgspec.structs.replace(evidence.runs[number], **fields)

    return change


def in_message(**fields: object) -> Change:
    def change(evidence: Evidence) -> None:
        evidence.messages[1] = msgspec.structs.replace(evidence.messages[1], **fields)

    return change


def in_stored_run(**fields: object) -> Change:
    def change(evidence: Evidence) -> None:
        evidence.stored_runs[0] = msgspec.structs.replace(evidence.stored_runs[0], **fields)

    return change


def one_more(run: LoggedRun) -> Change:
    return lambda evidence: evidence.runs.append(run)


def paid_again(evidence: Evidence) -> None:
    evidence.calls += [call("a7", "m2", "a7-0 ")]


def from_nobody(evidence: Evidence) -> None:
    evidence.calls[2] = call("a3", "elsewhere", ANSWER)


def counted_twice(evidence: Evidence) -> None:
    evidence.output_tokens = 12


def kept_back(evidence: Evidence) -> None:
    evidence.api_facts["talk"] = [10, 11, 13]


def user_message_gone(evidence: Evidence) -> None:
    del evidence.messages[0]


def user_message_again(evidence: Evidence) -> None:
    evidence.messages.append(message("u9", "user", "mark=m1 tokens=4"))


def reply_again(evidence: Evidence) -> None:
    evidence.messages.append(message("r9", "assistant", TEXT))


SPLICED = "a1-0 a1-1 a2-2 a2-3 "
TWO_FINALS = [final(13, TEXT, output_tokens=4), final(14, TEXT)]
LATER = chain((10, "todo.chat.0"), (11, "claim"), (12, "claim"), (13, "final"), (15, "claim"))
FORKED = [*CHAT.facts[:2], Fact(seq=12, kind="claim", prev=10), *CHAT.facts[3:]]
OTHER = msgspec.structs.replace(
    CHAT,
    run_id="other",
    assistant_message_id="r2",
    user_message_id="u1",
    mark="",
    claims=[],
    finals=[final(41, "", "cancelled", attempt=0)],
)
AT_ONCE = msgspec.structs.replace(OTHER, key="k2", facts=chain((11, "todo.chat.0"), (41, "final")))
AGAIN = msgspec.structs.replace(OTHER, facts=chain((40, "todo.chat.0"), (41, "final")))

PLANTED: dict[str, tuple[str, Change]] = {
    "a client objects": ("client", in_shown(problem="no such frame")),
    "lost: its last characters": ("lost", in_shown(text=TEXT[:-5])),
    "lost: one in the middle": ("lost", in_shown(text=TEXT[:6] + TEXT[7:])),
    "lost: all of it": ("lost", in_shown(text="")),
    "doubled: a token": ("doubled", in_shown(text=TEXT[:10] + TEXT[5:10] + TEXT[10:])),
    "doubled: all of it": ("doubled", in_shown(text=TEXT + TEXT)),
    "spliced: two attempts": ("spliced", in_shown(text=SPLICED)),
    "wrong: another word": ("wrong", in_shown(text=TEXT.replace("a2-1", "b2-1"))),
    "wrong: in a reply that a client left": ("wrong", in_shown(2, text="a1-0 b")),
    "spliced: in a reply that a client left": ("spliced", in_shown(2, text="a1-0 a2-1")),
    "wrong: in the dialect that names messages": ("lost", in_shown(1, text=TEXT[1:])),
    "wrong: in a step's result": ("lost", in_shown(4, text=POST[:-1])),
    "another end than the log's": ("wrong end", in_shown(status="cancelled")),
    "another digest than the log's": ("wrong digest", in_shown(sha256="0")),
    "an end that the log does not know": ("missing", in_shown(run_id="gone")),
    "two ends": ("two ends", in_shown(ends=2)),
    "progress that went back": ("progress", in_shown(3, progress=[0, 50, 20])),
    "progress beyond its end": ("progress", in_shown(3, progress=[0, 101])),
    "a step twice": ("steps", in_shown(4, steps=[["keywords", "keywords"]])),
    "a step left out": ("steps", in_shown(4, steps=[["keywords", "a"], ["a"]])),
    "no final": ("stuck", in_run(finals=[], facts=CHAT.facts[:3])),
    "two finals": ("two finals", in_run(finals=TWO_FINALS)),
    "a fact after the final": ("went on", in_run(facts=LATER)),
    "a fork": ("fork", in_run(facts=FORKED)),
    "a final of another digest": ("wrong digest", in_run(finals=[final(13, TEXT, sha256="0")])),
    "a final of another length": ("wrong digest", in_run(finals=[final(13, TEXT, length=3)])),
    "a final of no attempt": ("wrong attempt", in_run(finals=[final(13, TEXT, attempt=9)])),
    "attempts without a bound": ("attempts", in_run(claims=list(range(100, 140)))),
    "one attempt of two runs": ("attempts", in_run(1, claims=[11])),
    "two runs at once": ("two at once", one_more(AT_ONCE)),
    "a key twice": ("sent twice", one_more(AGAIN)),
    "a text that no call had": ("spliced", in_run(finals=[final(13, SPLICED)])),
    "a text that lost its end on the way to the log": ("lost", in_run(finals=[final(13, LOST)])),
    "a text that nobody was called for": ("wrong", from_nobody),
    "a call too many": ("charged twice", paid_again),
    "tokens counted twice": ("charged twice", counted_twice),
    "a stored reply that lost characters": ("lost", in_message(content=TEXT[3:])),
    "a stored reply of another status": ("wrong end", in_message(status="failed")),
    "a stored reply of no run": ("missing", in_message(run_id="gone")),
    "a reply stored twice": ("message twice", reply_again),
    "a user's message stored twice": ("message twice", user_message_again),
    "a user's message that is gone": ("missing", user_message_gone),
    "a run stored with another digest": ("wrong end", in_stored_run(sha256="0")),
    "a fact that the API keeps back": ("events", kept_back),
}


def test_sound_evidence_has_no_finding():
    assert check(SOUND) == []


@pytest.mark.parametrize(("rule", "plant"), PLANTED.values(), ids=list(PLANTED))
def test_what_was_planted_is_found(rule: str, plant: Change):
    evidence = copy.deepcopy(SOUND)

    plant(evidence)

    assert rule in {finding.rule for finding in check(evidence)}


def test_every_rule_can_fail():
    failing = set[str]()
    for _, plant in PLANTED.values():
        evidence = copy.deepcopy(SOUND)
        plant(evidence)
        failing |= {rule.__name__ for rule in RULES if list(rule(Sides(evidence)))}

    assert failing == {rule.__name__ for rule in RULES}


def test_an_honest_failure_is_no_finding():
    evidence = Evidence(
        shown=[shown(text=LOST, status="failed", sha256="")],
        runs=[msgspec.structs.replace(CHAT, finals=[final(13, LOST, "failed", attempt=12)])],
        calls=SOUND.calls[:1],
    )

    assert check(evidence) == []


def test_a_key_whose_turn_failed_in_passing_may_be_answered_anew():
    failed = msgspec.structs.replace(
        CHAT, finals=[final(13, LOST, "failed", attempt=12, retryable=True)]
    )

    assert check(Evidence(runs=[failed, AGAIN], calls=SOUND.calls[:1])) == []


def test_a_sentence_of_natterlogs_own_is_right_only_after_an_odd_answer():
    own = msgspec.structs.replace(CHAT, finals=[final(13, "The model refused.", attempt=12)])
    odd = call("a1", "m1", "a1-0 a1-1 ", case="openai/d6cf")

    assert check(Evidence(runs=[own], calls=[odd])) == []
    assert [f.rule for f in check(Evidence(runs=[own], calls=SOUND.calls[:2]))] == ["wrong"]
