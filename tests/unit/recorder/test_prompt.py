"""An attempt's prompt: every part, and where it came from."""

import io

import msgspec

from services.recorder.pages import show_prompt
from services.recorder.prompt import CONTEXT_MESSAGES, prompts
from services.recorder.terminal import Page
from services.store import context
from shared.events import SessionUpdated
from tests.unit.recorder.told import FILE, OTHER, RUN, Told, answer, at, question, turn

RUNS = [f"01a21600-0000-7000-8000-{n:08}feed" for n in range(30)]


def conversation(turns: int) -> Told:
    """So many complete turns, each its own run, then one that is claimed with the last 20."""
    told = Told()
    told.created()
    ids: list[str] = []
    parent = None
    for n in range(turns):
        todo = told.todo(n * 100, turn(n, f"Question {n}", parent), RUNS[n])
        claim = told.claim(n * 100 + 1, todo, RUNS[n])
        told.final(n * 100 + 2, f"Answer {n}", RUNS[n], attempt=claim)
        ids += [question(n), answer(n)]
        parent = answer(n)
    todo = told.todo(9000, turn(99, "The last", parent))
    told.claim(9001, todo, message_ids=[*ids, question(99)][-CONTEXT_MESSAGES:])
    return told


def test_every_part_says_where_it_came_from():
    [prompt] = prompts(conversation(1).facts, RUN)

    assert [(p.role, p.text, p.seq, p.message_id) for p in prompt.parts] == [
        ("system", "Be brief.", 1, None),
        ("user", "Question 0", 2, question(0)),
        ("assistant", "Answer 0", 4, answer(0)),
        ("user", "The last", 5, question(99)),
    ]
    assert [p.origin for p in prompt.parts] == [
        "the session was opened with it",
        f"asked in run {RUNS[0]}",
        f"the completed reply of run {RUNS[0]}",
        f"asked in run {RUN}",
    ]
    assert prompt.left_out == []


def test_what_was_cut_off_is_told():
    [prompt] = prompts(conversation(12).facts, RUN)

    assert len(prompt.parts) == CONTEXT_MESSAGES + 1
    assert prompt.left_out == ["5 older messages of the branch: a prompt has its last 20"]


def test_it_cuts_where_the_store_does():
    assert CONTEXT_MESSAGES == context.CONTEXT_MESSAGES


def test_a_system_prompt_that_was_changed_is_the_changes():
    told = Told()
    told.created(system_prompt="Be long.")
    told.tell("updated", SessionUpdated(at=at(1), system_prompt="Be brief."))
    told.claim(5, told.todo(4, turn(1, "Hi")), message_ids=[question(1)])

    [prompt] = prompts(told.facts, RUN)

    assert (prompt.parts[0].origin, prompt.parts[0].seq) == ("the session was changed to it", 2)


def test_a_system_prompt_that_came_with_the_message_is_the_messages():
    told = Told()
    told.created(system_prompt="Be long.")
    own = msgspec.structs.replace(turn(1, "Hi"), system="Be brief.")
    told.claim(5, told.todo(4, own), message_ids=[question(1)])

    [prompt] = prompts(told.facts, RUN)

    assert (prompt.parts[0].origin, prompt.parts[0].seq) == ("came with the message", 2)


def test_a_failed_reply_was_left_out_and_an_unknown_message_is_named():
    told = Told()
    told.created()
    todo = told.todo(0, turn(1, "Hi"), OTHER)
    told.final(1, "", OTHER, attempt=0, status="failed")
    todo = told.todo(2, turn(2, "Again", answer(1)))
    told.claim(3, todo, message_ids=[question(1), "gone", question(2)])

    [prompt] = prompts(told.facts, RUN)

    assert [(p.role, p.text) for p in prompt.parts[1:]] == [
        ("user", "Hi"),
        ("?", None),
        ("user", "Again"),
    ]
    assert prompt.left_out == ["1 failed reply"]


def test_a_jobs_prompt_names_its_file_and_its_schema():
    told = Told()
    told.created(mode="document")
    told.claim(1, told.generate(0))

    [prompt] = prompts(told.facts, RUN)

    assert [(p.role, p.text, p.file, p.schema) for p in prompt.parts] == [
        ("user", "What do I owe?", None, None),
        ("file", None, FILE, None),
        ("user", "<file>42</file>", None, None),
        ("schema", None, None, {"type": "object"}),
    ]


def test_a_prompt_reads_at_eighty_columns():
    told = Told()
    told.created(system_prompt="Be brief.")
    words = "one two three " * 20 + "\x1b[31mred"
    told.claim(2, told.todo(1, turn(1, words)), message_ids=[question(1)])
    out = io.StringIO()

    show_prompt(Page(out, coloured=False), prompts(told.facts, RUN)[0])

    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "\x1b" not in out.getvalue()  # nobody's words may paint on an operator's terminal
