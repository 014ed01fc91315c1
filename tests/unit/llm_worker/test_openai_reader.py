"""What OpenAI-compatible servers put into their chunks, and what is made of it."""

import json
from typing import Any

import pytest

from shared.events import Thoughts, Usage
from tests.support.wires import as_json, choice, fault, result, sse, whole

DONE = b"data: [DONE]\n\n"
STOP = sse(choice({}, "stop"))


def hi(*frames: object) -> bytes:
    """A reply of “Hi there” with these frames before its end."""
    pieces = sse(choice({"content": "Hi "}), choice({"content": "there"}))
    return pieces + sse(*frames) + STOP + DONE


# -- endings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("stop", "end_turn"),
        ("STOP", "end_turn"),
        ("eos", "end_turn"),
        ("eos_token", "end_turn"),
        ("end_turn", "end_turn"),
        ("COMPLETE", "end_turn"),
        ("length", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("model_length", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("tool_calls", "tool_calls"),
        ("tool-calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("sensitive", "content_filter"),
        ("refusal", "refusal"),
        ({"type": "length"}, "max_tokens"),
    ],
)
def test_a_known_finish_reason_is_one_of_ours(word: object, ours: str):
    text, ended = whole("openai", sse(choice({"content": "Hi"}), choice({}, word)))

    assert (text, ended.stop_reason) == ("Hi", ours)


@pytest.mark.parametrize("word", [None, "", "null", "None"])
def test_some_servers_write_that_there_is_no_end_yet(word: object):
    data = sse(choice({"content": "Hi "}, word), choice({"content": "there"}, word))

    text, _ = fault("openai", data)

    assert text == "Hi there"
    assert whole("openai", data + DONE)[0] == "Hi there"


@pytest.mark.parametrize(
    "word", ["abort", "error", "insufficient_system_resource", "network_error", "\ud800", "x" * 999]
)
def test_another_finish_reason_is_a_passing_fault_that_names_itself(word: str):
    text, broken = fault("openai", sse(choice({"content": "Hi"}), choice({}, word)) + STOP + DONE)

    assert text == "Hi"
    assert broken.transient
    assert len(broken.message) < 200
    assert broken.message.encode()
    assert word[:10].replace("\ud800", "\ufffd") in broken.message


def test_counts_may_follow_the_end():
    after = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    _, ended = whole("openai", STOP.replace(b"{}", b'{"content": "Hi"}', 1) + after + DONE)

    assert ended.usage == Usage(input_tokens=3, output_tokens=2)


# -- text in its places -----------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        [choice({"content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]})],
        [choice({"content": [{"text": "Hi there"}]})],
        [choice({"content": ["Hi ", "there"]})],
        [choice({"content": {"type": "text", "text": "Hi there"}})],
        [choice({"content": [{"type": "output_text", "text": {"value": "Hi there"}}]})],
        [choice("Hi "), choice("there")],
        [choice(None, text="Hi "), choice(None, text="there")],
        [choice({}, text="Hi "), choice({"content": ""}, text="there")],
        [choice(None, message={"content": "Hi there"})],
        [choice(None, message={"content": "Hi "}), choice(None, message={"content": "there"})],
        [choice(None, message={"content": "Hi "}), choice(None, message={"content": "Hi there"})],
        [choice({}, message={"content": [{"type": "text", "text": "Hi there"}]})],
        [{"choices": [{"index": 0, "message": "Hi there"}]}],
        [{"choices": [{"index": None, "delta": {"content": "Hi there"}}]}],
        [{"choices": [{"delta": {"content": "Hi there"}}]}],
        [choice({"content": None}), choice({"content": "Hi there"}), choice({"content": None})],
        [choice({"content": "Hi there"}), choice({}, message={"content": "Hi there"})],
        [choice({"content": "Hi there"}), choice({"content": ""}, text="Hi there")],
        [choice({"content": "Hi there"}), choice(None, message={"content": "Hi there."})],
        [choice([], text="Hi there")],
    ],
)
def test_text_is_read_once_wherever_it_stands(frames: list[object]):
    text, _ = whole("openai", sse(*frames) + STOP + DONE)

    assert text == "Hi there"


def other(index: int, content: str) -> dict[str, Any]:
    return {"index": index, "delta": {"content": content}, "finish_reason": None}


@pytest.mark.parametrize(
    "frames",
    [
        [{"choices": [other(0, "Hi "), other(1, "No")]}, {"choices": [other(0, "there")]}],
        [{"choices": [other(1, "No"), other(0, "Hi there")]}],
        [{"choices": [other(1, "No ")]}, {"choices": [other(0, "Hi there")]}],
        [choice({"content": "Hi there"}), {"choices": [other(1, "no")]}],
        [choice({"content": "Hi there"}), {"choices": [{"index": 1, "finish_reason": "abort"}]}],
    ],
)
def test_of_several_candidates_only_the_first_is_read(frames: list[object]):
    text, ended = whole("openai", sse(*frames) + STOP + DONE)

    assert (text, ended.stop_reason) == ("Hi there", "end_turn")


@pytest.mark.parametrize(
    "frame",
    [
        choice({"content": 5}),
        choice({"content": {"type": "image_url", "image_url": {"url": "x"}}}),
        choice({"content": [{"type": "image_url"}]}),
        choice(5),
        {"choices": [None]},
        {"choices": [5]},
        {"choices": 5},
        {"choices": {"delta": {"content": "x"}}},
        {"choices": [{"index": "zero", "delta": {}, "finish_reason": 5}]},
    ],
)
def test_what_of_a_chunk_cannot_be_read_is_left_out(frame: object):
    text, ended = whole("openai", hi(frame))

    assert text == "Hi there"
    assert ended.notes == ["1 part of openai's answer could not be read and was left out."]


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [], "prompt_filter_results": [{"content_filter_results": {}}]},
        {"choices": [{"delta": None}]},
        {"type": "ping"},
        {"error": None},
        {"error": {}},
        {"error": ""},
        choice({"content": None, "role": "assistant", "tool_calls": []}),
        choice({"content": [{"type": "reference", "reference_ids": [1]}]}),
        {"choices": [{"index": 0}], "usage": None},
    ],
)
def test_chunks_without_text_have_none(frame: object):
    text, ended = whole("openai", hi(frame))

    assert (text, ended.notes, ended.stop_reason) == ("Hi there", [], "end_turn")


# -- thoughts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": {"text": "hm"}},
        {"reasoning": {"content": "hm"}},
        {"reasoning_content": [{"type": "text", "text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "reasoning", "text": "hm"}]},
        {"content": "", "reasoning_content": "hm"},
    ],
)
def test_thoughts_are_kept_apart_whatever_their_shape(delta: dict[str, Any]):
    text, ended = whole("openai", hi(choice(delta)))

    assert (text, ended.thoughts, ended.notes) == ("Hi there", Thoughts(text="hm"), [])


def test_thoughts_and_text_in_one_frame_are_both_read():
    frame = choice({"content": "Hi", "reasoning": "hm"})

    text, ended = whole("openai", sse(frame) + STOP)

    assert (text, ended.thoughts) == ("Hi", Thoughts(text="hm"))


@pytest.mark.parametrize(
    ("deltas", "thoughts"),
    [
        ([{"reasoning_content": ""}], Thoughts(text="")),  # a server that asks for it back
        ([{"reasoning_content": None}], None),
        ([{"reasoning": 5}, {"reasoning": []}], None),
        ([{"reasoning": "a\ud83d"}, {"reasoning": "\ude00"}], Thoughts(text="a😀")),
        ([{"reasoning": "\ud83d"}], Thoughts(text="\ufffd")),
    ],
)
def test_whether_a_model_thought_is_known(deltas: list[dict[str, Any]], thoughts: Thoughts | None):
    _, ended = whole("openai", hi(*(choice(delta) for delta in deltas)))

    assert ended.thoughts == thoughts


def test_the_thoughts_of_a_last_message_are_not_told_twice():
    frames = sse(choice({"reasoning_content": "hm"}), choice({"content": "Hi"}))
    tail = sse(choice(None, "stop", message={"content": "Hi", "reasoning_content": "hm"}))

    text, ended = whole("openai", frames + tail + DONE)

    assert (text, ended.thoughts) == ("Hi", Thoughts(text="hm"))


# -- no text ----------------------------------------------------------------------------


def tool(**call: object) -> dict[str, Any]:
    return choice({"tool_calls": [call]})


@pytest.mark.parametrize(
    ("calls", "named"),
    [
        ([tool(index=0, id="a", function={"name": "f", "arguments": ""})], " (f)"),
        ([tool(id="a", function={"name": "f"}), tool(function={"arguments": "{"})], " (f)"),
        (
            [
                tool(index=0, id="a", function={"name": "f", "arguments": "{}"}),
                tool(index=0, id="b", function={"name": "g", "arguments": "{}"}),
            ],
            " (f, g)",
        ),
        (
            [
                tool(index=0, function={"name": "f"}),
                tool(index=0, id="a"),
                tool(index=0, id="a", function={"name": None, "arguments": "{}"}),
                tool(index=0, id="a", function={"name": "f", "arguments": ""}),
            ],
            " (f)",
        ),
        ([tool(index=None, id=5, type=None, function=None)], ""),
        ([choice({"tool_calls": {"function": {"name": "f"}}})], " (f)"),
        ([choice({"function_call": {"name": "f", "arguments": ""}})], " (f)"),
        ([choice(None, message={"tool_calls": [{"function": {"name": "f"}}]})], " (f)"),
        ([tool(function={"name": "a \n" + "b" * 100})], f" (a {'b' * 61})"),
        (
            [tool(function={"name": f"f{n}"}) for n in range(50)],
            " (f0, f1, f2, f3, f4)",
        ),
    ],
)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_tools_that_nobody_can_run_are_named_in_a_sentence(
    calls: list[object], named: str, reason: str
):
    text, ended = whole("openai", sse(*calls, choice({}, reason)) + DONE)

    assert (text, ended.stop_reason) == ("", "tool_calls")
    assert ended.sentence == (
        f"The model asked for a tool{named} instead of answering. natterlog cannot run tools for "
        "it yet."
    )


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_a_text_beside_a_tool_call_stands(reason: str):
    frames = [choice({"content": "Hi"}), tool(function={"name": "f"}), choice({}, reason)]

    text, ended = whole("openai", sse(*frames) + DONE)

    assert (text, ended.stop_reason, ended.sentence) == ("Hi", "tool_calls", None)


@pytest.mark.parametrize(
    ("frames", "sentence", "reason"),
    [
        ([choice({}, "content_filter")], "content filter", "content_filter"),
        ([choice({}, "refusal")], "The model refused to answer.", "refusal"),
        ([choice({"reasoning": "hm"}), choice({}, "length")], "for thinking", "max_tokens"),
        ([choice({}, "length")], "The limit of tokens was reached", "max_tokens"),
        ([choice({"reasoning": "hm"}), choice({}, "stop")], "thought, and then", "end_turn"),
        ([choice({}, "stop_sequence")], "ended at a stop sequence", "stop_sequence"),
        ([choice({"content": " \n"}), choice({}, "length")], "The limit of", "max_tokens"),
    ],
)
def test_a_reply_without_text_says_why(frames: list[object], sentence: str, reason: str):
    text, ended = whole("openai", sse(*frames) + DONE)

    assert (text.strip(), ended.stop_reason) == ("", reason)
    assert ended.sentence is not None
    assert sentence in ended.sentence


@pytest.mark.parametrize(
    "data",
    [
        DONE,
        STOP,
        STOP + DONE,
        sse(choice({"content": ""})) + DONE,
        sse(choice({"content": " "}), choice({}, "stop")),
    ],
)
def test_a_reply_of_nothing_is_a_fault_that_is_worth_one_more_try(data: bytes):
    _, broken = fault("openai", data)

    assert broken.message == "openai answered with nothing, and gave no reason."
    assert (broken.transient, broken.most_tries) == (True, 2)


@pytest.mark.parametrize(
    "lost",
    [
        b'{"choices":{"0":{"delta":{"content":"Hi"}}}}',
        b'{"choices":[{"index":0,"delta":[{"content":"Hi"}]}]}',
        b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]} and more',
    ],
)
def test_a_reply_of_which_nothing_can_be_read_shows_what_came(lost: bytes):
    _, broken = fault("openai", sse({"unknown": 1}) + b"data: " + lost + b"\n\n" + STOP + DONE)

    assert broken.message.startswith("openai sent nothing that can be read as a reply, but: ")
    assert lost.decode()[:12] in broken.message.replace(" ", "")
    assert broken.transient


@pytest.mark.parametrize(
    "frames",
    [
        [choice({"refusal": "No, "}), choice({"refusal": "never."}), choice({}, "stop")],
        [choice({"content": "No, "}), choice({"refusal": "never."}), choice({}, "stop")],
        [choice({"content": [{"type": "refusal", "refusal": "No, never."}]}, "stop")],
        [choice(None, "stop", message={"content": None, "refusal": "No, never."})],
        [choice({"refusal": "No, never."}), choice({}, "stop", message={"refusal": "No, never."})],
    ],
)
def test_a_refusal_is_text_and_a_stop_reason(frames: list[object]):
    text, ended = whole("openai", sse(*frames) + DONE)

    assert (text, ended.stop_reason) == ("No, never.", "refusal")


# -- counts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "counted", "notes"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2, 0), 0),
        ({"prompt_tokens": 3.0, "completion_tokens": "2"}, (3, 2, 0), 0),
        ({"prompt_tokens": "3.0", "completion_tokens": " 2 "}, (3, 2, 0), 0),
        ({"prompt_tokens": 3, "completion_tokens": None}, (3, 0, 0), 0),
        ({"prompt_tokens": 3, "completion_tokens": -1}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": 2.5}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": 2**63}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": 10**12 + 1}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": 10**300}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": "many"}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": float("nan")}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": float("inf")}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": True}, (3, 0, 0), 1),
        ({"prompt_tokens": 3, "completion_tokens": [2]}, (3, 0, 0), 1),
        ({"prompt_tokens": -1, "completion_tokens": -1}, None, 2),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, (1, 0, 4), 0),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, (0, 0, 9), 0),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}}, (5, 0, 0), 1),
        ({"prompt_tokens": 5, "prompt_tokens_details": 4}, (5, 0, 0), 1),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, (5, 0, 0), 0),
        ({}, None, 0),
        ([], None, 1),
        (5, None, 1),
        ("usage", None, 1),
    ],
)
def test_counts_are_read_leniently_or_left_out_with_a_note(
    usage: object, counted: tuple[int, int, int] | None, notes: int
):
    chunk = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"

    text, ended = whole("openai", sse(choice({"content": "Hi there"}), choice({}, "stop")) + chunk)

    found = ended.usage and (
        ended.usage.input_tokens,
        ended.usage.output_tokens,
        ended.usage.cache_read_input_tokens,
    )
    assert (text, found, len(ended.notes)) == ("Hi there", counted, notes)


def test_of_counts_in_every_chunk_the_last_believable_ones_count():
    frames = [
        {**choice({"content": "Hi "}), "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
        {**choice({"content": "there"}), "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        {**choice({}, "stop"), "usage": {"prompt_tokens": -3, "completion_tokens": None}},
    ]

    text, ended = whole("openai", sse(*frames) + DONE)

    assert text == "Hi there"
    assert ended.usage == Usage(input_tokens=3, output_tokens=2)
    assert ended.notes == ["openai counted '-3' as input_tokens; that was left out."]


# -- errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        sse({"error": {"message": "It broke."}}),
        sse({"error": "It broke."}),
        sse({"error": {"error": {"message": "It broke."}}}),
        sse([{"error": {"message": "It broke."}}]),
        sse({"object": "error", "message": "It broke.", "code": 500}),
        sse({"type": "error", "error": {"type": "api_error", "message": "It broke."}}),
        sse({"type": "error", "message": "It broke."}),
        sse({"code": 500, "msg": "It broke."}),
        sse({"detail": "It broke."}),
        b"event: error\n" + sse({"message": "It broke."}),
        b"event:error\r\n" + sse("It broke."),
        b"event: error\ndata: It broke.\n\n",
        b'event: error\ndata: {"message":\ndata: "It broke."}\n\n',
        b'data: {"message": "It broke.", "code": 502}\nevent: error\n\n',
        b'error: {"message": "It broke."}\n\n',
        as_json({"error": {"message": "It broke."}}) + b"\n",
        sse(choice({}, "error", error={"message": "It broke."})),
        sse(choice({}, error={"message": "It broke.", "code": 502})),
        sse({**choice({"content": ""}, "error"), "error": {"message": "It broke."}}),
    ],
)
def test_an_error_in_the_stream_says_what_the_provider_said(data: bytes):
    text, broken = fault("openai", sse(choice({"content": "Hi there"})) + data + STOP + DONE)

    assert text == "Hi there"
    assert broken.message == "openai reported an error: It broke."
    assert broken.transient


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        ({"message": "m", "type": "server_error", "code": None}, "provider_error", True),
        ({"message": "m", "type": "invalid_request_error"}, "provider_error", False),
        ({"message": "m", "code": "insufficient_quota"}, "provider_error", False),
        ({"message": "m", "code": 429}, "provider_unavailable", True),
        ({"message": "m", "code": "503"}, "provider_unavailable", True),
        ({"message": "m", "status": 504}, "timeout", True),
        ({"message": "m", "code": 400}, "provider_error", False),
        ({"message": "m", "code": 7, "type": "overloaded"}, "provider_unavailable", True),
        ({"type": "m"}, "provider_error", True),
        ("m", "provider_error", True),
        (["m"], "provider_error", True),
        (5, "provider_error", True),
    ],
)
def test_an_error_frame_is_judged_by_its_type_or_code(error: object, code: str, transient: bool):
    _, broken = fault("openai", sse({"error": error}))

    assert (broken.code, broken.transient) == (code, transient)
    assert broken.message == f"openai reported an error: {5 if error == 5 else 'm'}"


def test_a_wrong_key_in_an_answer_of_success_is_a_lasting_fault():
    error = {"message": "Bad key", "type": "invalid_request_error", "code": "invalid_api_key"}

    for data in (as_json({"error": error}), sse({"error": error})):
        _, broken = fault("openai", data)

        assert broken.message == (
            "openai reported an error: Bad key. Its key (OPENAI_API_KEY) is wrong or missing."
        )
        assert not broken.transient


@pytest.mark.parametrize(
    "answer", [{"detail": "It broke."}, {"message": "It broke."}, {"error": "It broke."}]
)
def test_an_object_alone_that_is_no_completion_is_an_error(answer: dict[str, Any]):
    text, broken = fault("openai", as_json(answer))

    assert (text, broken.message) == ("", "openai reported an error: It broke.")


def test_one_odd_frame_does_not_make_the_next_ones_odd():
    frames = [choice({"content": [{"text": "a\ud83d"}]}), choice({"content": "\ude00b"})]

    text, ended = result("openai", [sse(*frames) + STOP])

    assert text == "a😀b"
    assert not isinstance(ended, Exception)
