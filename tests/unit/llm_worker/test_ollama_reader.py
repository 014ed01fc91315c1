"""What servers of Ollama's API put into their lines, and what is made of it."""

from typing import Any

import pytest

from shared.events import Thoughts, Usage
from tests.support.wires import fault, message, ndjson, sse, whole

END = message("", done=True, done_reason="stop")


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        (None, "end_turn"),
        ("", "end_turn"),
        ("load", "end_turn"),
        (5, "end_turn"),
    ],
)
def test_the_last_line_says_how_it_ended(reason: object, ours: str):
    text, ended = whole("ollama", ndjson(message("Hi", done=True, done_reason=reason)))

    assert (text, ended.stop_reason) == ("Hi", ours)


@pytest.mark.parametrize("reason", ["error", "abort", "cancelled"])
def test_another_reason_is_a_passing_fault_that_names_itself(reason: str):
    text, broken = fault(
        "ollama", ndjson(message("Hi"), message("", done=True, done_reason=reason))
    )

    assert text == "Hi"
    assert broken.message == f"ollama ended its reply with “{reason}”."
    assert broken.transient


@pytest.mark.parametrize(
    "lines",
    [
        [message("Hi "), message("there")],
        [message(None), message("Hi there")],
        [message([{"type": "text", "text": "Hi there"}])],
        [message(["Hi ", {"text": "there"}])],
        [{"response": "Hi ", "done": False}, {"response": "there"}],
        [message("Hi there"), {"status": "fine"}],
        [message("Hi there"), message("", done="true")],
        [message("Hi there"), message("", done=1), message(" and no more")],
    ],
)
def test_text_is_read_wherever_it_stands(lines: list[object]):
    text, ended = whole("ollama", ndjson(*lines, END))

    assert (text, ended.stop_reason, ended.notes) == ("Hi there", "end_turn", [])


@pytest.mark.parametrize(
    "data",
    [
        sse(message("Hi"), END),
        b": hello\n\n" + sse(message("Hi"), END),
        b"event: message\n" + sse(message("Hi")) + ndjson(END),
        ndjson(message("Hi")) + b": ping\n\n" + ndjson(END),
        ndjson(message("Hi")) + b"data: " + ndjson(END),
        ndjson(message("Hi")).replace(b"\n", b"\r\n") + b"\r\n" + ndjson(END).rstrip(),
        ndjson(message("Hi"), END).replace(b"\n", b"\r"),
    ],
)
def test_lines_may_come_as_events_with_comments_and_any_end(data: bytes):
    text, ended = whole("ollama", data)

    assert (text, ended.notes) == ("Hi", [])


@pytest.mark.parametrize("line", [5, "ping", None, [message("no")] * 2, {"message": 5, "x": 1}])
def test_a_line_that_cannot_be_read_is_left_out(line: object):
    text, ended = whole("ollama", ndjson(message("Hi "), line, message("there"), END))

    assert text == "Hi there"
    assert ended.notes == ["1 part of ollama's answer could not be read and was left out."]


@pytest.mark.parametrize(
    "lines",
    [
        [message("", thinking="hm")],
        [message("", done=False) | {"message": {"thinking": "hm"}}],
        [{"message": {"content": "", "thinking": "hm"}, "done": False}],
        [{"message": {"content": [{"type": "thinking", "thinking": "hm"}]}}],
        [{"message": {"content": "", "thinking": {"text": "hm"}}}],
    ],
)
def test_thoughts_are_kept_apart(lines: list[dict[str, Any]]):
    for line in lines:  # the fake's helper puts more fields beside the message
        if "thinking" in line:
            line["message"]["thinking"] = line.pop("thinking")

    text, ended = whole("ollama", ndjson(*lines, message("Hi"), END))

    assert (text, ended.thoughts) == ("Hi", Thoughts(text="hm"))


CALL = {"function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    ("lines", "sentence", "reason"),
    [
        (
            [{"message": {"content": "", "tool_calls": [CALL]}}, END],
            "The model asked for a tool (f) instead of answering.",
            "tool_calls",
        ),
        (
            [{"message": {"tool_calls": [CALL, {"function": {"name": "g"}}]}}, END],
            "The model asked for a tool (f, g) instead",
            "tool_calls",
        ),
        (
            [
                {"message": {"content": "", "thinking": "hm"}},
                message("", done=True, done_reason="length"),
            ],
            "The model used all the tokens that it may use for thinking",
            "max_tokens",
        ),
        ([{"message": {"thinking": "hm"}}, END], "The model thought, and then", "end_turn"),
    ],
)
def test_a_reply_without_text_says_why(lines: list[object], sentence: str, reason: str):
    text, ended = whole("ollama", ndjson(*lines))

    assert (text, ended.stop_reason) == ("", reason)
    assert ended.sentence is not None
    assert ended.sentence.startswith(sentence)


def test_a_text_beside_a_tool_call_stands():
    line = {"message": {"content": "Hi", "tool_calls": [CALL]}}

    text, ended = whole("ollama", ndjson(line, END))

    assert (text, ended.stop_reason) == ("Hi", "tool_calls")


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("stop", "and gave no reason"),
        (None, "and gave no reason"),
        ("load", "because it only loaded the model"),
        ("unload", "because it unloaded the model"),
    ],
)
def test_a_reply_of_nothing_is_a_fault_that_is_worth_one_more_try(reason: object, why: str):
    _, broken = fault("ollama", ndjson(message("", done=True, done_reason=reason)))

    assert broken.message == f"ollama answered with nothing, {why}."
    assert (broken.transient, broken.most_tries) == (True, 2)


@pytest.mark.parametrize(
    ("counts", "usage", "notes"),
    [
        ({"prompt_eval_count": 3, "eval_count": 2}, Usage(input_tokens=3, output_tokens=2), 0),
        ({"eval_count": "2"}, Usage(output_tokens=2), 0),
        ({"prompt_eval_count": 3.0, "eval_count": -1}, Usage(input_tokens=3), 1),
        ({"prompt_eval_count": 2**63, "eval_count": 2}, Usage(output_tokens=2), 1),
        ({"prompt_eval_count": None, "eval_count": None}, None, 0),
        ({"prompt_eval_count": [], "eval_count": {}}, None, 1),
        ({}, None, 0),
    ],
)
def test_counts_are_read_leniently(counts: dict[str, object], usage: Usage | None, notes: int):
    text, ended = whole("ollama", ndjson(message("Hi"), {**END, **counts}))

    assert (text, ended.usage, len(ended.notes)) == ("Hi", usage, notes)


@pytest.mark.parametrize(
    "line",
    [
        {"error": "It broke."},
        {"error": {"message": "It broke."}},
        {"error": "It broke.", "done": True, "done_reason": "stop"},
        {"detail": "It broke."},
        {"message": "It broke."},
    ],
)
def test_an_error_says_what_the_provider_said(line: dict[str, Any]):
    for before in ([], [message("Hi")]):
        text, broken = fault("ollama", ndjson(*before, line, END))

        assert text == ("Hi" if before else "")
        assert broken.message == "ollama reported an error: It broke."
        assert broken.transient
