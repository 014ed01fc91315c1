"""What one client does at a time, and what it keeps of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.harness.evidence import Shown
from tests.chaos.harness.prompts import MODELS, draw_prompt
from tests.support.browser import BROKEN

PAUSE = 0.2
"""Seconds between two tries of a client."""
NOT_NOW = (429, 502, 503, 504)

Answer = tuple[int, Any]


@dataclass
class Errand:
    """One client's visit: its choices, its addresses, and what it was shown."""

    client: str
    number: int
    rng: random.Random
    urls: list[str]
    """Every gateway's, in this client's order."""
    shown: list[Shown] = field(default_factory=list[Shown])
    sessions: set[str] = field(default_factory=set[str])
    """Those of conversations, whose messages can be listed."""
    jobs: set[str] = field(default_factory=set[str])
    """The same of jobs, which have none."""
    api: str = "openai"
    _prompts: int = 0

    def begin(self, dialect: str, *via: str, mark: str = "") -> Shown:
        """Something that will be shown, of the latest prompt if no other is named."""
        shown = Shown(
            client=self.client,
            dialect=dialect,
            via=list(via),
            mark=mark or self.mark(self._prompts),
        )
        self.shown.append(shown)
        return shown

    def mark(self, number: int) -> str:
        return f"{self.client}.{self.number}.{number}"

    def prompt(self, *, tokens: int = 90) -> str:
        """The next prompt, which says how the provider is to behave."""
        self._prompts += 1
        return draw_prompt(self.rng, self.mark(self._prompts), api=self.api, tokens=tokens)

    def draw_model(self) -> str:
        """A model of any API; prompts that follow are for it."""
        self.api = self.rng.choice(list(MODELS))
        return MODELS[self.api]


@contextmanager
def objections(shown: Shown) -> Iterator[None]:
    """What the client objects to in the block is kept with what it was shown."""
    try:
        yield
    except (AssertionError, ExceptionGroup) as error:
        shown.problem = _sentence(error)


def _sentence(error: BaseException) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_sentence(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Try until there is an answer that another try would not change."""
    while True:
        try:
            status, body = await call()
            if status not in NOT_NOW:
                return status, body
        except BROKEN:
            pass
        await asyncio.sleep(PAUSE)  # what a client does
