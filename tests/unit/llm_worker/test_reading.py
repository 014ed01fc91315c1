"""Bytes to text: wherever the network cuts them, and whatever a server sends."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm_worker.providers.anthropic import AnthropicReading
from services.llm_worker.providers.base import Ended, ProviderError
from services.llm_worker.providers.demo import Demo
from services.llm_worker.providers.ollama import OllamaReading
from services.llm_worker.providers.openai import OpenAIReading
from services.llm_worker.providers.reading import LONGEST_LINE, Reading, spoken
from services.llm_worker.providers.unicode import mend

READINGS = {"openai": OpenAIReading, "ollama": OllamaReading, "anthropic": AnthropicReading}


def wire(name: str, pieces: list[str], *, escaped: bool = True) -> bytes:
    """A whole reply of these pieces as one provider's bytes."""

    def line(data: object) -> bytes:
        return json.dumps(data, ensure_ascii=escaped).encode("utf-8", "surrogatepass")

    match name:
        case "openai":
            frames = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
            return b"".join(b"data: " + line(f) + b"\n\n" for f in frames) + b"data: [DONE]\n\n"
        case "ollama":
            lines = [{"message": {"content": piece}, "done": False} for piece in pieces]
            return b"".join(line(one) + b"\n" for one in [*lines, {"done": True}])
        case _:
            events = [
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": piece}}
                for piece in pieces
            ]
            return b"".join(
                b"event: " + event["type"].encode() + b"\r\ndata: " + line(event) + b"\r\n\r\n"
                for event in [*events, {"type": "message_stop"}]
            )


def read(reading: Reading, reads: list[bytes]) -> str:
    text = "".join(reading.feed(data) for data in reads if not reading.done)
    return text + reading.end()


@asynccontextmanager
async def reads(data: bytes) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """An answer that comes in one read."""
    rest = [data]

    async def read() -> bytes:
        return rest.pop() if rest else b""

    yield read


@pytest.fixture(params=list(READINGS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("escaped", [True, False])
def test_a_reply_cut_anywhere_reads_the_same(name: str, escaped: bool):
    pieces = ["Grüße ", "世界 ", "👋🏽", "\n", "end"]
    data = wire(name, pieces, escaped=escaped)

    texts = {read(READINGS[name](name), [data[:n], data[n:]]) for n in range(1, len(data))}

    assert texts == {"".join(pieces)}


def test_a_reply_that_comes_byte_by_byte_reads_the_same(name: str):
    data = wire(name, ["a\ud83d", "\ude00b", "c"])

    assert read(READINGS[name](name), [bytes([byte]) for byte in data]) == "a😀bc"


def test_a_last_line_without_its_newline_counts(name: str):
    data = wire(name, ["one ", "two"]).rstrip()

    assert read(READINGS[name](name), [data]) == "one two"


def test_bytes_that_are_not_utf_8_become_replacement_characters(name: str):
    data = wire(name, ["one ", "XX", " two"]).replace(b"XX", b"\xff")

    assert read(READINGS[name](name), [data]) == "one \ufffd two"


def test_a_line_without_end_is_given_up_on(name: str):
    reading = READINGS[name](name)
    reading.feed(wire(name, ["x"]).split(b"\n")[0] + b" " * LONGEST_LINE)

    assert reading.done
    with pytest.raises(ProviderError, match="cannot be read"):
        reading.end()


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"choices": [{"delta": {"content": 5}}]}',
        b"data: [1, 2]",
        b"data: " + b"[" * 100_000,
        b"data: never mind",
    ],
)
def test_what_is_no_chunk_is_a_passing_fault(frame: bytes):
    reading = OpenAIReading("openai")
    reading.feed(frame + b"\n\n")

    with pytest.raises(ProviderError) as raised:
        reading.end()

    assert raised.value.passing


@pytest.mark.parametrize(
    "line",
    [b"", b": a comment", b"event: x", b"id: 1", b"retry: 100", b"data:", b"data: ", b"\r"],
)
def test_lines_that_say_nothing_are_passed_over(line: bytes):
    data = wire("openai", ["one"])

    assert read(OpenAIReading("openai"), [line + b"\n", data]) == "one"


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": []},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": None, "role": "assistant", "tool_calls": []}}]},
        {"choices": [{"index": 0}], "usage": None},
    ],
)
def test_chunks_without_text_have_none(chunk: object):
    assert OpenAIReading("openai").feed(b"data: " + json.dumps(chunk).encode() + b"\n\n") == ""


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("eos", "end_turn"),
    ],
)
def test_openais_finish_reasons_become_anthropics_words(reason: str, ours: str):
    reading = OpenAIReading("openai")
    chunk = {"choices": [{"delta": {}, "finish_reason": reason}]}

    read(reading, [b"data:" + json.dumps(chunk).encode() + b"\n\n"])

    assert reading.stop_reason == ours


@pytest.mark.parametrize("count", [2**63, -(2**64)])
async def test_counts_that_no_table_can_hold_do_not_spoil_the_reply(count: int):
    end = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": count}}
    data = wire("openai", ["one"]).replace(
        b"data: [DONE]", b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]"
    )

    said = [
        piece async for piece in spoken(Demo(rate=0), "m", reads(data), OpenAIReading("openai"), 5)
    ]

    assert said == ["one", Ended(stop_reason="end_turn", usage=None)]


@pytest.mark.parametrize(
    ("error", "code", "passing"),
    [
        ({"message": "m", "type": "server_error", "code": None}, "provider_error", True),
        ({"message": "m", "type": "invalid_request_error"}, "provider_error", False),
        ({"message": "m", "code": "insufficient_quota"}, "provider_error", False),
        ({"message": "m", "code": 429}, "provider_unavailable", True),
        ({"message": "m", "code": 400}, "provider_error", False),
        ("m", "provider_error", True),
    ],
)
def test_an_error_frame_is_judged_by_its_type_or_code(error: object, code: str, passing: bool):
    reading = OpenAIReading("openai")
    reading.feed(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")

    with pytest.raises(ProviderError) as raised:
        reading.end()

    assert (raised.value.code, raised.value.passing) == (code, passing)
    assert raised.value.message == "openai broke off: m"


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
