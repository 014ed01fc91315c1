"""What a provider is: the seam between natterlog and whoever writes the words."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from shared.events import ModelDetails, SentFile, Thoughts, Usage
from shared.records import Role
from shared.subjects import Address


class PromptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is sent as it is."""

    name: str
    media_type: str
    data: bytes


Learnt = Literal[
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "stream_options",
    "system",
    "thoughts",
    "reasoning_content",
]
"""What a model's server turned out not to take; ``reasoning_content`` is what it wants."""


class PromptMessage(msgspec.Struct, frozen=True):
    role: Role
    content: str
    files: list[PromptFile] = []
    """What goes with it: only what the provider takes."""
    thoughts: Thoughts | None = None
    """What the same model of the same provider thought before it said this."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; ``model`` is the provider's own name for it, without ``provider/``."""

    model: str
    messages: list[PromptMessage]
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    schema: dict[str, Any] | None = None
    """The answer is to be JSON that fits this; the last message says so too."""
    learnt: frozenset[Learnt] = frozenset()
    """What is known of the model's server: how the request is put follows from it."""
    notes: list[str] = []
    """What of the wish is not in here, one sentence each."""
    sent: list[SentFile] = []
    """How each file went into it: as it is, as text, or not."""
    go_on: str | None = None
    """What natterlog itself asks after the messages: that a reply goes on."""
    message_ids: list[str] = []
    """The conversation's messages that went into it."""
    asker: Address | None = None
    """Whose run it is for: a provider that reads the log shows each user his own alone."""

    @property
    def files(self) -> list[PromptFile]:
        """Everything that is sent as it is, whatever message it goes with."""
        return [file for message in self.messages for file in message.files]

    @property
    def thoughts(self) -> bool:
        """Whether some of the assistant's messages have theirs with them."""
        return any(message.thoughts is not None for message in self.messages)

    def as_taken(self) -> "Prompt":
        """The prompt for a model without a system role: its system prompt heads a message."""
        if not self.system or "system" not in self.learnt or not self.messages:
            return self
        first, *others = self.messages
        content = f"{self.system}\n\n{first.content}"
        messages = [msgspec.structs.replace(first, content=content), *others]
        return msgspec.structs.replace(self, system=None, messages=messages)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The provider said all it had to say."""

    stop_reason: str
    """One of those that :class:`shared.events.RunEnded` lists."""
    usage: Usage | None
    thoughts: Thoughts | None = None
    notes: list[str] = []
    """What of the answer could not be read and was left out, one sentence each."""
    sentence: str | None = None
    """What is to stand in place of a text that did not come: natterlog's, not the model's."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a provider offers, by the provider's own name."""

    name: str
    display_name: str | None = None
    context_window: int | None = None
    max_tokens: int | None = None
    supports_vision: bool = False
    supports_tools: bool = False
    """Like the one above: False also when the provider does not say."""
    size: int = 0
    modified_at: datetime | None = None
    digest: str | None = None
    details: ModelDetails | None = None


class ProviderError(Exception):
    """A provider could not, or would not, answer.

    ``passing`` says whether the same call may succeed later; ``retry_after`` is
    the provider's own wish in seconds; ``code`` is one of :mod:`shared.errors`.
    Where it answered something else than 200, ``status`` and ``words`` are that.
    ``most_tries`` bounds the tries for this fault; None: the settings do.
    ``leave_alone``: another try of ours would only make it worse.  ``whole``: it is
    the provider's as a whole, whatever model is meant.  ``location`` is where a
    redirect leads.
    """

    usage: Usage | None = None
    """What the failed call cost, where that is known."""
    sent: frozenset[str] = frozenset()
    """The parameters of the request that was answered with it."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "provider_error",
        transient: bool,
        retry_after: float | None = None,
        status: int | None = None,
        text: str = "",
        most_tries: int | None = None,
        leave_alone: bool = False,
        whole: bool = False,
        location: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.text = text
        self.most_tries = most_tries
        self.leave_alone = leave_alone
        self.whole = whole
        self.location = location


Write = Callable[[str], None]
"""Takes the next piece of a reply; what it raises ends the reply."""


class Provider(Protocol):
    """One source of replies.

    ``stream`` hands the reply's text to ``write``, piece by piece, as it comes (pieces
    that arrived together may come as one), and returns its end, which has a sentence
    where nobody could see a text.  Every piece is valid Unicode and not empty.
    Cancelling it closes the connection at once: that is how a cancel reaches the
    model.  It makes one try; the caller owns retries.
    """

    name: str

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        """Stream the reply to ``prompt``.

        Raises:
            ProviderError: it failed, broke off, or said nothing for too long.
        """
        ...

    def notes(self, prompt: Prompt) -> list[str]:
        """What of ``prompt`` this provider cannot be told, one sentence each."""
        ...

    def takes(self, model: str, media_type: str) -> bool:
        """Whether the model can be sent files of this kind."""
        ...

    async def models(self) -> list[ModelInfo]:
        """The models on offer.

        Raises:
            ProviderError: the provider could not be asked.
        """
        ...

    async def aclose(self) -> None: ...
