"""A front end of the interview family, written from its own document and nothing else.

What it knows: POST ``generate/`` streams ``data:`` lines with ``response`` until one has
``done``; GET ``models/`` lists models.  Errors before the stream come as a status, others
as a line with ``error``.  It takes no line that it does not expect.  Like its ``api.ts`` it
tries again, longer and longer apart, when the network, the limit or the server fails.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.browser import BROKEN, Browser

MODEL = "llama3.2:latest"
"""Its ``NEXT_PUBLIC_DEFAULT_MODEL``."""
RETRIES = 9
BACKOFF = 0.1
"""Seconds before the second try, doubled before each further one (1 in a browser)."""
TRANSIENT = (429, 502, 503, 504)
"""Statuses that another try may mend."""


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
    tries: int = 1


class InterviewClient:
    """``async with InterviewClient(f"{url}/api") as client``: its ``NEXT_PUBLIC_API_URL``."""

    def __init__(self, api: str, *, seconds: float = 45.0) -> None:
        self._api = api
        self._seconds = seconds
        """How long it waits for anything to come."""
        self.transcript: list[tuple[str, str]] = []
        self.system: str | None = None
        self.failed = asyncio.Event()
        """A try has failed, and another will follow."""

    async def __aenter__(self) -> Self:
        self.browser = await Browser().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.browser.__aexit__(kind, error, trace)

    async def models(self) -> list[str]:
        """The names that the page offers."""
        status, body = await self.browser.call("GET", f"{self._api}/models/")
        assert status == 200, body
        for model in body["models"]:
            assert {"name", "modified_at", "size"} <= set(model), model
        return [model["name"] for model in body["models"]]

    async def send(self, message: str) -> Answer:
        """The next message of an interview, whose history goes along in the prompt."""
        self.transcript.append(("candidate", message))
        prompt = "\n".join(f"{who}: {what}" for who, what in self.transcript)
        more = {"system": self.system} if self.system else {}
        answer = await self.ask_patiently(prompt, **more)
        self.transcript.append(("interviewer", answer.text))
        return answer

    async def ask_patiently(self, prompt: str, model: str = MODEL, **more: Any) -> Answer:
        """Ask until it works, or until it is no use: its retry with exponential backoff."""
        answer = Answer()
        for attempt in range(RETRIES):
            answer = Answer(tries=attempt + 1)
            try:
                async for _ in self.stream(answer, prompt, model, **more):
                    pass
                if answer.status not in TRANSIENT:
                    break
            except BROKEN as error:
                answer.error = str(error) or "timeout"
                if answer.text:
                    break  # what is shown is not taken back
            self.failed.set()
            pause = float(answer.headers.get("Retry-After") or BACKOFF * 2**attempt)
            await asyncio.sleep(pause)  # what the front end does
        return answer

    async def ask(self, prompt: str, model: str = MODEL, **more: Any) -> Answer:
        """Send a prompt once and show its answer to the end."""
        answer = Answer()
        async for _ in self.stream(answer, prompt, model, **more):
            pass
        return answer

    async def stream(
        self, answer: Answer, prompt: str, model: str = MODEL, **more: Any
    ) -> AsyncGenerator[Answer]:
        """The same, piece by piece."""
        body = {
            "model": model,
            "prompt": prompt,
            "stream": True,
            "options": {"temperature": 0.7, "num_predict": 300},
            **more,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._seconds)
        async with self.browser.fetch(
            "POST", f"{self._api}/generate/", json=body, timeout=timeout
        ) as response:
            answer.status, answer.headers = response.status, self.browser.shown(response)
            if response.status != 200:
                answer.error = (await response.json())["error"]
                return
            if not body["stream"]:
                self._take(answer, await response.json())
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
    def _take(answer: Answer, line: dict[str, Any]) -> None:
        assert not answer.done, f"a line after the last: {line}"
        answer.done = line["done"]
        if "error" in line:
            assert answer.done, line
            answer.error = line["error"]
            return
        answer.models.add(line["model"])
        answer.text += line["response"]
        if answer.done:
            answer.stats = line
