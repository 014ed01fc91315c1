"""What servers of the Messages API put into their events, and what is made of it."""

from typing import Any

import pytest

from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.thoughts import ENDLESS, MOST
from shared.events import Thoughts, Usage
from tests.support.wires import as_json, fault, result, sse, text_block, whole

END: list[object] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def block(kind: str, index: int = 0, **fields: object) -> dict[str, Any]:
    made = {"type": kind, **fields}
    return {"type": "content_block_start", "index": index, "content_block": made}


def delta(kind: str, index: int = 0, **fields: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ended(reason: object, **fields: object) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **fields}}


# -- endings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "end_turn"),
        ("pause_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
    ],
)
def test_a_stop_reason_is_one_of_ours_and_an_end_without_more(reason: str, ours: str):
    for tail in ([], [{"type": "message_stop"}], [{"type": "error", "error": {"message": "m"}}]):
        text, end = whole("anthropic", sse(text_block("Hi"), ended(reason), *tail))

        assert (text, end.stop_reason, end.notes) == ("Hi", ours, [])


def test_a_stop_reason_that_is_new_is_an_end_with_a_note():
    text, end = whole("anthropic", sse(text_block("Hi"), ended("weird"), {"type": "message_stop"}))

    assert (text, end.stop_reason) == ("Hi", "end_turn")
    assert end.notes == ["anthropic ended with 'weird', which natterlog does not know."]


@pytest.mark.parametrize("reason", [None, "", 5])
def test_without_a_stop_reason_only_the_last_event_is_an_end(reason: object):
    data = sse(text_block("Hi"), ended(reason))

    text, broken = fault("anthropic", data)
    assert (text, broken.transient) == ("Hi", True)
    assert whole("anthropic", data + sse({"type": "message_stop"}))[0] == "Hi"


# -- text -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        [block("text", text="Hi "), delta("text_delta", text="there")],
        [block("text", text="Hi there"), stop()],
        [delta("text_delta", text=None), delta("text_delta", text="Hi there")],
        [delta("text_delta", text="Hi "), stop(), block("text", 1, text="there")],
        [{"type": "ping"}, {"type": "new_kind", "x": 1}, delta("text_delta", text="Hi there")],
        [{"delta": {"text": "Hi "}}, {"delta": {"text": "there"}}, {"delta": None}],
        [{"content_block": {"type": "text", "text": "Hi there"}}],
        [delta("text_delta", text="Hi there"), delta("citations_delta", citation={"x": []})],
        [block("server_tool_use", name="web_search"), stop(), delta("text_delta", text="Hi there")],
    ],
)
def test_text_is_read_wherever_it_stands(frames: list[object]):
    text, end = whole("anthropic", sse(*frames, *END))

    assert (text, end.stop_reason, end.notes) == ("Hi there", "end_turn", [])


def test_a_server_that_names_no_event_is_understood():
    frames = [
        {"message": {"usage": {"input_tokens": 3}}},
        {"content_block": {"type": "text", "text": ""}},
        {"delta": {"text": "Hi"}},
        {"delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 2}},
        {},
    ]

    text, end = whole("anthropic", sse(*frames))

    assert (text, end.stop_reason) == ("Hi", "max_tokens")
    assert end.usage == Usage(input_tokens=3, output_tokens=2)


# -- thoughts ---------------------------------------------------------------------------


def test_signed_thoughts_are_kept_as_they_came():
    frames = [
        block("thinking", 0, thinking="", signature=""),
        delta("thinking_delta", 0, thinking="h"),
        delta("thinking_delta", 0, thinking="m"),
        delta("signature_delta", 0, signature="ab"),
        delta("signature_delta", 0, signature="c="),
        stop(0),
        block("redacted_thinking", 1, data="xyz"),
        stop(1),
        block("thinking", 2, thinking="so", signature="d="),
        block("text", 3, text=""),
        delta("text_delta", 3, text="Hi"),
    ]

    text, end = whole("anthropic", sse(*frames, *END))

    assert text == "Hi"
    assert end.thoughts == Thoughts(
        text="hmso",
        blocks=[
            {"type": "thinking", "thinking": "hm", "signature": "abc="},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "thinking", "thinking": "so", "signature": "d="},
        ],
    )


def test_thoughts_that_were_cut_before_they_were_signed_are_not_sent_back():
    frames = [block("thinking", thinking="hm"), delta("thinking_delta", thinking=" hm")]

    text, end = whole("anthropic", sse(*frames, ended("max_tokens"), {"type": "message_stop"}))

    assert text == ""
    assert end.sentence is not None
    assert "for thinking" in end.sentence
    assert end.stop_reason == "max_tokens"
    assert end.thoughts == Thoughts(text="hm hm")


def test_half_characters_in_thoughts_become_replacement_characters():
    frames = sse(
        block("thinking", thinking="a\ud83d", signature="s"),
        delta("thinking_delta", thinking="\ude00"),
        delta("thinking_delta", thinking="\ud83d"),
        stop(),
        text_block("Hi"),
        *END,
    )

    _, end = whole("anthropic", frames)

    assert end.thoughts == Thoughts(
        text="a😀\ufffd",
        blocks=[{"type": "thinking", "thinking": "a😀\ufffd", "signature": "s"}],
    )


def test_thoughts_beyond_a_bound_are_cut_and_noted_and_not_sent_back():
    piece = "x" * 65_536
    pieces = [delta("thinking_delta", thinking=piece)] * (2 * MOST // len(piece) + 1)
    frames = [block("thinking"), *pieces, delta("signature_delta", signature="s"), stop()]

    text, end = whole("anthropic", sse(*frames, text_block("Hi"), *END))

    assert text == "Hi"
    assert end.thoughts is not None
    assert (len(end.thoughts.text), end.thoughts.blocks) == (MOST, [])
    assert end.notes == [
        f"Of {2 * MOST + 65_536:,} characters of thoughts, the first {MOST:,} are kept.",
        "The thoughts are too long to be sent back with the next message.",
    ]


def test_thoughts_without_end_are_given_up_on():
    piece = delta("thinking_delta", thinking="x" * 65_536)

    _, broken = result("anthropic", [sse(*[piece] * (ENDLESS // 65_536 + 1)), sse(*END)])

    assert isinstance(broken, ProviderError)
    assert (broken.message, broken.transient) == (
        "The model of anthropic thinks without end.",
        False,
    )


# -- no text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "sentence", "reason"),
    [
        ([ended("refusal")], "The model refused to answer.", "refusal"),
        (
            [ended("refusal", stop_details={"category": "cyber", "explanation": "it is\n so"})],
            "The model refused to answer: it is so",
            "refusal",
        ),
        ([ended("refusal", stop_details="no")], "The model refused to answer.", "refusal"),
        (
            [
                block("tool_use", id="a", name="f", input={}),
                delta("input_json_delta", partial_json="{"),
                stop(),
                ended("tool_use"),
            ],
            "The model asked for a tool (f) instead of answering.",
            "tool_calls",
        ),
        ([ended("max_tokens")], "The limit of tokens was reached", "max_tokens"),
        ([block("thinking", thinking="hm"), stop(), *END], "The model thought, and", "end_turn"),
    ],
)
def test_a_reply_without_text_says_why(frames: list[object], sentence: str, reason: str):
    text, end = whole("anthropic", sse(*frames, {"type": "message_stop"}))

    assert (text, end.stop_reason) == ("", reason)
    assert end.sentence is not None
    assert end.sentence.startswith(sentence)


def test_a_reply_of_nothing_is_a_fault_that_is_worth_one_more_try():
    _, broken = fault("anthropic", sse(block("text", text=""), stop(), *END))

    assert (broken.transient, broken.most_tries) == (True, 2)


# -- counts and errors ------------------------------------------------------------------


def test_each_count_is_the_last_that_is_believable():
    counts = {
        "input_tokens": "3",
        "output_tokens": 1,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": 4.0,
    }
    start = {"type": "message_start", "message": {"usage": counts}}
    end = {**ended("end_turn"), "usage": {"output_tokens": -1, "input_tokens": None}}

    _, done = whole("anthropic", sse(start, text_block("Hi"), end))

    assert done.usage == Usage(input_tokens=3, output_tokens=1, cache_read_input_tokens=4)
    assert done.notes == ["anthropic counted '-1' as output_tokens; that was left out."]


@pytest.mark.parametrize("usage", [None, [], 5, "x", {"output_tokens": {}}, {"x": 1}])
def test_counts_of_another_shape_are_left_out(usage: object):
    start = {"type": "message_start", "message": {"usage": usage}}

    text, done = whole(
        "anthropic", sse(start, text_block("Hi"), {**ended("end_turn"), "usage": usage})
    )

    assert (text, done.usage) == ("Hi", None)


@pytest.mark.parametrize(
    "data",
    [
        sse({"type": "error", "error": {"type": "api_error", "message": "It broke."}}),
        b"event: error\n" + sse({"error": {"message": "It broke."}}),
        b"event: error\n" + sse({"type": "api_error", "message": "It broke."}),
        sse({"error": {"message": "It broke."}}),
        sse({"type": "error", "message": "It broke."}),
        sse({"type": "error", "error": "It broke."}),
    ],
)
def test_an_error_in_the_stream_says_what_the_provider_said(data: bytes):
    text, broken = fault("anthropic", sse(text_block("Hi")) + data + sse(*END))

    assert (text, broken.transient) == ("Hi", True)
    assert broken.message == "anthropic reported an error: It broke."


def test_an_error_alone_is_one_by_its_type():
    error = {"type": "authentication_error", "message": "invalid x-api-key"}

    _, broken = fault("anthropic", as_json({"type": "error", "error": error}))

    assert broken.message == (
        "anthropic reported an error: invalid x-api-key. "
        "Its key (ANTHROPIC_API_KEY) is wrong or missing."
    )
    assert not broken.transient
