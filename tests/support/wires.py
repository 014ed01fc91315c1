"""Replies as the bytes of each provider, and what a reading makes of bytes."""

import json
from collections.abc import Iterable
from typing import Any

from services.llm_worker.providers.anthropic_reader import AnthropicReader
from services.llm_worker.providers.base import Ended, ProviderError
from services.llm_worker.providers.ollama_reader import OllamaReader
from services.llm_worker.providers.openai_reader import OpenAIReader

READINGS = {"openai": OpenAIReader, "ollama": OllamaReader, "anthropic": AnthropicReader}
ADDRESS = "http://127.0.0.1:9/v1/x"


def as_json(data: object, *, escaped: bool = True) -> bytes:
    return json.dumps(data, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


def wire(name: str, pieces: list[str], *, escaped: bool = True) -> bytes:
    """A whole reply of these pieces as one provider's bytes."""

    def line(data: object) -> bytes:
        return as_json(data, escaped=escaped)

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


def sse(*frames: object) -> bytes:
    """Frames as server-sent events."""
    return b"".join(b"data: " + as_json(frame) + b"\n\n" for frame in frames)


def ndjson(*lines: object) -> bytes:
    return b"".join(as_json(line) + b"\n" for line in lines)


def choice(delta: object = None, finish_reason: object = None, **more: object) -> dict[str, Any]:
    """A chunk of OpenAI's."""
    made = {"index": 0, "delta": delta, "finish_reason": finish_reason, **more}
    return {"choices": [made]}


def text_block(text: object) -> dict[str, Any]:
    """An event of Anthropic's with a piece of text."""
    return {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}


def message(content: object, *, done: object = False, **more: object) -> dict[str, Any]:
    """A line of Ollama's."""
    return {"message": {"role": "assistant", "content": content}, "done": done, **more}


def result(name: str, reads: Iterable[bytes]) -> tuple[str, Ended | ProviderError]:
    """The text, and how it ended: what a provider's stream gives for these reads."""
    reading, text = READINGS[name](name, ADDRESS), ""
    try:
        for data in reads:
            if reading.reply.done:
                break
            text += reading.feed(data)
        text += reading.end()
        return text, reading.reply.ended(reading.reply.sentence() if reading.blank else None)
    except ProviderError as fault:
        return text, fault


def whole(name: str, data: bytes) -> tuple[str, Ended]:
    """The reply in ``data``, which must have a good end."""
    text, ended = result(name, [data])
    assert isinstance(ended, Ended), ended
    return text, ended


def fault(name: str, data: bytes) -> tuple[str, ProviderError]:
    """The text before the fault in ``data``, and the fault."""
    text, ended = result(name, [data])
    assert isinstance(ended, ProviderError), ended
    return text, ended
