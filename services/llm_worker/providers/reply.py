"""What is known of one reply besides its text: its end, its thoughts, its counts, its faults."""

from collections.abc import Mapping

import msgspec
from prometheus_client import Counter

from services.llm_worker.providers import endings, faults
from services.llm_worker.providers.base import Ended, ProviderError
from services.llm_worker.providers.counts import Counts
from services.llm_worker.providers.shapes import NOTHING, raw
from services.llm_worker.providers.thoughts import ENDLESS, Thinking
from services.llm_worker.providers.unicode import mended
from shared.log import get_logger

log = get_logger()

MOST_LOST = 100_000
"""Lines that say nothing, or cannot be read, after which nobody looks at more of them."""
MOST_TOOLS = 5
"""Tools that a sentence names."""
EXCERPT = 4096
"""Bytes that are kept of what cannot be read, to say what it is."""

_skipped = Counter(
    "natterlog_provider_frames_skipped",
    "Parts of providers' answers that could not be read",
    ["provider"],
)


class Reply:
    """What a reader notes of one reply; nothing that comes after its end changes it."""

    def __init__(self, provider: str, address: str) -> None:
        self.provider = provider
        self.address = address
        """The URL that answers."""
        self.done = False
        """Nothing more is to be read: the end has come, or an error."""
        self.complete = False
        """The reply's end has come; nothing after it can make the reply fail."""
        self.counts = Counts(provider)
        self.thinking = Thinking()
        self.failure: ProviderError | None = None
        self.why = ""
        """Why there is no answer, where the provider gave a reason."""
        self.first_lost = b""
        """The beginning of what came first and was no part of a reply."""
        self.notes: list[str] = []
        self._ending = "end_turn"
        self._tools: list[str] = []
        """The names of the tools that the model asked for."""
        self._uses_tools = False
        self._refused = False
        self._lost = 0
        """Parts that could not be read."""
        self._ignored = 0
        """These, and all else that was passed over."""

    # -- what comes ---------------------------------------------------------------------

    def check_thoughts(self) -> None:
        """Fail a reply whose thoughts have no end."""
        if self.thinking.length > ENDLESS:
            self.fail(faults.endless(self.provider))

    def use_tool(self, name: str | None) -> None:
        """The model asks for a tool; its name comes once, and in other frames its input."""
        self._uses_tools = True
        if name and len(self._tools) < MOST_TOOLS:
            name = " ".join(mended(name[:64]).split())
            self._tools += [name] if name not in self._tools else []

    def refuse(self, text: str) -> str:
        """The model refuses; what it says of that is text."""
        self._refused = True
        return text

    def finish(self, word: str) -> None:
        """The reply's end, by the provider's word for it; one that is no ending is a fault."""
        if not endings.is_ending(word) or self.complete:
            return
        reason = endings.stop_reason(word)
        if reason is None:
            self.fail(faults.ended_with(self.provider, word))
        else:
            self.complete = True
            self._ending = reason

    def finish_unnamed(self) -> None:
        """The reply's end, and nothing can come after it."""
        self.complete = self.complete or self.failure is None
        self.done = True

    def take_error(self, error: msgspec.Raw) -> None:
        """What stands in a field for errors; nothing and null are none."""
        if error is not NOTHING and (found := faults.decoded(bytes(error))):
            self.fail(faults.from_event(self.provider, found))

    def take_unknown(self, data: Mapping[str, object], *, alone: bool) -> None:
        """An object that is no part of a reply; if it is all of the answer it is an error."""
        if faults.is_error(data) or (alone and isinstance(data.get("message"), str)):
            self.fail(faults.from_event(self.provider, data))
        else:
            self.ignore(bytes(raw(data)))

    def lose(self, value: bytes) -> str:
        """Pass over what cannot be read, but count it; it has no text."""
        if value.strip():
            if not self._lost:
                self.first_lost = value[:EXCERPT].strip()
            self._lost += 1
            _skipped.labels(self.provider).inc()
        self.ignore(value)
        return ""

    def ignore(self, line: bytes) -> None:
        """Pass over what is no part of a reply."""
        self.first_lost = self.first_lost or line[:EXCERPT].strip()
        self._ignored += 1
        if self._ignored == MOST_LOST:
            self.fail(faults.garbled(self.provider))

    def fail(self, failure: ProviderError) -> None:
        """Note why nothing more can come; it counts only while the reply has no end."""
        if self.complete:
            log.info("provider.failed_after_the_end", provider=self.provider, code=failure.code)
        else:
            self.failure = self.failure or failure
        self.done = True

    # -- what it comes to ---------------------------------------------------------------

    @property
    def stop_reason(self) -> str:
        """How the reply ended, whatever the provider called it."""
        if self._ending == "end_turn" and self._refused:
            return "refusal"
        if self._ending == "end_turn" and self._uses_tools:
            return "tool_calls"
        return self._ending

    def sentence(self) -> str:
        """A text in the place of one that did not come.

        Raises:
            ProviderError: there is no reason for it that anybody could be given.
        """
        sentence = endings.sentence(
            self.stop_reason, thought=self.thinking.length > 0, tools=self._tools, why=self.why
        )
        if sentence is None and self._lost:
            raise faults.unreadable(self.provider, self.address, self.first_lost)
        if sentence is None:
            raise faults.empty(self.provider, self.why)
        return sentence

    def ended(self, sentence: str | None) -> Ended:
        """The end of a complete reply, with all that is known of it."""
        notes = [*self.notes, *self.counts.notes, *self.thinking.notes()]
        if self._lost:
            parts = "1 part" if self._lost == 1 else f"{self._lost} parts"
            notes.append(f"{parts} of {self.provider}'s answer could not be read and was left out.")
        return Ended(
            stop_reason=self.stop_reason,
            usage=self.counts.usage(),
            thoughts=self.thinking.result(),
            notes=notes,
            sentence=sentence,
        )
