"""An attempt's prompt: every part, and where it came from."""

import io

import msgspec
import pytest

from services.cli.display.pages import show_prompt
from services.cli.display.terminal import Output
from services.cli.recorder.attachments import AttachedFile, attached_file
from services.cli.stories.prompt import CONTEXT_MESSAGES, Part, branch_of, prompts
from services.store import context
from shared.events import (
    Continued,
    Fault,
    FilePlan,
    FileRef,
    History,
    PastMessage,
    RunClaimed,
    SentFile,
    StepResult,
)
from tests.support.scripted_log import ScriptedLog
from tests.unit.cli.samples import (
    FILE,
    OTHER,
    PLAN,
    PROMPT,
    READ,
    RUN,
    answer,
    at,
    question,
    turn,
)

RUNS = [f"01a21600-0000-7000-8000-{n:08}feed" for n in range(30)]


def conversation(turns: int) -> ScriptedLog:
    """So many complete turns, each its own run, then one that is claimed with the last 20."""
    log = ScriptedLog()
    log.opens()
    ids: list[str] = []
    parent = None
    for n in range(turns):
        log.at(n * 100).accepts(turn(n, f"Question {n}", parent), RUNS[n])
        claim = log.at(n * 100 + 1).claims(RUNS[n])
        log.at(n * 100 + 2).ends(RUNS[n], f"Answer {n}", attempt=claim)
        ids += [question(n), answer(n)]
        parent = answer(n)
    log.at(9000).accepts(turn(99, "The last", parent), RUN)
    log.at(9001).claims(RUN, message_ids=[*ids, question(99)][-CONTEXT_MESSAGES:])
    return log


def test_every_part_says_where_it_came_from():
    [prompt] = prompts(conversation(1).entries, RUN)

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
    [prompt] = prompts(conversation(12).entries, RUN)

    assert len(prompt.parts) == CONTEXT_MESSAGES + 1
    assert prompt.left_out == ["5 older messages of the branch: a prompt has its last 20"]


def test_it_cuts_where_the_store_does():
    assert CONTEXT_MESSAGES == context.CONTEXT_MESSAGES


def test_a_system_prompt_that_was_changed_is_the_changes():
    log = ScriptedLog()
    log.opens(system_prompt="Be long.")
    log.at(1).updates(system_prompt="Be brief.")
    log.at(4).accepts(turn(1, "Hi"), RUN)
    log.at(5).claims(RUN, message_ids=[question(1)])

    [prompt] = prompts(log.entries, RUN)

    assert (prompt.parts[0].origin, prompt.parts[0].seq) == ("the session was changed to it", 2)


def test_a_system_prompt_that_came_with_the_message_is_the_messages():
    log = ScriptedLog()
    log.opens(system_prompt="Be long.")
    own = msgspec.structs.replace(turn(1, "Hi"), system="Be brief.")
    log.at(4).accepts(own, RUN)
    log.at(5).claims(RUN, message_ids=[question(1)])

    [prompt] = prompts(log.entries, RUN)

    assert (prompt.parts[0].origin, prompt.parts[0].seq) == ("came with the message", 2)


def test_a_failed_reply_was_left_out_and_an_unknown_message_is_named():
    log = ScriptedLog()
    log.opens()
    log.accepts(turn(1, "Hi"), OTHER)
    log.at(1).ends(OTHER, "", attempt=0, status="failed")
    log.at(2).accepts(turn(2, "Again", answer(1)), RUN)
    log.at(3).claims(RUN, message_ids=[question(1), "gone", question(2)])

    [prompt] = prompts(log.entries, RUN)

    assert [(p.role, p.text) for p in prompt.parts[1:]] == [
        ("user", "Hi"),
        ("?", None),
        ("user", "Again"),
    ]
    assert prompt.left_out == ["1 failed reply"]


def test_a_jobs_prompt_names_its_file_and_its_schema():
    log = ScriptedLog()
    log.opens(mode="document")
    log.hands_to_llm_worker(RUN, PLAN, 1, PROMPT, READ)
    log.at(1).claims(RUN)

    [prompt] = prompts(log.entries, RUN)

    assert [(p.role, p.text, p.file, p.schema) for p in prompt.parts] == [
        ("user", "What do I owe?", None, None),
        ("file", None, FILE, None),
        ("user", "<file>42</file>", None, None),
        ("schema", None, None, {"type": "object"}),
    ]


def test_a_jobs_prompt_shows_of_its_file_what_was_sent():
    log = ScriptedLog()
    log.opens(mode="document")
    log.hands_to_llm_worker(RUN, PLAN, 1, PROMPT, READ)
    log.at(1).claims(RUN)
    whole, as_text = (
        with_files(log, SentFile(id="s", as_it_is=[FILE.id])),
        with_files(log, SentFile(id="s", characters=15, length=15)),
    )

    [[sent, *_], [unsent, text, *_]] = [
        [part for part in prompts(each.entries, RUN)[0].parts if part.origin != "step answer"]
        for each in (whole, as_text)
    ]

    assert (sent.file, sent.origin) == (FILE, "sent as it is")
    assert (unsent.file, unsent.origin) == (FILE, "not sent as it is")
    assert (text.text, text.origin) == (
        "<file>42</file>",
        "what was read from the file follows the prompt",
    )
    assert "<file>42</file>" not in [part.text for part in prompts(whole.entries, RUN)[0].parts]


ATTACHMENT = "01a21600-0000-7000-8000-0000000000e1"
READING = "01a21600-0000-7000-8000-0000000000e2"
PICTURE = msgspec.structs.replace(
    FILE, id="01a21600-0000-7000-8000-0000000000f2", kind="image", media_type="image/png"
)


def with_files(log: ScriptedLog, *sent: SentFile) -> ScriptedLog:
    """The same facts, whose last claim says that these files went along."""
    copy = ScriptedLog()
    copy.entries = list(log.entries)
    claim = copy.entries.pop().fact
    assert isinstance(claim, RunClaimed)
    assert claim.prompt is not None
    prompt = msgspec.structs.replace(claim.prompt, files=list(sent))
    copy.append(msgspec.structs.replace(claim, prompt=prompt), RUN)
    return copy


def question_with_a_file() -> ScriptedLog:
    log = ScriptedLog()
    log.opens()
    log.accepts(msgspec.structs.replace(turn(1, "Look"), attachments=[ATTACHMENT]), RUN)
    log.at(1).claims(RUN, message_ids=[question(1)])
    return log


def a_read_file(
    *, ref: FileRef = FILE, pictures: int = 0, fault: Fault | None = None
) -> dict[str, AttachedFile]:
    """What the facts of an upload tell of it."""
    log = ScriptedLog(first=40)
    log.opens(mode="file")
    log.hands_to_processor(READING, FilePlan(file=ref))
    result = StepResult(step="extract", text="", images=[PICTURE] * pictures)
    log.ends(
        READING,
        "",
        "failed" if fault else "completed",
        error=fault,
        results=[] if fault else [result],
        notes=["Only its first 100 pages were read."],
    )
    found = attached_file(log.entries)
    assert found is not None
    return {ATTACHMENT: found}


def file_part(log: ScriptedLog, files: dict[str, AttachedFile]) -> Part:
    [prompt] = prompts(log.entries, RUN, files=files)
    [part] = [part for part in prompt.parts if part.role == "file"]
    return part


def test_a_messages_file_is_shown_by_reference_after_it():
    sent = SentFile(id=ATTACHMENT, message_id=question(1), characters=1200, length=40_000)

    [prompt] = prompts(with_files(question_with_a_file(), sent).entries, RUN, files=a_read_file())

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
    ("sent", "files", "note"),
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
    sent: dict[str, object], files: dict[str, AttachedFile], note: str
):
    file = msgspec.convert({"id": ATTACHMENT, "message_id": question(1), **sent}, SentFile)

    part = file_part(with_files(question_with_a_file(), file), files)

    assert part.notes[0] == note
    assert part.origin == (f"uploaded, read by run {READING}" if files else "erased since then")


def test_a_file_that_no_claim_tells_of_was_gone_or_is_of_an_earlier_version():
    log = question_with_a_file()

    assert file_part(with_files(log), {}).notes == ["not sent: it was gone"]
    assert file_part(log, a_read_file()).notes == ["how it went along was not recorded"]


def test_messages_that_the_session_was_opened_with_are_told_as_its_own():
    log = ScriptedLog()
    past = PastMessage(
        id=question(1),
        parent_id=None,
        role="user",
        content="Of before",
        created_at=at(0),
        attachments=[ATTACHMENT],
    )
    log.opens(history=History(messages=[past], leaf=past.id))
    log.at(4).accepts(turn(2, "Hi", question(1)), RUN)
    log.at(5).claims(RUN, message_ids=[question(1), question(2)])

    [prompt] = prompts(log.entries, RUN, files=a_read_file())

    assert [(p.role, p.text, p.origin) for p in prompt.parts[1:]] == [
        ("user", "Of before", "the session was opened with it"),
        ("file", None, f"uploaded, read by run {READING}"),
        ("user", "Hi", f"asked in run {RUN}"),
    ]


def test_a_branch_of_another_session_that_was_asked_again_is_told_from_its_facts():
    elsewhere = ScriptedLog()
    elsewhere.opens()
    elsewhere.accepts(turn(1, "Long ago"), OTHER)
    log = ScriptedLog(first=50)
    log.opens()
    again = msgspec.structs.replace(turn(2, "Long ago"), context=question(1))
    log.at(8).accepts(again, RUN)
    log.at(9).claims(RUN, message_ids=[question(1)])

    [prompt] = prompts(log.entries, RUN, elsewhere=elsewhere.entries)

    assert branch_of(log.of(RUN)) == question(1)
    assert [(p.text, p.origin, p.seq) for p in prompt.parts[1:]] == [
        ("Long ago", f"asked in run {OTHER}", 2)
    ]
    assert prompt.left_out == []


def test_a_prompt_reads_at_eighty_columns():
    log = ScriptedLog()
    log.opens(system_prompt="Be brief.")
    text = "one two three " * 20 + "\x1b[31mred"
    with_file = msgspec.structs.replace(turn(1, text), attachments=[ATTACHMENT])
    log.at(1).accepts(with_file, RUN)
    log.at(2).claims(RUN, message_ids=[question(1)])
    log = with_files(log, SentFile(id=ATTACHMENT, message_id=question(1), missing="unreadable"))
    fault = Fault(code="invalid_request", message="It is \x1b[31mdamaged. " * 9)
    out = io.StringIO()

    [prompt] = prompts(log.entries, RUN, files=a_read_file(fault=fault))
    show_prompt(Output(out, coloured=False), prompt)

    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "\x1b" not in out.getvalue()  # nobody's words may paint on an operator's terminal


def test_a_reply_that_goes_on_is_a_part_and_so_is_what_asks_for_it():
    log = ScriptedLog()
    log.opens()
    log.accepts(turn(1, "A story."), OTHER)
    claim = log.at(1).claims(OTHER)
    log.at(2).ends(OTHER, "Once upon a", attempt=claim, stop_reason="max_tokens")
    before = Continued(length=11)
    goes_on = msgspec.structs.replace(turn(1, None), continues=before)
    log.at(3).accepts(goes_on, RUN)
    claim = log.at(4).claims(RUN, message_ids=[question(1), answer(1)], go_on="Go on.")
    log.at(5).ends(RUN, "Once upon a midnight", attempt=claim, status="failed")
    log.at(6).accepts(goes_on, RUNS[0])
    again = log.at(7).claims(RUNS[0], message_ids=[question(1), answer(1)])
    log.at(8).ends(RUNS[0], "Once upon a time", attempt=again)
    log.at(9).accepts(turn(2, "And?", answer(1)), RUNS[1])
    log.at(10).claims(RUNS[1], message_ids=[answer(1)])

    [prompt] = prompts(log.entries, RUN)
    [after_a_failure] = prompts(log.entries, RUNS[0])
    [after] = prompts(log.entries, RUNS[1])

    assert [(part.role, part.text) for part in prompt.parts[1:]] == [
        ("user", "A story."),
        ("assistant", "Once upon a"),
        ("user", "Go on."),
    ]
    assert prompt.parts[-1].origin == "natterlog asks for the reply to go on"
    assert after_a_failure.parts[-1].text == "Once upon a"
    assert after.parts[-1].text == "Once upon a time"
