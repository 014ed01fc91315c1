"""What the Messages API answers: events of a stream, or one whole message."""

from typing import Literal

import msgspec

from services.llm_worker.providers import endings
from services.llm_worker.providers.answer_reader import AnswerReader
from services.llm_worker.providers.counts import Number
from services.llm_worker.providers.shapes import NOTHING, Object
from services.llm_worker.providers.thoughts import MOST_BLOCKS
from services.llm_worker.providers.unicode import mended


class _UsualDelta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


class _Usual(msgspec.Struct, gc=False):
    """An event that brings the next piece of text or thoughts."""

    type: Literal["content_block_delta"]
    delta: _UsualDelta


class _Counts(msgspec.Struct, gc=False):
    """Of usage; None where an event says nothing new.  In ``message_delta`` they are sums."""

    input_tokens: Number = None
    output_tokens: Number = None
    cache_creation_input_tokens: Number = None
    cache_read_input_tokens: Number = None


class _Details(msgspec.Struct, gc=False):
    category: str | None = None
    explanation: str | None = None


class _Message(msgspec.Struct, gc=False):
    usage: _Counts | None = None


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_details: _Details | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    name: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Counts | None = None
    error: msgspec.Raw = NOTHING
    content: list[_Block] | None = None
    """Of a whole message, as the next two."""
    stop_reason: str | None = None
    stop_details: _Details | None = None


def _kind(event: _Event) -> str:
    """The kind of an event whose server does not name it; nothing for what is no event."""
    if event.error is not NOTHING:
        return "error"
    if event.content is not None:
        return "message"
    if event.message is not None:
        return "message_start"
    if event.content_block is not None:
        return "content_block_start"
    if event.delta is None:
        return ""
    return "message_delta" if event.delta.stop_reason else "content_block_delta"


_usual = msgspec.json.Decoder(_Usual)
_decoder = msgspec.json.Decoder(_Event)


class AnthropicReader(AnswerReader[_Usual, _Event]):
    """A stop reason or ``message_stop`` ends a reply."""

    def __init__(self, provider: str, address: str = "") -> None:
        super().__init__(provider, _usual, _decoder, address)
        self._block: _Block | None = None
        """The block of thoughts that has begun."""
        self._block_thoughts: list[str] = []

    def _take_usual(self, frame: _Usual) -> str | None:
        delta = frame.delta
        if delta.text:
            return delta.text
        if delta.thinking is None:
            return None
        self._take_thought(delta.thinking)
        return ""

    def _take(self, frame: _Event) -> str | None:
        """The text in an event of any kind, also where its server does not name it."""
        kind, delta = frame.type or _kind(frame), frame.delta
        match kind:
            case "content_block_delta" if delta is not None:
                return self._take_delta(delta)
            case "content_block_start" if frame.content_block is not None:
                return self._begin_block(frame.content_block)
            case "content_block_stop":
                self._end_block()
            case "message_start" if frame.message is not None:
                self._count(frame.message.usage)
            case "message_delta":
                self._take_end(frame.usage, delta or frame)
            case "message":
                return self._take_whole(frame)
            case "message_stop":
                self.reply.done = self.reply.complete = True
            case "error" | "":
                self.reply.take_error(frame.error)
                return "" if self.reply.done else None
            case _:  # pings, and what later versions add
                pass
        return ""

    def _take_whole(self, frame: _Event) -> str:
        """A message of a server that does not stream."""
        text = ""
        for block in frame.content or ():
            text += self._begin_block(block)
            self._end_block()
        self._take_end(frame.usage, frame)
        self.reply.done = self.reply.complete = True
        return text

    def _take_delta(self, delta: _Delta) -> str:
        """The text in a piece of a block; else it is thoughts, their signature, a tool's input."""
        self.thinks = True
        if delta.thinking is not None:
            self._take_thought(delta.thinking)
        if delta.signature is not None and self._block is not None:
            self._block.signature = (self._block.signature or "") + delta.signature
        return delta.text or ""

    def _take_thought(self, thought: str) -> None:
        self._think(thought)
        if self._block is not None and self.reply.thinking.length <= MOST_BLOCKS:
            self._block_thoughts.append(thought)

    def _begin_block(self, block: _Block) -> str:
        self._end_block()
        match block.type:
            case "thinking":
                self._block, self._block_thoughts = block, [block.thinking or ""]
                self._think(block.thinking or "")
            case "redacted_thinking":
                self._block = block
            case "tool_use":
                self._use_tool(block.name)
            case _:
                pass
        return block.text or ""

    def _end_block(self) -> None:
        """Keep what the API wants back as it came; thoughts that are not signed it refuses."""
        block, self._block = self._block, None
        if block is None:
            return
        if block.type == "redacted_thinking" and block.data:
            self.reply.thinking.add_block({"type": "redacted_thinking", "data": block.data})
        elif block.signature:
            self.reply.thinking.add_block(
                {
                    "type": "thinking",
                    "thinking": "".join(self._block_thoughts),
                    "signature": block.signature,
                }
            )

    def _take_end(self, counts: _Counts | None, end: _Delta | _Event) -> None:
        """A stop reason that is new to us is an end too: failures have an event of their own."""
        self._count(counts)
        word, details = end.stop_reason or "", end.stop_details
        if details is not None and details.explanation:
            self.reply.why = " ".join(mended(details.explanation[:300]).split())
        if not endings.is_ending(word):
            return
        if endings.stop_reason(word) is None:
            self.reply.notes.append(
                f"{self.reply.provider} ended with {word[:40]!r}, which natterlog does not know."
            )
            word = "end_turn"
        self._end_block()
        self.reply.finish(word)

    def _count(self, counts: _Counts | None) -> None:
        if counts is not None:
            for name in counts.__struct_fields__:
                self.reply.counts.take(name, getattr(counts, name))

    def _straightened(self, data: Object) -> Object:
        if isinstance(content := data.get("content"), str):
            data["content"] = [{"type": "text", "text": content}]
        return data
