"""Bytes to text: wherever the network cuts them, and whatever a server sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.llm_worker.providers import answer_reader as reading_module
from services.llm_worker.providers.answer_reader import Answer, spoken
from services.llm_worker.providers.base import Ended, ProviderError
from services.llm_worker.providers.demo import Demo
from services.llm_worker.providers.exchange import ReadInto, Take
from services.llm_worker.providers.lines import LONGEST_LINE
from services.llm_worker.providers.openai_reader import OpenAIReader
from services.llm_worker.providers.silence import Timeouts
from services.llm_worker.providers.unicode import mend
from shared.events import Usage
from tests.support.case_provider import read_cases
from tests.support.wires import (
    READINGS,
    as_json,
    choice,
    fault,
    message,
    ndjson,
    result,
    sse,
    text_block,
    whole,
    wire,
)

STREAMS = [case for case in read_cases() if case.status == 200]


@asynccontextmanager
async def reads(*data: bytes) -> AsyncIterator[ReadInto]:
    """An answer that comes in these reads."""

    async def read_into(take: Take) -> None:
        any(map(take, data))

    yield read_into


def known(outcome: tuple[str, Ended | ProviderError]) -> object:
    """An outcome as a value."""
    text, ended = outcome
    if isinstance(ended, ProviderError):
        return text, ended.message, ended.code, ended.transient
    return text, ended


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(at) if start < end]


@pytest.fixture(params=list(READINGS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


# -- wherever it is cut -----------------------------------------------------------------


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.id)
def test_a_recorded_answer_reads_the_same_wherever_it_is_cut(case: Any):
    data = b"".join(case.reads)

    outcomes = [
        known(result(case.api, case.reads)),
        known(result(case.api, [data])),
        known(result(case.api, [bytes([byte]) for byte in data])),
        *(known(result(case.api, [data[:n], data[n:]])) for n in range(1, len(data), 7)),
    ]

    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("escaped", [True, False])
def test_a_reply_cut_anywhere_reads_the_same(name: str, escaped: bool):
    pieces = ["Grüße ", "世界 ", "👋🏽", "\n", "end"]
    data = wire(name, pieces, escaped=escaped)

    texts = {result(name, [data[:n], data[n:]])[0] for n in range(1, len(data))}

    assert texts == {"".join(pieces)}


def test_a_reply_that_comes_byte_by_byte_reads_the_same(name: str):
    data = wire(name, ["a\ud83d", "\ude00b", "c"])

    text, ended = result(name, [bytes([byte]) for byte in data])

    assert isinstance(ended, Ended)
    assert text == "a😀bc"


ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
FILLING = st.sampled_from(
    [b": a comment", b"id: 7", b"retry: 100", b"event: x", b"id", b"data", b"data:"]
)


@st.composite
def events(draw: st.DrawFn) -> tuple[str, bytes]:
    """A text, and its stream in one of all the forms that the standard allows."""
    pieces = draw(st.lists(st.text(max_size=5), max_size=5))
    data = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    mixed = draw(st.booleans())
    usual = draw(ENDS)

    def line(content: bytes) -> bytes:
        end = draw(ENDS) if mixed else usual
        # a return and a line feed are one end of a line
        return content + (b"\r" if not content and data.endswith(b"\r") else end)

    for piece in pieces:
        for _ in range(draw(st.integers(0, 2))):
            data += line(draw(FILLING))
        value = as_json(choice({"content": piece}))
        breaks = [0, 1, value.index(b'"index"'), value.index(b'"delta"')]
        at = draw(st.sampled_from(breaks))  # none within a string or a word
        lines = [value[:at], value[at:]] if at else [value]
        space = draw(st.sampled_from([b"", b" "]))
        for one in lines:
            data += line(b"data:" + space + one)
        data += line(b"")
    data += line(b"data: [DONE]")
    return "".join(pieces), data


@given(events(), st.lists(st.integers(0, 10_000), max_size=8))
def test_every_form_of_events_reads_the_same_wherever_it_is_cut(
    stream: tuple[str, bytes], cuts: list[int]
):
    text, data = stream

    found, ended = result("openai", split(data, cuts))

    if text.strip():
        assert found == text
        assert isinstance(ended, Ended)
        assert ended.notes == []
    else:
        assert isinstance(ended, ProviderError)


# -- lines ------------------------------------------------------------------------------


def test_a_last_line_without_its_newline_counts(name: str):
    data = wire(name, ["one ", "two"]).rstrip()

    assert whole(name, data)[0] == "one two"


def test_bytes_that_are_not_utf_8_become_replacement_characters(name: str):
    data = wire(name, ["one ", "XX", " two"]).replace(b"XX", b"\xff")

    assert whole(name, data)[0] == "one \ufffd two"


@pytest.mark.parametrize(
    "line",
    [b"", b": error", b"event: x", b"id: 1", b"retry: 100", b"data:", b"data: ", b"\r", b"data"],
)
def test_lines_that_say_nothing_are_passed_over(name: str, line: bytes):
    first, _, rest = wire(name, ["one ", "two"]).partition(b"\n")

    text, ended = whole(name, first + b"\n\n" + line + b"\n" + rest)

    assert (text, ended.notes) == ("one two", [])


def test_events_without_blank_lines_between_them_are_read_at_once():
    data = wire("openai", ["one ", "two"]).replace(b"\n\n", b"\n")

    text = OpenAIReader("openai").feed(data)

    assert text == "one two"


def test_lines_that_only_look_like_one_event_are_read_one_by_one():
    frames = sse("ping", choice({"content": "one"})).replace(b"\n\n", b"\n")

    text, ended = whole("openai", frames + b"\ndata: [DONE]\n\n")

    assert text == "one"
    assert ended.notes == ["1 part of openai's answer could not be read and was left out."]


@pytest.mark.parametrize("mark", [b"data: [DONE]\n\n", b"data:[DONE]", b'data: "[DONE]"\r\n\r\n'])
def test_the_mark_of_the_end_is_one_for_all_that_send_events(mark: bytes):
    assert whole("openai", sse(choice({"content": "one"})) + mark)[0] == "one"
    assert whole("anthropic", sse(text_block("one")) + mark)[0] == "one"
    assert whole("ollama", sse(message("one")) + mark)[0] == "one"


def test_the_end_of_the_bytes_alone_is_no_end(name: str):
    data = wire(name, ["one ", "two"])
    cut = data[: data.index(b"two")]

    text, broken = fault(name, cut)

    assert text == "one "
    assert (broken.message, broken.transient) == (
        *(f"{name} broke off before the end of its reply.", True),
    )


# -- what cannot be read ----------------------------------------------------------------

ODD = [
    b"null",
    b"ping",
    b"5",
    b'"text"',
    b"[]",
    b"[1, 2]",
    b'{"broken": ',
    b"[" * 100_000,
    b'{"choices": ' + b"[" * 100_000,
    b'{"a": ' * 5_000 + b"1" + b"}" * 5_000,
    b'{"choices": 1' + b"0" * 5_000 + b"}",
    b"\xff\xfe\x00",
    b"\x00" * 100,
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd[:20]))
@pytest.mark.parametrize("position", ["before", "between", "after"])
def test_what_is_no_object_is_left_out_and_counted(name: str, odd: bytes, position: str):
    counter = "natterlog_provider_frames_skipped_total"
    before = REGISTRY.get_sample_value(counter, {"provider": name}) or 0.0
    lines = wire(name, ["one ", "two"]).split(b"\n")
    lines = [line for line in lines if line.strip()]
    one = next(n for n, line in enumerate(lines) if b"two" in line)
    at = {"before": 0, "between": one, "after": one + 1}[position]
    if name == "anthropic" and at:
        at -= position == "between"  # its event begins with the line before
    framed = odd if name == "ollama" else b"data: " + odd + b"\n"
    lines.insert(at, framed)

    text, ended = result(name, [b"\n".join(lines) if name == "ollama" else b"\n\n".join(lines)])

    assert text == "one two"
    assert isinstance(ended, Ended)
    assert ended.notes == [f"1 part of {name}'s answer could not be read and was left out."]
    assert REGISTRY.get_sample_value(counter, {"provider": name}) == before + 1


def test_after_the_end_nothing_makes_a_reply_fail():
    end = sse(choice({"content": "one"}), choice({}, "stop"))
    for after in (
        sse({"error": {"message": "m"}}),
        b"event: error\ndata: {}\n\n",
        sse(None, {"choices": None}, {"choices": [], "usage": 5}),
        sse(choice({}, "abort"), choice({}, "length")),
        b"x" * (LONGEST_LINE + 1),
        b"data: " + b"[" * 100_000,
    ):
        text, ended = whole("openai", end + after)

        assert (text, ended.stop_reason) == ("one", "end_turn")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "broke off before its first byte."),
        (b"\xef\xbb\xbf\r\n\r\n", "broke off before its first byte."),
        (b"Internal Server Error", "but: Internal Server Error (at http://127.0.0.1:9/v1/x."),
        (b"data: ping\n\n", "but: ping (at http"),
        (b'{"status": "fine"}', 'but: {"status": "fine"} (at http'),
        (b": nothing\n\n", "broke off before the end of its reply."),
    ],
)
def test_where_nothing_could_be_read_the_fault_says_what_came(
    name: str, data: bytes, sentence: str
):
    text, broken = fault(name, data)

    assert text == ""
    assert sentence in broken.message
    assert broken.transient


@pytest.mark.parametrize("page", [b"<!doctype html>", b"\r\n<HTML>", b"\xef\xbb\xbf<html>"])
def test_a_web_page_is_a_lasting_fault_that_names_its_address(name: str, page: bytes):
    data = page + b"<head><title>Wel</title></head><script>x</script><body>come" + b" " * 9_000

    text, broken = fault(name, data)

    assert (text, broken.transient) == ("", False)
    assert "a web page instead of a reply: “Wel come”" in broken.message
    assert "http://127.0.0.1:9/v1/x" in broken.message


def test_a_line_without_end_is_given_up_on(name: str):
    first = wire(name, ["x"]).split(b"\n")[0]

    _, broken = result(name, [first, *([b" " * 65_536] * (LONGEST_LINE // 65_536 + 1))])

    assert isinstance(broken, ProviderError)
    assert (broken.message, broken.transient) == (f"{name} sent what cannot be read.", True)


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"choices": [' + b"{}," * 300_000 + b"{}]" + b" " * 200_000 + b"}",
        b'{"error": ' + b"[" + b"[]," * 400_000 + b"[]]}",
        b'{"message": {"content": [' + b"{}," * 400_000 + b"{}]}}",
    ],
)
def test_json_that_would_fill_the_memory_is_not_decoded(name: str, bomb: bytes):
    framed = bomb if name == "ollama" else b"data: " + bomb + b"\n"
    data = wire(name, ["one"])
    reads = [framed[n : n + 65_536] for n in range(0, len(framed), 65_536)]

    _, broken = result(name, [*reads, b"\n", data])

    assert isinstance(broken, ProviderError)
    assert broken.message == f"{name} sent what cannot be read."


# -- whole answers ----------------------------------------------------------------------

COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one", "reasoning_content": "hm"},
            "finish_reason": "length",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}
MESSAGE = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "one"}],
    "stop_reason": "max_tokens",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
OBJECT = {
    "message": {"role": "assistant", "content": "one", "thinking": "hm"},
    "done": True,
    "done_reason": "length",
    "prompt_eval_count": 3,
    "eval_count": 2,
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("api", "answer"), [("openai", COMPLETION), ("anthropic", MESSAGE), ("ollama", OBJECT)]
)
def test_one_whole_object_is_an_answer_like_any_other(
    api: str, answer: dict[str, Any], indent: int | None
):
    data = json.dumps(answer, indent=indent).encode()

    outcomes = [result(api, [data]), result(api, [bytes([byte]) for byte in data])]

    for text, ended in outcomes:
        assert isinstance(ended, Ended)
        assert (text, ended.stop_reason, ended.notes) == ("one", "max_tokens", [])
        assert ended.usage is not None
        assert (ended.usage.input_tokens, ended.usage.output_tokens) == (3, 2)
        assert ended.thoughts is not None
        assert ended.thoughts.text == "hm"


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("openai", {"choices": [{"message": {"content": "one"}}]}),
        ("openai", {"choices": [{"message": "one", "finish_reason": None}]}),
        ("openai", {"choices": [{"text": "one", "finish_reason": "stop"}]}),
        ("anthropic", {"content": [{"type": "text", "text": "one"}]}),
        ("anthropic", {"type": "message", "content": "one"}),
        ("ollama", {"response": "one", "done": True}),
    ],
)
def test_a_whole_object_may_leave_out_much(api: str, answer: dict[str, Any]):
    text, ended = whole(api, as_json(answer))

    assert (text, ended.stop_reason) == ("one", "end_turn")


def test_half_of_a_whole_object_is_no_answer():
    for answer in (COMPLETION, MESSAGE):
        data = json.dumps(answer, indent=1).encode()
        for api in ("openai", "anthropic"):
            text, broken = fault(api, data[: len(data) // 2])

            assert text == ""
            assert broken.transient


def test_lines_of_json_are_read_where_events_were_awaited():
    chunks = ndjson(choice({"content": "one "}), choice({"content": "two"}), choice({}, "stop"))

    assert whole("openai", chunks)[0] == "one two"
    assert whole("anthropic", ndjson(text_block("one"), {"type": "message_stop"}))[0] == "one"


# -- the way through -------------------------------------------------------------------


async def spoken_from(answer: Answer) -> list[str | Ended]:
    pieces: list[str | Ended] = []
    reader = OpenAIReader("openai")
    ended = await spoken(Demo(rate=0), "m", answer, reader, Timeouts(60, 60), pieces.append)
    return [*pieces, ended]


async def test_a_reply_is_spoken_piece_by_piece_and_then_its_end():
    pieces = await spoken_from(
        reads(sse(choice({"content": "one "})), sse(choice({"content": "two"}, "stop")))
    )

    assert pieces == ["one ", "two", Ended(stop_reason="end_turn", usage=None)]


async def test_a_sentence_in_place_of_a_text_is_no_piece_of_one():
    pieces = await spoken_from(reads(sse(choice({}, "content_filter"))))

    assert pieces == [
        Ended(
            stop_reason="content_filter",
            usage=None,
            sentence="The provider's content filter held the answer back.",
        )
    ]


async def test_a_failed_call_says_what_it_cost():
    counts = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    with pytest.raises(ProviderError) as raised:
        await spoken_from(reads(sse(choice({"content": "one"}), counts, choice({}, "abort"))))

    assert raised.value.usage == Usage(input_tokens=3, output_tokens=2)


async def test_a_server_that_hangs_on_after_its_end_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading_module, "TAIL", 0.01)

    @asynccontextmanager
    async def answer() -> AsyncIterator[ReadInto]:
        async def read_into(take: Take) -> None:
            take(sse(choice({"content": "one"}, "stop")))
            await asyncio.Event().wait()

        yield read_into

    async with asyncio.timeout(5):
        pieces = await spoken_from(answer())

    assert pieces == ["one", Ended(stop_reason="end_turn", usage=None)]


async def test_a_server_that_writes_an_end_into_every_frame_may_take_its_time(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(reading_module, "TAIL", 0.01)
    frames = [sse(choice({"content": f"{n} "}, "stop")) for n in range(4)]

    @asynccontextmanager
    async def answer() -> AsyncIterator[ReadInto]:
        async def read_into(take: Take) -> None:
            take(frames[0])
            for frame in frames[1:]:
                take(frame)
                await asyncio.sleep(0.05)  # longer than the tail: that is what is tried

        yield read_into

    pieces = await spoken_from(answer())

    assert pieces[:4] == ["0 ", "1 ", "2 ", "3 "]


# -- half characters --------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec=None, categories=["Cs", "L", "So"]))))
def test_mended_text_is_valid_and_complete_however_it_was_cut(pieces: list[str]):
    held, text = "", ""
    for piece in pieces:
        more, held = mend(held, piece)
        text += more
    text += "\ufffd" if held else ""

    whole = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert text == whole
    assert text.encode().decode() == text


@given(st.lists(st.text(st.characters(codec=None, categories=["Cs", "L"]), max_size=3), min_size=1))
def test_half_characters_in_any_place_make_no_reply_invalid(pieces: list[str]):
    for name in READINGS:
        text, _ = result(name, [wire(name, pieces)])

        assert text.encode().decode() == text
