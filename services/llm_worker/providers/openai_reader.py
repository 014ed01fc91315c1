"""What OpenAI-compatible servers answer: chat completion chunks, or one whole completion."""

from typing import Literal

import msgspec

from services.llm_worker.providers import shapes
from services.llm_worker.providers.answer_reader import AnswerReader
from services.llm_worker.providers.counts import Number
from services.llm_worker.providers.shapes import NOTHING, Object


# What is None here may have a value: such a frame does not decode, and is not the usual one.
class _UsualDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: None = None
    refusal: None = None


class _UsualChoice(msgspec.Struct, gc=False):
    delta: _UsualDelta
    index: Literal[0, None] = 0
    finish_reason: Literal["", "null", None] = None
    error: None = None


class _Usual(msgspec.Struct, gc=False):
    """A chunk that brings the next piece of text or thoughts, and nothing else."""

    choices: tuple[_UsualChoice]
    usage: None = None
    error: None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    refusal: str | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: _Delta | None = None
    """The whole of it: of servers that do not stream, and at the end of some that do."""
    text: str | None = None
    """As in completions without a chat."""
    error: msgspec.Raw = NOTHING


class _CachedTokens(msgspec.Struct, gc=False):
    cached_tokens: Number = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Number = None
    completion_tokens: Number = None
    prompt_tokens_details: _CachedTokens | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = NOTHING


_usual = msgspec.json.Decoder(_Usual)
_decoder = msgspec.json.Decoder(_Chunk)


class OpenAIReader(AnswerReader[_Usual, _Chunk]):
    """A finish reason or ``[DONE]`` ends the reply; counts may follow.

    Of several candidates only the first is read.
    """

    def __init__(self, provider: str, address: str = "") -> None:
        super().__init__(provider, _usual, _decoder, address)
        self.reply.counts.cached_within = True
        self._beside = False
        """What text there is came beside the deltas."""
        self._message: str | None = ""
        """The latest whole message; None: each has only what is new."""

    def _take_usual(self, frame: _Usual) -> str | None:
        delta = frame.choices[0].delta
        thought = delta.reasoning_content
        if thought is None:
            thought = delta.reasoning
        if thought is None:
            return delta.content or None
        if delta.content:
            return None
        self._think(thought)
        return ""

    def _take(self, frame: _Chunk) -> str | None:
        if frame.usage is not None:
            self._count(frame.usage)
        self.reply.take_error(frame.error)
        if frame.choices is None:
            return None if frame.usage is None and frame.error is NOTHING else ""
        choice = next((one for one in frame.choices if not one.index), None)
        if choice is None:
            return ""
        text = "" if choice.delta is None else self._take_delta(choice.delta)
        if text:
            self._has_text = True
        else:
            text = self._take_message(choice)
        self.reply.take_error(choice.error)
        self.reply.finish(choice.finish_reason or "")
        return text

    def _take_delta(self, delta: _Delta) -> str:
        thought = delta.reasoning_content
        if thought is None:
            thought = delta.reasoning
        if thought is not None:
            self._think(thought)
        self._take_tools(delta)
        text = delta.content or ""
        return text + self.reply.refuse(delta.refusal) if delta.refusal else text

    def _take_message(self, choice: _Choice) -> str:
        """What is new in a whole message, or in the text beside it; deltas go before both."""
        message = choice.message
        if self._has_text and not self._beside:
            return ""
        if message is None:
            self._beside = self._beside or bool(choice.text)
            return choice.text or ""
        self._take_tools(message)
        thought = message.reasoning_content or message.reasoning
        if thought is not None and not self.reply.thinking.length:
            self._think(thought)
        if self._whole and not choice.finish_reason:
            self.reply.complete = True
        text = message.content or ""
        if message.refusal:
            text += self.reply.refuse(message.refusal)
        if not text:
            return ""
        self._beside = True
        if self._message is None or not text.startswith(self._message):
            self._message = None
            return text
        new, self._message = text[len(self._message) :], text
        return new

    def _take_tools(self, delta: _Delta) -> None:
        for call in delta.tool_calls or ():
            self._use_tool(call.function.name if call.function is not None else None)
        if delta.function_call is not None:
            self._use_tool(delta.function_call.name)

    def _count(self, usage: _Usage) -> None:
        self.reply.counts.take("input_tokens", usage.prompt_tokens)
        self.reply.counts.take("output_tokens", usage.completion_tokens)
        if usage.prompt_tokens_details is not None:
            cached = usage.prompt_tokens_details.cached_tokens
            self.reply.counts.take("cache_read_input_tokens", cached)

    def _straightened(self, data: Object) -> Object:
        for choice in map(shapes.as_object, shapes.as_list(data.get("choices")) or ()):
            if choice is None:
                continue
            for name in ("delta", "message"):
                if isinstance(text := choice.get(name), str):
                    choice[name] = {"content": text}
                elif (delta := shapes.as_object(text)) is not None:
                    self._straighten(delta)
            if (reason := shapes.as_object(choice.get("finish_reason"))) is not None:
                choice["finish_reason"] = reason.get("type")
        return data

    def _straighten(self, delta: Object) -> None:
        """A content in parts, and thoughts in an object, become the texts that they hold."""
        for name in ("reasoning_content", "reasoning"):
            if not isinstance(delta.get(name), str):
                delta[name] = shapes.text_in(delta.get(name))
        if (call := shapes.as_object(delta.get("tool_calls"))) is not None:
            delta["tool_calls"] = [call]
        if isinstance(delta.get("content"), list | dict):
            delta["content"], thought = self._text_and_thought(delta["content"])
            if thought is not None:
                delta["reasoning_content"] = (delta["reasoning_content"] or "") + thought
