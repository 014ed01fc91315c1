"""The llm_workers as their askers see them: whichever answers first, typed by the question."""

from typing import overload

import msgspec

from shared import offers as o
from shared.bus import RESTART, Bus
from shared.subjects import llm_command

PATIENCE = 12.0
"""Seconds for an answer: a worker gives each provider some of its own."""

_ANSWERS: dict[type[o.Question], type] = {
    o.AskModels: o.Offers,
    o.Refresh: o.Refreshed,
    o.FindModel: o.FoundModel,
}


class LlmClient:
    """Asks any worker; every question may be asked twice."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @overload
    async def ask(self, question: o.AskModels, *, restart: float = RESTART) -> o.Offers: ...
    @overload
    async def ask(self, question: o.Refresh, *, restart: float = RESTART) -> o.Refreshed: ...
    @overload
    async def ask(self, question: o.FindModel, *, restart: float = RESTART) -> o.FoundModel: ...

    async def ask(self, question: o.Question, *, restart: float = RESTART) -> object:
        """Have a worker answer; where there is none, ``restart`` seconds are waited for one.

        Raises:
            NatterlogError: the worker's own answer.
            Unavailable: no worker answers.
        """
        subject, data = llm_command(question.name), msgspec.json.encode(question)
        answer = await self._bus.ask(subject, data, timeout=PATIENCE, restart=restart)
        return msgspec.json.decode(answer, type=_ANSWERS[type(question)])  # pyright: ignore[reportUnknownVariableType]  (the overloads say)
