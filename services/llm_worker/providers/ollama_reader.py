"""What Ollama answers: lines of JSON, the last one with ``done: true``."""

import msgspec

from services.llm_worker.providers import shapes
from services.llm_worker.providers.answer_reader import AnswerReader
from services.llm_worker.providers.counts import Number
from services.llm_worker.providers.shapes import NOTHING, Object

_LOADED = {"load": "because it only loaded the model", "unload": "because it unloaded the model"}
"""Endings of calls in which no answer is wanted."""


# What is None here may have a value: such a line does not decode, and is not the usual one.
class _UsualMessage(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: None = None


class _Usual(msgspec.Struct, gc=False):
    """A line that brings the next piece of text or thoughts, and nothing else."""

    message: _UsualMessage
    done: bool = False
    error: None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct):
    message: _Message | None = None
    done: bool | None = False
    done_reason: str | None = None
    prompt_eval_count: Number = None
    eval_count: Number = None
    response: str | None = None
    """As in calls without a chat."""
    error: msgspec.Raw = NOTHING


_usual = msgspec.json.Decoder(_Usual)
_decoder = msgspec.json.Decoder(_Line)


class OllamaReader(AnswerReader[_Usual, _Line]):
    """Chat lines.  Counts of the last one are the usage (a cached prompt counts nothing)."""

    by_lines = True

    def __init__(self, provider: str, address: str = "") -> None:
        super().__init__(provider, _usual, _decoder, address)

    def _take_usual(self, frame: _Usual) -> str | None:
        message = frame.message
        if frame.done:
            return None
        if message.thinking is None:
            return message.content
        if message.content:
            return None
        self._think(message.thinking)
        return ""

    def _take(self, frame: _Line) -> str | None:
        message = frame.message
        text = ""
        if message is not None:
            text = message.content or ""
            if message.thinking is not None:
                self._think(message.thinking)
            if message.tool_calls is not None:
                for call in message.tool_calls:
                    self._use_tool(call.function.name if call.function is not None else None)
        elif frame.response is not None:
            text = frame.response
        elif not frame.done and frame.error is NOTHING:
            return None
        self.reply.take_error(frame.error)
        if frame.done:
            self._take_end(frame)
        return text

    def _take_end(self, frame: _Line) -> None:
        self.reply.counts.take("input_tokens", frame.prompt_eval_count)
        self.reply.counts.take("output_tokens", frame.eval_count)
        reason = frame.done_reason or "stop"
        self.reply.why = _LOADED.get(reason, "")
        self.reply.finish("stop" if self.reply.why else reason)
        self.reply.done = True

    def _straightened(self, data: Object) -> Object:
        if data.get("done") in ("true", 1):
            data["done"] = True
        message = shapes.as_object(data.get("message"))
        if message is None:
            return data
        if not isinstance(message.get("thinking"), str):
            message["thinking"] = shapes.text_in(message.get("thinking"))
        if isinstance(message.get("content"), list | dict):
            message["content"], thought = self._text_and_thought(message["content"])
            if thought is not None:
                message["thinking"] = (message["thinking"] or "") + thought
        return data
