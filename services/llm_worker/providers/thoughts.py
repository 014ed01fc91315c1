"""What a model thinks before it answers: collected apart from the text, up to a bound."""

from typing import Any

from services.llm_worker.providers.unicode import mended
from shared.events import Thoughts

MOST = 1024 * 1024
"""Characters of thoughts that are kept."""
ENDLESS = 16 * MOST
"""Characters of thoughts after which nobody waits for the answer any more."""
MOST_BLOCKS = 2 * MOST
"""Characters of the blocks that are sent back."""


class Thinking:
    """The thoughts of one reply so far."""

    def __init__(self) -> None:
        self.length = 0
        """Characters that came, kept or not."""
        self._pieces: list[str] = []
        self._blocks: list[dict[str, Any]] = []
        self._blocks_length = 0
        self._began = False

    def add(self, text: str) -> None:
        """Take the next piece; an empty one says that the model does think."""
        self._began = True
        if self.length < MOST:
            self._pieces.append(text[: MOST - self.length])
        self.length += len(text)

    def add_block(self, block: dict[str, str]) -> None:
        """Take what the provider wants back with the next turn."""
        self._began = True
        self._blocks_length += sum(map(len, block.values()))
        if self._blocks_length <= MOST_BLOCKS:
            self._blocks.append({name: mended(value) for name, value in block.items()})

    def result(self) -> Thoughts | None:
        """All of it; None where the model did not think."""
        if not self._began:
            return None
        whole = self._blocks_length <= MOST_BLOCKS  # some of them would be refused
        return Thoughts(text=mended("".join(self._pieces)), blocks=self._blocks if whole else [])

    def notes(self) -> list[str]:
        """What was left out, one sentence each."""
        notes: list[str] = []
        if self.length > MOST:
            notes.append(f"Of {self.length:,} characters of thoughts, the first {MOST:,} are kept.")
        if self._blocks_length > MOST_BLOCKS:
            notes.append("The thoughts are too long to be sent back with the next message.")
        return notes
