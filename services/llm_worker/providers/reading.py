"""From the bytes of an answer to the text of a reply: what all HTTP providers have in common.

This is the product's hottest path.  A network read is split into lines as bytes,
each line decoded into the few fields that matter, and all the text in it given
on as one piece: no await, no timer and no object of ours for a line.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import msgspec

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import Ended, Provider, ProviderError
from services.llm_worker.providers.silence import Silence
from services.llm_worker.providers.unicode import REPLACEMENT, decode_tolerantly, mend
from shared.events import Usage
from shared.log import get_logger

log = get_logger()

LONGEST_LINE = 16 * 1024 * 1024

Answer = AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]
"""Open it to get what reads: whatever has come, waiting if need be; nothing at the end."""

Frame = TypeVar("Frame", bound=msgspec.Struct)


class Reading(ABC, Generic[Frame]):
    """What one stream's bytes have said so far; a line may end in any later read."""

    prefix = b""
    """What a line with JSON begins with; other lines are not for us."""
    end_marker: bytes | None = None
    """What may stand in place of the JSON and ends the stream."""

    def __init__(self, provider: str, decoder: msgspec.json.Decoder[Frame]) -> None:
        self.done = False
        """Nothing more is to be read: the end has come, or an error."""
        self.complete = False
        """The reply's end has been told."""
        self.stop_reason = "end_turn"
        self.thinks = False
        """The latest read brought thoughts, which count as content but are not given on."""
        self.usage: Usage | None = None
        self.provider = provider
        self._decoder = decoder
        self._decode = decoder.decode
        self._rest = b""
        self._held = ""
        self._unmended = False
        self._failure: ProviderError | None = None

    @abstractmethod
    def _take(self, frame: Frame) -> str:
        """Note what ``frame`` says, and return the text in it."""

    def feed(self, data: bytes) -> str:
        """The text in one network read, perhaps none."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        self.thinks = False
        prefix, skip, text = self.prefix, len(self.prefix), ""
        for line in lines:
            if not line or not line.startswith(prefix):
                continue
            try:
                frame = self._decode(line[skip:])
            except (msgspec.DecodeError, UnicodeDecodeError):
                text += self._take_unusual(line[skip:])
            else:
                text += self._take(frame)
            if self.done:
                break
        if self._held or self._unmended:
            text, self._held = mend(self._held, text)
        if len(self._rest) > LONGEST_LINE:
            self._fail(faults.garbled(self.provider))
        return text

    def end(self) -> str:
        """What was held back, now that nothing more comes.

        Raises:
            ProviderError: an error had come, or nothing told that this was the reply's end.
        """
        text = self.feed(b"\n") if self._rest and not self.done else ""
        if self._failure is not None:
            raise self._failure
        if not self.complete:
            raise faults.broken_off(self.provider)
        return text + REPLACEMENT if self._held else text

    def _take_unusual(self, data: bytes) -> str:
        """A line that msgspec does not read: the end marker, surrogates, or no JSON at all."""
        if not (data := data.strip()):
            return ""
        if data == self.end_marker:
            self.complete = self.done = True
            return ""
        try:
            frame = msgspec.convert(decode_tolerantly(data), self._decoder.type)
        except (ValueError, RecursionError):
            self._fail(faults.garbled(self.provider))
            return ""
        self._unmended = True
        return self._take(frame)

    def _fail(self, failure: ProviderError) -> None:
        self._failure = self._failure or failure
        self.done = True


async def spoken(
    provider: Provider, model: str, answer: Answer, reading: Reading[Frame], patience: float
) -> AsyncGenerator[str | Ended, None]:
    """The reply in ``answer``, as :meth:`Provider.stream` gives it."""
    try:
        with Silence(provider.name, patience) as silence:
            async with answer as read:
                while not reading.done and (data := await read()):
                    if text := reading.feed(data):
                        silence.pause()
                        yield text
                        silence.listen()
                    elif reading.thinks:
                        silence.listen()
    except ProviderError as error:
        if error.code == "model_not_found":
            raise await faults.no_such_model(provider, model, error) from error
        if not reading.complete:  # else only the server's way of hanging up was bad
            raise
    if rest := reading.end():
        yield rest
    yield Ended(stop_reason=reading.stop_reason, usage=_believable(reading))


def _believable(reading: Reading[Frame]) -> Usage | None:
    """What the provider counted, if those can be counts at all: no fact may hold others."""
    if reading.usage is None:
        return None
    try:
        return msgspec.convert(msgspec.to_builtins(reading.usage), Usage)
    except msgspec.ValidationError as error:
        log.warning("provider.usage_unbelievable", provider=reading.provider, error=str(error))
        return None
