"""The client of the llm_workers: whichever answers first."""

import msgspec

from shared.bus import RESTART, Bus
from shared.offers import LlmRequest
from shared.requests import Answer
from shared.subjects import llm_command

TIMEOUT = 12.0
"""Seconds for an answer: a worker gives each provider some of its own."""


class LlmClient:
    """Sends requests to any worker; each may be carried out twice."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ask(self, request: LlmRequest[Answer], *, restart: float = RESTART) -> Answer:
        """Have a worker answer; where there is none, wait ``restart`` seconds for one.

        Raises:
            NatterlogError: the worker's own answer.
            Unavailable: no worker answers.
        """
        subject, data = llm_command(request.name), msgspec.json.encode(request)
        answer = await self._bus.ask(subject, data, timeout=TIMEOUT, restart=restart)
        return request.decode_answer(answer)
