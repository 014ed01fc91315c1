"""How large a context Ollama is asked for.

What does not fit it cuts silently, the beginning first, and by itself it takes little
(4,096 tokens, unless it is told otherwise).  So a prompt that needs more says so.  Another
size makes it load the model anew, which takes seconds: sizes are powers of two, and a
model that was given a large one lately keeps it.
"""

import time
from collections.abc import Callable

from services.llm_worker.providers.base import Prompt

DEFAULT = 4096
"""Tokens that a server of today takes by itself: for less than that it is told nothing."""
BYTES_A_TOKEN = 3
"""Of UTF-8: few for English, right for code and for scripts of three bytes a character."""
IMAGE = 1_500
MESSAGE = 8
"""Tokens of a picture, and of what a template puts around a message."""
REPLY = 2_048
"""Tokens that are kept for a reply of which nobody says how long it may be."""
KEPT = 300.0
"""Seconds for which Ollama keeps a model loaded that nobody asks."""
MOST_MODELS = 1_000


class ContextSizes:
    """What each model was given lately; ``most`` is the setting, 0: nothing is ever asked for."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._given: dict[str, tuple[int, float]] = {}

    def size(self, prompt: Prompt, window: int | None, own: int | None) -> int | None:
        """The context to ask for; None: what the server takes by itself will do.

        ``window`` is what the model can have, ``own`` what it takes by itself, where known.
        """
        given, until = self._given.get(prompt.model, (0, 0.0))
        needed = tokens_of(prompt) + (prompt.max_tokens or REPLY)
        floor = max(DEFAULT, own or 0)
        size = max(_rounded(needed), given if self._clock() < until else 0)
        size = min(size, self._most, window or size)
        if size <= floor:
            return None
        if len(self._given) >= MOST_MODELS:
            self._given.clear()
        self._given[prompt.model] = size, self._clock() + KEPT
        return size

    def notes(self, prompt: Prompt, window: int | None, own: int | None) -> list[str]:
        """Whether the prompt is longer than all that it can be given."""
        if not self._most:
            return []
        most = max(min(self._most, window or self._most), own or 0)
        needed = tokens_of(prompt)
        if needed <= most:
            return []
        why = "NATTERLOG_OLLAMA_NUM_CTX allows no more"
        if window is not None and window <= self._most:
            why = "its window is no larger"
        return [f"The prompt may have {needed:,} tokens, and {prompt.model} reads {most:,}: {why}."]


def tokens_of(prompt: Prompt) -> int:
    """About how many tokens a prompt has, rather too many than too few."""
    texts = [prompt.system or ""]
    for message in prompt.messages:
        texts += [message.content, message.thoughts.text if message.thoughts else ""]
    images = len(prompt.files)
    size = sum(len(text.encode()) for text in texts)
    return size // BYTES_A_TOKEN + images * IMAGE + (len(prompt.messages) + 1) * MESSAGE


def _rounded(tokens: int) -> int:
    """The next power of two."""
    return 1 << (tokens - 1).bit_length()
