"""The three upstream APIs as bytes: what each sends before, for and after a token."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

CREATED = 1_790_000_000
CREATED_TEXT = "2026-10-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One reply as its wire needs to know it."""

    tag: str
    model: str
    prompt_tokens: int
    include_usage: bool = False
    thinks: bool = False
    stop: str = "stop"
    """In OpenAI's words."""


class Wire(Protocol):
    """One upstream API.  A token's frame is ``before + its JSON-escaped text + after``."""

    @property
    def content_type(self) -> str: ...
    @property
    def ping(self) -> bytes: ...
    @property
    def garbage(self) -> bytes: ...

    def opening(self, reply: Reply) -> bytes: ...
    def token(self, reply: Reply) -> tuple[bytes, bytes]: ...
    def thought(self, reply: Reply) -> tuple[bytes, bytes]: ...
    def after_thought(self, reply: Reply) -> bytes: ...
    def closing(self, reply: Reply, tokens: int) -> bytes: ...
    def broken(self, kind: str, sentence: str | None = None) -> bytes: ...
    def whole(self, reply: Reply, text: str, tokens: int) -> dict[str, Any]: ...
    def refusal(self, status: int, kind: str, message: str) -> dict[str, Any]: ...
    def catalogue(self, names: list[str]) -> dict[str, Any]: ...


_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
"""OpenAI's words in Anthropic's."""
_CUT = "\x00"
_TEXT = {"type": "text", "text": ""}


def _around(frame: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the text in a frame made with ``_CUT`` for its text."""
    before, after = frame.split(json.dumps(_CUT).strip('"').encode())
    return before, after


@dataclass(frozen=True)
class OpenAI:
    content_type: str = "text/event-stream; charset=utf-8"
    ping: bytes = b": ping\n\n"
    garbage: bytes = b'data: {"id": "chatcmpl-\n\n'

    def opening(self, reply: Reply) -> bytes:
        return self._chunk(reply, {"role": "assistant", "content": "", "refusal": None})

    def token(self, reply: Reply) -> tuple[bytes, bytes]:
        return _around(self._chunk(reply, {"content": _CUT}))

    def thought(self, reply: Reply) -> tuple[bytes, bytes]:
        return _around(self._chunk(reply, {"reasoning_content": _CUT}))

    def after_thought(self, reply: Reply) -> bytes:
        return b""

    def closing(self, reply: Reply, tokens: int) -> bytes:
        frames = self._chunk(reply, {}, finish_reason=reply.stop)
        if reply.include_usage:
            usage = self._usage(reply, tokens)
            frames += self._frame(self._head(reply) | {"choices": [], "usage": usage})
        return frames + b"data: [DONE]\n\n"

    def broken(self, kind: str, sentence: str | None = None) -> bytes:
        return self._frame(self.refusal(500, kind, sentence or "The server had an error."))

    def whole(self, reply: Reply, text: str, tokens: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.stop}
        head = self._head(reply) | {"object": "chat.completion"}
        return head | {"choices": [choice], "usage": self._usage(reply, tokens)}

    def refusal(self, status: int, kind: str, message: str) -> dict[str, Any]:
        code = "model_not_found" if status == 404 else None
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def catalogue(self, names: list[str]) -> dict[str, Any]:
        models = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "fake"}
            for name in names
        ]
        return {"object": "list", "data": models}

    def _chunk(
        self, reply: Reply, delta: dict[str, Any], finish_reason: str | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._head(reply) | {"choices": [choice]}
        return self._frame(chunk | ({"usage": None} if reply.include_usage else {}))

    @staticmethod
    def _head(reply: Reply) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{reply.tag}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": reply.model,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }

    @staticmethod
    def _usage(reply: Reply, tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": reply.prompt_tokens + tokens,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    @staticmethod
    def _frame(data: dict[str, Any]) -> bytes:
        return b"data: " + _json(data) + b"\n\n"


@dataclass(frozen=True)
class Anthropic:
    content_type: str = "text/event-stream; charset=utf-8"
    ping: bytes = b'event: ping\ndata: {"type": "ping"}\n\n'
    garbage: bytes = b'event: content_block_delta\ndata: {"type": "content_\n\n'

    def opening(self, reply: Reply) -> bytes:
        message = self.whole(reply, "", 1) | {"content": [], "stop_reason": None}
        first = {"type": "thinking", "thinking": "", "signature": ""} if reply.thinks else _TEXT
        return (
            self._frame({"type": "message_start", "message": message})
            + self._frame({"type": "content_block_start", "index": 0, "content_block": first})
            + self.ping
        )

    def token(self, reply: Reply) -> tuple[bytes, bytes]:
        return self._delta(int(reply.thinks), {"type": "text_delta", "text": _CUT})

    def thought(self, reply: Reply) -> tuple[bytes, bytes]:
        return self._delta(0, {"type": "thinking_delta", "thinking": _CUT})

    def after_thought(self, reply: Reply) -> bytes:
        return self._frame({"type": "content_block_stop", "index": 0}) + self._frame(
            {"type": "content_block_start", "index": 1, "content_block": _TEXT}
        )

    def closing(self, reply: Reply, tokens: int) -> bytes:
        delta = {"stop_reason": _STOP_REASONS.get(reply.stop, reply.stop), "stop_sequence": None}
        usage = {"output_tokens": tokens}
        return (
            self._frame({"type": "content_block_stop", "index": int(reply.thinks)})
            + self._frame({"type": "message_delta", "delta": delta, "usage": usage})
            + self._frame({"type": "message_stop"})
        )

    def broken(self, kind: str, sentence: str | None = None) -> bytes:
        return self._frame(self.refusal(500, kind, sentence or "Overloaded"))

    def whole(self, reply: Reply, text: str, tokens: int) -> dict[str, Any]:
        return {
            "id": f"msg_{reply.tag}",
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": _STOP_REASONS.get(reply.stop, reply.stop),
            "stop_sequence": None,
            "usage": {
                "input_tokens": reply.prompt_tokens,
                "output_tokens": tokens,
                "cache_creation_input_tokens": 2,
                "cache_read_input_tokens": 1,
            },
        }

    def refusal(self, status: int, kind: str, message: str) -> dict[str, Any]:
        error = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": "req_fake"}

    def catalogue(self, names: list[str]) -> dict[str, Any]:
        models = [
            {
                "type": "model",
                "id": name,
                "display_name": name.title(),
                "created_at": CREATED_TEXT,
                "lifecycle": "active",
                "max_input_tokens": 200_000,
                "max_tokens": 64_000,
                **self.capabilities(name),
            }
            for name in names
        ]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"data": models, "has_more": False} | ends

    def _delta(self, index: int, delta: dict[str, Any]) -> tuple[bytes, bytes]:
        frame = {"type": "content_block_delta", "index": index, "delta": delta}
        return _around(self._frame(frame))

    @staticmethod
    def capabilities(name: str) -> dict[str, Any]:
        """What newer versions of the list say; older ones, and this for most names, nothing."""
        if "blind" not in name:
            return {}
        return {"capabilities": {"image_input": {"supported": False}}}

    @staticmethod
    def _frame(data: dict[str, Any]) -> bytes:
        return f"event: {data['type']}\ndata: ".encode() + _json(data) + b"\n\n"


@dataclass(frozen=True)
class Ollama:
    content_type: str = "application/x-ndjson"
    # Ollama has no heartbeat: an empty piece is the nearest thing to one
    ping: bytes = (
        b'{"model":"fake","created_at":"2026-10-01T00:00:00Z",'
        b'"message":{"role":"assistant","content":""},"done":false}\n'
    )
    garbage: bytes = b'{"model": "fa\n'
    details: dict[str, Any] = field(
        default_factory=lambda: {"format": "gguf", "family": "fake", "parameter_size": "1B"}
    )

    def opening(self, reply: Reply) -> bytes:
        return b""

    def token(self, reply: Reply) -> tuple[bytes, bytes]:
        return _around(self._line(reply, {"role": "assistant", "content": _CUT}))

    def thought(self, reply: Reply) -> tuple[bytes, bytes]:
        return _around(self._line(reply, {"role": "assistant", "content": "", "thinking": _CUT}))

    def after_thought(self, reply: Reply) -> bytes:
        return b""

    def closing(self, reply: Reply, tokens: int) -> bytes:
        return _json(self.whole(reply, "", tokens)) + b"\n"

    def broken(self, kind: str, sentence: str | None = None) -> bytes:
        message = sentence or f"an error was encountered: {kind}"
        return _json(self.refusal(500, kind, message)) + b"\n"

    def whole(self, reply: Reply, text: str, tokens: int) -> dict[str, Any]:
        return {
            "model": reply.model,
            "created_at": CREATED_TEXT,
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": reply.stop,
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": reply.prompt_tokens,
            "prompt_eval_duration": 1_000_000,
            "eval_count": tokens,
            "eval_duration": 3_000_000,
        }

    def refusal(self, status: int, kind: str, message: str) -> dict[str, Any]:
        return {"error": message}

    def catalogue(self, names: list[str]) -> dict[str, Any]:
        models = [
            {
                "name": name,
                "model": name,
                "modified_at": CREATED_TEXT,
                "size": 1_000_000,
                "digest": "f" * 64,
                "details": self.details,
            }
            for name in names
        ]
        return {"models": models}

    @staticmethod
    def _line(reply: Reply, message: dict[str, Any]) -> bytes:
        head = {"model": reply.model, "created_at": CREATED_TEXT}
        return _json(head | {"message": message, "done": False}) + b"\n"


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
