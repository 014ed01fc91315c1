"""From the bytes of an answer to the text of a reply: what all HTTP providers have in common.

This is the product's hottest path.  A network read is split into lines as bytes,
each line decoded into the few fields that matter, and all the text in it given
on as one piece: no await, no timer and no object of ours for a line.

Whatever is not one line of JSON with a piece of text leaves the quick way: events
by the standard in all their forms, other line ends, whole answers in place of a
stream, other shapes.  What cannot be read at all is counted and passed over.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import msgspec

from services.llm_worker.providers import faults, shapes
from services.llm_worker.providers.base import Ended, Provider, ProviderError, Write
from services.llm_worker.providers.exchange import ReadInto, Take
from services.llm_worker.providers.lines import LONGEST_LINE, PAGE, Beginning, Event
from services.llm_worker.providers.reply import Reply
from services.llm_worker.providers.shapes import Object
from services.llm_worker.providers.silence import Silence, Timeouts
from services.llm_worker.providers.unicode import REPLACEMENT, decode_tolerantly, is_broken, mend

LONGEST_ODD = 1024 * 1024
"""Bytes of JSON that is looked at although its shape is not the documented one."""
TAIL = 3.0
"""Seconds for what may follow the end of a reply: counts, and the mark of the stream's end."""

_CR = 13  # a number is found faster in bytes than bytes are
_END_MARKS = (b"[DONE]", b'"[DONE]"')
_USUAL_EVENT = b"event: content_block_delta"
_SILENT = (b"\r", _USUAL_EVENT + b"\r")
"""Lines between frames that say nothing to us."""

Answer = AbstractAsyncContextManager[ReadInto]
"""Open it to get what hands its bytes over."""

Usual = TypeVar("Usual", bound=msgspec.Struct)
Frame = TypeVar("Frame", bound=msgspec.Struct)


class AnswerReader(ABC, Generic[Usual, Frame]):
    """What one stream's bytes have brought so far; a line may end in any later read.

    A frame with a piece of text and nothing else is decoded into the few fields of
    ``Usual``; every other one into all that may matter.
    """

    by_lines = False
    """The API answers with JSON a line, and not with events."""

    def __init__(
        self,
        provider: str,
        usual: msgspec.json.Decoder[Usual],
        decoder: msgspec.json.Decoder[Frame],
        address: str,
    ) -> None:
        self.reply = Reply(provider, address)
        self.thinks = False
        """The latest read brought thoughts or tools: they count as content, but are not text."""
        self.blank = True
        """No text has come that anybody could see."""
        self._add_thought = self.reply.thinking.add
        self._decode_usual = usual.decode
        self._decode = decoder.decode
        self._kind = decoder.type
        self._beginning = Beginning()
        self._untidy = True
        """The next read must be looked at before it is split into lines."""
        self._crlf = False
        """Returns in a read may stay."""
        self._prefix, self._skip = b"data:", 5
        """What a line with JSON begins with, and its length; other lines take the slow way."""
        self._whole = False
        """The answer began with JSON: one object that is all of it, or one a line."""
        self._rest: list[bytes] = []
        """The beginning of a line that has not ended."""
        self._rest_length = 0
        self._event: Event | None = None
        self._has_text = False
        """Text has come before the frame at hand."""
        self._held = ""
        self._unmended = False

    @abstractmethod
    def _take_usual(self, frame: Usual) -> str | None:
        """The text in ``frame``; None: there may be something else in it."""

    @abstractmethod
    def _take(self, frame: Frame) -> str | None:
        """Note what ``frame`` says, and return the text in it; None: it says nothing we know."""

    def _straightened(self, data: Object) -> Object:
        """``data`` with what servers write in other shapes put into the documented ones."""
        return data

    def _think(self, thought: str) -> None:
        if thought:
            self.thinks = True
        self._add_thought(thought)

    def _use_tool(self, name: str | None) -> None:
        self.thinks = True
        self.reply.use_tool(name)

    # -- the quick way --------------------------------------------------------------

    def feed(self, data: bytes) -> str:  # noqa: C901  (a call more for each token is 5 %)
        """The text in one network read, perhaps none."""
        self.thinks = False
        if self._untidy or (_CR in data and not self._crlf):
            data = self._tidied(data)
        lines = data.split(b"\n")
        if self._rest and len(lines) > 1:
            lines[0] = self._joined(lines[0])
        rest = lines.pop()
        rows = iter(lines)
        text = "" if self._event is None else self._read_on(rows)
        prefix, skip = self._prefix, self._skip
        take, decode = self._take_usual, self._decode_usual
        for line in rows:
            if line.startswith(prefix):
                try:
                    piece = take(decode(line[skip:]))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    piece = None
                if piece:
                    text += piece
                    continue
                if piece is not None:
                    continue
            elif not line or line == _USUAL_EVENT or line in _SILENT:
                continue
            self._has_text = self._has_text or bool(text)
            text += self._read_line(line) + self._read_on(rows)
            if self.reply.done:
                break
        if rest:
            self._hold(rest)
        if self.thinks:
            self.reply.check_thoughts()
        if self._unmended:
            text, self._held = mend(self._held, text)
        if self.blank and text:
            self._has_text = True
            self.blank = text.isspace()
        return text

    def end(self) -> str:
        """What was held back, now that nothing more comes.

        Raises:
            ProviderError: an error had come, or nothing said that this was the reply's end.
        """
        reply = self.reply
        if self._event is not None and self._event.lasts:
            self._event.values.append(b"".join(self._rest))
            self._event.lasts = False
            self._rest = []
        text = "" if reply.done else self.feed(b"\n\n")
        if self._held:
            text, self.blank = text + REPLACEMENT, False
        if page := self._beginning.page:
            reply.fail(faults.web_page(reply.provider, reply.address, page))
        if reply.failure is not None:
            raise reply.failure
        if not reply.complete:
            raise self._broken_off()
        return text

    def _broken_off(self) -> ProviderError:
        reply = self.reply
        if not self._beginning.kind:
            return faults.nothing(reply.provider)
        if self.blank and reply.thinking.length == 0 and reply.first_lost:
            return faults.unreadable(reply.provider, reply.address, reply.first_lost)
        return faults.broken_off(reply.provider)

    # -- lines of any kind ----------------------------------------------------------

    def _tidied(self, data: bytes) -> bytes:
        beginning = self._beginning
        data = beginning.tidied(data)
        self._untidy, self._crlf = not beginning.is_over, beginning.crlf
        if beginning.kind in (b"{", b"[") or (self.by_lines and not beginning.is_event):
            self._prefix, self._skip, self._whole = b"", 0, True
        if len(beginning.page) == PAGE:
            self.reply.done = True
        return data

    def _hold(self, data: bytes) -> None:
        """Keep the beginning of a line."""
        self._rest.append(data)
        self._rest_length += len(data)
        if self._rest_length > LONGEST_LINE:
            self._rest.clear()
            self.reply.fail(faults.garbled(self.reply.provider))

    def _joined(self, data: bytes) -> bytes:
        """A line with its beginning."""
        data = b"".join((*self._rest, data))
        self._rest.clear()
        self._rest_length = 0
        if shapes.is_bomb(data):
            self.reply.fail(faults.garbled(self.reply.provider))
            return b""
        return data

    def _read_on(self, rows: Iterator[bytes]) -> str:
        """The text in further lines, up to the end of the event that has begun."""
        text = ""
        while self._event is not None and not self.reply.done:
            if (line := next(rows, None)) is None:
                break
            text += self._read_line(line)
        return text

    def _read_line(self, line: bytes) -> str:
        """The text in a line of any kind, as far as it can be told before the event's end."""
        line = line.removesuffix(b"\r")
        event = self._event
        if event is not None and event.lasts:
            return self._collect(line)
        if not line:
            return self._end_event()
        if _CR in line and not self._whole:  # some of its lines end otherwise
            return "".join(self._read_line(one) for one in line.split(b"\r"))
        field, _, value = line.partition(b":")
        match field:
            case b"data":
                text = self._read_value(value) if event is None else None
                return self._collect(value) if text is None else text
            case b"event":
                self._name_event(value)
            case b"error":
                self._report(value)
            case b"" | b"id" | b"retry":
                self.reply.ignore(b"")
            case _ if self._whole or line.lstrip().startswith((b"{", b"[")):
                return self._read_bare(line)
            case _:
                self.reply.ignore(line)
        return ""

    def _name_event(self, name: bytes) -> None:
        """Only whether an event is an error matters: the data says what else it is."""
        if b"error" in name or self._event is not None:
            self._event = self._event or Event()
            self._event.is_error = b"error" in name

    def _read_bare(self, line: bytes) -> str:
        """The text in a line of JSON without a field's name."""
        text = self._read_value(line)
        if text is None and self._whole and line.strip() in (b"{", b"[", b"[{"):
            self._event = Event()
            self._event.lasts = True
            return self._collect(line)
        return self.reply.lose(line) if text is None else text

    def _collect(self, value: bytes) -> str:
        """Keep a line of data until its event ends."""
        self._event = self._event or Event()
        if not self._event.add(value):
            self._event = None
            self.reply.fail(faults.garbled(self.reply.provider))
        return ""

    def _end_event(self) -> str:
        """The text in what has been collected."""
        event, self._event = self._event, None
        data = b"\n".join(event.values) if event is not None else b""
        if event is None or not data.strip():
            return ""
        if event.is_error:
            self._report(data)
            return ""
        text = self._read_value(data)
        if text is not None:
            return text
        if len(event.values) == 1:
            return self.reply.lose(data)
        # perhaps several events, of a server that puts no blank lines between them
        for value in event.values:
            piece = self._read_value(value)
            text = (text or "") + (self.reply.lose(value) if piece is None else piece)
        return text or ""

    def _report(self, value: bytes) -> None:
        """The provider reports an error."""
        self.reply.fail(faults.from_event(self.reply.provider, faults.decoded(value)))

    # -- JSON of any shape ----------------------------------------------------------

    def _read_value(self, value: bytes) -> str | None:
        """The text in a piece of JSON; None where it is none, or not all of it."""
        value = value.strip()
        if not value or self.reply.done:
            return ""
        if value in _END_MARKS:
            self.reply.finish_unnamed()
            return ""
        if shapes.is_bomb(value):
            return self.reply.lose(value)
        try:
            frame = self._decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._read_tolerantly(value)
        text = self._take(frame)
        return self._look_closer(value) if text is None else text

    def _read_tolerantly(self, value: bytes) -> str | None:
        """The text in JSON of another shape, or with half characters; None where it is no JSON."""
        if len(value) > LONGEST_ODD:
            return self.reply.lose(value)
        try:
            data = shapes.as_object(shapes.alone(decode_tolerantly(value)))
            if data is None:
                return self.reply.lose(value)
            frame, lost = shapes.shaped(self._straightened(data), self._kind)
        except RecursionError:
            return self.reply.lose(value)
        except ValueError:
            return None
        text = self._take(frame)
        if text is None:
            self.reply.take_unknown(data, alone=self._whole)
        if lost and not (text is None and self.reply.done):
            self.reply.lose(value)
        self._unmended = self._unmended or is_broken(text or "")
        return text or ""

    def _look_closer(self, value: bytes) -> str:
        """A frame whose known fields said nothing."""
        try:
            data = decode_tolerantly(value) if len(value) <= LONGEST_ODD else None
        except (ValueError, RecursionError):
            return self.reply.lose(value)
        self.reply.take_unknown(shapes.as_object(data) or {}, alone=self._whole)
        return ""

    def _text_and_thought(self, content: object) -> tuple[str, str | None]:
        """The two in a content that is made of parts."""
        found = shapes.parts(content)
        if found.strange:
            self.reply.lose(bytes(shapes.raw(content)))
        text = found.text + (self.reply.refuse(found.refusal) if found.refusal else "")
        return text, found.thought


async def spoken(
    provider: Provider,
    model: str,
    answer: Answer,
    reader: AnswerReader[Any, Any],
    timeouts: Timeouts,
    write: Write,
) -> Ended:
    """Write the reply in ``answer``, as :meth:`Provider.stream` does it."""
    reply = reader.reply
    try:
        with Silence(provider.name, timeouts) as silence:
            async with answer as read_into:
                await read_into(_taking(reader, silence, write))
    except ProviderError as error:
        reply.fail(error)
    try:
        if rest := reader.end():
            write(rest)
        return reply.ended(reply.sentence() if reader.blank else None)
    except ProviderError as error:
        error.usage = reply.counts.usage()
        if error.code == "model_not_found":
            raise await faults.no_such_model(provider, model, error, reply.address) from error
        raise


def _taking(reader: AnswerReader[Any, Any], silence: Silence, write: Write) -> Take:
    """What takes the bytes of an answer: the way of every token."""
    reply, feed, hear = reader.reply, reader.feed, silence.hear
    ending = False

    def take(data: bytes) -> bool:
        nonlocal ending
        had_ended = reply.complete
        text = feed(data)
        if text:
            write(text)
            hear()
        elif reader.thinks:
            hear()
        # some servers write an end into every frame
        if ending != (reply.complete and not (had_ended and text)):
            ending = not ending
            silence.await_end(ending, TAIL)
        if reply.failure is not None:  # so the connection is closed at once
            raise reply.failure
        return reply.done

    return take
