"""An attempt's prompt: every part, and where it came from."""

import io

import msgspec
import pytest

from services.cli.display.pages import show_prompt
from services.cli.display.terminal import Output
from services.cli.recorder.attachments import AttachedFile, attached_file
from services.cli.stories.prompt import CONTEXT_MESSAGES, Part, branch_of, prompts
from services.store import context
from shared.endings import ended
from shared.events import (
    Continued,
    Fault,
    FilePlan,
    FileRef,
    History,
    PastMessage,
    RunClaimed,
    SentFile,
    SessionUpdated,
    StepResult,
    TodoProcess,
)
from tests.unit.cli.told import FILE, OTHER, RUN, Told, answer, at, question, turn

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
    told.tell("session.updated", SessionUpdated(at=at(1), system_prompt="Be brief."))
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


def test_a_jobs_prompt_shows_of_its_file_what_was_sent():
    told = Told()
    told.created(mode="document")
    told.claim(1, told.generate(0))
    whole, as_text = (
        with_files(told, SentFile(id="s", as_it_is=[FILE.id])),
        with_files(told, SentFile(id="s", characters=15, length=15)),
    )

    [[sent, *_], [unsent, text, *_]] = [
        [part for part in prompts(each.facts, RUN)[0].parts if part.origin != "step answer"]
        for each in (whole, as_text)
    ]

    assert (sent.file, sent.origin) == (FILE, "sent as it is")
    assert (unsent.file, unsent.origin) == (FILE, "not sent as it is")
    assert (text.text, text.origin) == (
        "<file>42</file>",
        "what was read from the file follows the prompt",
    )
    assert "<file>42</file>" not in [part.text for part in prompts(whole.facts, RUN)[0].parts]


ATTACHMENT = "01a21600-0000-7000-8000-0000000000e1"
READING = "01a21600-0000-7000-8000-0000000000e2"
PICTURE = msgspec.structs.replace(
    FILE, id="01a21600-0000-7000-8000-0000000000f2", kind="image", media_type="image/png"
)


def with_files(told: Told, *sent: SentFile) -> Told:
    """The same facts, whose last claim says that these files went along."""
    copy = Told()
    copy.facts = list(told.facts)
    claim = copy.facts.pop().fact
    assert isinstance(claim, RunClaimed)
    assert claim.prompt is not None
    prompt = msgspec.structs.replace(claim.prompt, files=list(sent))
    copy.tell("claim", msgspec.structs.replace(claim, prompt=prompt), RUN)
    return copy


def asked_with_a_file() -> Told:
    told = Told()
    told.created()
    todo = told.todo(0, msgspec.structs.replace(turn(1, "Look"), attachments=[ATTACHMENT]))
    told.claim(1, todo, message_ids=[question(1)])
    return told


def a_read_file(
    *, ref: FileRef = FILE, pictures: int = 0, fault: Fault | None = None
) -> dict[str, AttachedFile]:
    """What the facts of an upload tell of it."""
    told = Told(first=40)
    told.created(mode="file")
    process = TodoProcess(at=at(0), n=0, priority=0, step="extract", plan=FilePlan(file=ref))
    told.tell("todo.process.0.0", process, READING)
    result = StepResult(step="extract", text="", images=[PICTURE] * pictures)
    final = msgspec.structs.replace(
        ended("failed" if fault else "completed", "", attempt=0, error=fault),
        results=[] if fault else [result],
        notes=["Only its first 100 pages were read."],
    )
    told.tell("final", final, READING)
    found = attached_file(told.facts)
    assert found is not None
    return {ATTACHMENT: found}


def file_part(told: Told, files: dict[str, AttachedFile]) -> Part:
    [prompt] = prompts(told.facts, RUN, files=files)
    [part] = [part for part in prompt.parts if part.role == "file"]
    return part


def test_a_messages_file_is_shown_by_reference_after_it():
    sent = SentFile(id=ATTACHMENT, message_id=question(1), characters=1200, length=40_000)

    [prompt] = prompts(with_files(asked_with_a_file(), sent).facts, RUN, files=a_read_file())

    assert prompt.parts[1:] == [
        Part(role="user", text="Look", origin=f"asked in run {RUN}", seq=2, message_id=question(1)),
        Part(
            role="file",
            text=None,
            origin=f"uploaded, read by run {READING}",
            seq=41,
            message_id=question(1),
            file=FILE,
            file_id=ATTACHMENT,
            notes=[
                "cut: 1,200 of the 40,000 characters read from it were sent as text",
                "Only its first 100 pages were read.",
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("sent", "files", "told"),
    [
        ({"as_it_is": [FILE.id]}, a_read_file(), "sent as it is, whole"),
        (
            {"as_it_is": [PICTURE.id]},
            a_read_file(pictures=3),
            "sent as 1 of its 3 pictures",
        ),
        ({"as_it_is": [PICTURE.id]}, a_read_file(ref=PICTURE), "sent as it is, whole"),
        (
            {"as_it_is": ["scaled"]},
            a_read_file(ref=PICTURE, pictures=1),
            "sent as a picture",
        ),
        (
            {"characters": 7, "length": 7},
            a_read_file(),
            "sent as text: the 7 characters read from it",
        ),
        ({"characters": 0, "length": 0}, a_read_file(), "no text could be read from it"),
        ({"missing": "unread"}, a_read_file(), "not sent: it had not been read yet"),
        ({"missing": "gone"}, {}, "not sent: it was gone"),
        (
            {"missing": "unreadable"},
            a_read_file(fault=Fault(code="invalid_request", message="It is damaged.")),
            "not sent: it could not be read: It is damaged.",
        ),
        ({"as_it_is": ["x"]}, {}, "1 parts of it were sent as they are"),
    ],
)
def test_how_a_file_went_along_is_said(
    sent: dict[str, object], files: dict[str, AttachedFile], told: str
):
    file = msgspec.convert({"id": ATTACHMENT, "message_id": question(1), **sent}, SentFile)

    part = file_part(with_files(asked_with_a_file(), file), files)

    assert part.notes[0] == told
    assert part.origin == (f"uploaded, read by run {READING}" if files else "erased since then")


def test_a_file_that_no_claim_tells_of_was_gone_or_is_of_an_earlier_version():
    told = asked_with_a_file()

    assert file_part(with_files(told), {}).notes == ["not sent: it was gone"]
    assert file_part(told, a_read_file()).notes == ["how it went along was not recorded"]


def test_messages_that_the_session_was_opened_with_are_told_as_its_own():
    told = Told()
    past = PastMessage(
        id=question(1),
        parent_id=None,
        role="user",
        content="Of before",
        created_at=at(0),
        attachments=[ATTACHMENT],
    )
    told.created(history=History(messages=[past], leaf=past.id))
    told.claim(5, told.todo(4, turn(2, "Hi", question(1))), message_ids=[question(1), question(2)])

    [prompt] = prompts(told.facts, RUN, files=a_read_file())

    assert [(p.role, p.text, p.origin) for p in prompt.parts[1:]] == [
        ("user", "Of before", "the session was opened with it"),
        ("file", None, f"uploaded, read by run {READING}"),
        ("user", "Hi", f"asked in run {RUN}"),
    ]


def test_a_branch_of_another_session_that_was_asked_again_is_told_from_its_facts():
    elsewhere = Told()
    elsewhere.created()
    elsewhere.todo(0, turn(1, "Long ago"), OTHER)
    told = Told(first=50)
    told.created()
    again = msgspec.structs.replace(turn(2, "Long ago"), context=question(1))
    told.claim(9, told.todo(8, again), message_ids=[question(1)])

    [prompt] = prompts(told.facts, RUN, elsewhere=elsewhere.facts)

    assert branch_of(told.of(RUN)) == question(1)
    assert [(p.text, p.origin, p.seq) for p in prompt.parts[1:]] == [
        ("Long ago", f"asked in run {OTHER}", 2)
    ]
    assert prompt.left_out == []


def test_a_prompt_reads_at_eighty_columns():
    told = Told()
    told.created(system_prompt="Be brief.")
    words = "one two three " * 20 + "\x1b[31mred"
    asked = msgspec.structs.replace(turn(1, words), attachments=[ATTACHMENT])
    told.claim(2, told.todo(1, asked), message_ids=[question(1)])
    told = with_files(told, SentFile(id=ATTACHMENT, message_id=question(1), missing="unreadable"))
    fault = Fault(code="invalid_request", message="It is \x1b[31mdamaged. " * 9)
    out = io.StringIO()

    [prompt] = prompts(told.facts, RUN, files=a_read_file(fault=fault))
    show_prompt(Output(out, coloured=False), prompt)

    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "\x1b" not in out.getvalue()  # nobody's words may paint on an operator's terminal


def test_a_reply_that_goes_on_is_a_part_and_so_is_what_asks_for_it():
    told = Told()
    told.created()
    claim = told.claim(1, told.todo(0, turn(1, "A story."), OTHER), OTHER)
    told.final(2, "Once upon a", OTHER, attempt=claim, stop_reason="max_tokens")
    before = Continued(length=11)
    goes_on = msgspec.structs.replace(turn(1, None), continues=before)
    claim = told.claim(
        4, told.todo(3, goes_on), message_ids=[question(1), answer(1)], go_on="Go on."
    )
    told.final(5, "Once upon a midnight", attempt=claim, status="failed")
    again = told.claim(
        7, told.todo(6, goes_on, RUNS[0]), RUNS[0], message_ids=[question(1), answer(1)]
    )
    told.final(8, "Once upon a time", RUNS[0], attempt=again)
    asked = told.todo(9, turn(2, "And?", answer(1)), RUNS[1])
    told.claim(10, asked, RUNS[1], message_ids=[answer(1)])

    [prompt] = prompts(told.facts, RUN)
    [after_a_failure] = prompts(told.facts, RUNS[0])
    [after] = prompts(told.facts, RUNS[1])

    assert [(part.role, part.text) for part in prompt.parts[1:]] == [
        ("user", "A story."),
        ("assistant", "Once upon a"),
        ("user", "Go on."),
    ]
    assert prompt.parts[-1].origin == "natterlog asks for the reply to go on"
    assert after_a_failure.parts[-1].text == "Once upon a"
    assert after.parts[-1].text == "Once upon a time"
