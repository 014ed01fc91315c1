"""A front end of the interview family, written from its own document and nothing else.

What it knows: POST ``/api/generate/`` streams ``data:`` lines with ``response`` until
one has ``done``; GET ``/api/models/`` lists models.  Errors before the stream come
as a status, others as a line with ``error``.  It takes no line that it does not expect.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp


@dataclass
class Answer:
    """What the page shows of one reply."""

    text: str = ""
    status: int = 0
    error: str | None = None
    done: bool = False
    stats: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    models: set[str] = field(default_factory=set[str])


class InterviewClient:
    """``async with InterviewClient(url) as client``."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=45))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    async def models(self) -> list[str]:
        """The names that the page offers."""
        async with self.http.get(f"{self._url}/api/models/") as response:
            assert response.status == 200, await response.text()
            models = (await response.json())["models"]
        for model in models:
            assert {"name", "modified_at", "size"} <= set(model), model
        return [model["name"] for model in models]

    async def ask(self, prompt: str, model: str, **more: Any) -> Answer:
        """Send a prompt and show its answer to the end."""
        answer = Answer()
        async for _ in self.asking(answer, prompt, model, **more):
            pass
        return answer

    async def asking(
        self, answer: Answer, prompt: str, model: str, **more: Any
    ) -> AsyncIterator[Answer]:
        """The same, piece by piece."""
        body = {
            "model": model,
            "prompt": prompt,
            "stream": True,
            "options": {"temperature": 0.7, "num_predict": 300},
            **more,
        }
        async with self.http.post(f"{self._url}/api/generate/", json=body) as response:
            answer.status, answer.headers = response.status, dict(response.headers)
            if response.status != 200:
                answer.error = (await response.json())["error"]
                return
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if not line or line.startswith(":"):
                    continue
                assert line.startswith("data: "), line
                self._take(answer, json.loads(line.removeprefix("data: ")))
                yield answer
        assert answer.done, "the stream ended without its last line"

    @staticmethod
    def _take(answer: Answer, told: dict[str, Any]) -> None:
        assert not answer.done, f"a line after the last: {told}"
        answer.done = told["done"]
        if "error" in told:
            assert answer.done, told
            answer.error = told["error"]
            return
        answer.models.add(told["model"])
        answer.text += told["response"]
        if answer.done:
            answer.stats = told
