"""An assistant page, written from its own document and nothing else.

What it knows: sessions and messages below ``/chat`` of its API's address, a bearer
token, and that ``/chat/messages?stream=true`` answers with server-sent events.  It puts
``content`` of the chunks together and offers a retry when something went wrong.  It
knows no cursor: what a broken stream left out it reads from the history.
"""

import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.browser import BROKEN, Browser


class AssistantClient:
    """``AIAssistantPage``; ``api`` is its ``NEXT_PUBLIC_API_URL``, as ``…/api/v1``."""

    def __init__(self, api: str, *, token: str = "any") -> None:
        self._api = api
        self._headers = {"Authorization": f"Bearer {token}"}
        self.session_id = ""
        self.messages: list[dict[str, Any]] = []
        self.is_loading = False
        self.error = ""
        self.pieces = 0
        self._failed = ""

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

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of a request below ``/chat``."""
        url = f"{self._api}/chat{path}"
        return await self.browser.call(method, url, headers=self._headers, **options)

    async def download(self, path: str) -> bytes:
        """A file below ``/chat``."""
        url = f"{self._api}/chat{path}"
        async with self.browser.fetch("GET", url, headers=self._headers) as response:
            assert response.status == 200, await response.text()
            return await response.read()

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The bubbles of the page."""
        return [(message["role"], message["content"]) for message in self.messages]

    # -- what the page does ------------------------------------------------------------

    async def start(self) -> None:
        """Open a session, as the page does when it is opened."""
        status, session = await self.call(
            "POST", "/sessions", json={"title": "New Chat", "mode": "general"}
        )
        if status != 201:
            self.error = "Failed to initialize chat session"
            return
        self.session_id = session["id"]

    async def send(self, content: str) -> None:
        """Show the message at once, and the reply as it comes."""
        async for _ in self.sending(content):
            pass

    async def sending(self, content: str) -> AsyncIterator[None]:
        """The same, piece by piece."""
        self.messages.append({"role": "user", "content": content})
        self.error, self._failed, self.is_loading = "", "", True
        try:
            async for event in self._stream(content):
                self._take(event)
                yield
        except BROKEN as error:
            self._fail(content, str(error))
        self.is_loading = False

    async def retry(self) -> None:
        """The button beside the error: the message that failed, once more."""
        content, self._failed = self._failed, ""
        assert content, "there is nothing to try again"
        await self.send(content)

    async def reload(self, *, page_size: int = 50) -> None:
        """Read the whole history, page by page, as after a reload of the page."""
        self.messages = await self.pages(f"/messages/{self.session_id}", page_size=page_size)

    async def pages(self, path: str, *, page_size: int = 50) -> list[dict[str, Any]]:
        """Every item of a list."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            query = f"page={page}&page_size={page_size}"
            status, body = await self.call("GET", f"{path}?{query}")
            assert status == 200, body
            assert len(body["items"]) <= page_size
            found += body["items"]
            if len(found) >= body["total"]:
                return found
            assert body["items"], "a page is empty before the end"
            page += 1

    # -- the stream --------------------------------------------------------------------

    async def _stream(self, content: str) -> AsyncIterator[dict[str, Any]]:
        body = {"session_id": self.session_id, "content": content}
        async with self.browser.fetch(
            "POST", f"{self._api}/chat/messages?stream=true", headers=self._headers, json=body
        ) as response:
            if response.status != 200:
                raise aiohttp.ClientError((await response.json())["detail"])
            async for raw in response.content:
                line = raw.decode().rstrip("\r\n")
                if line.startswith("data:"):
                    yield json.loads(line[5:])
        if self.messages[-1]["role"] == "user" or "id" not in self.messages[-1]:
            raise aiohttp.ClientError("Streaming stopped")

    def _take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "message_start":
                self.messages[-1] = event["user_message"]
                self.messages.append({"role": "assistant", "content": ""})
            case "chunk":
                self.messages[-1]["content"] += event["content"]
                self.pieces += 1
            case "reset":
                self.messages[-1]["content"] = ""
            case "message_complete":
                assert event["message"]["content"] == self.messages[-1]["content"]
                self.messages[-1] = event["message"]
            case "error":
                raise aiohttp.ClientError(event["message"])
            case kind:
                raise AssertionError(f"{kind} is not in the document")

    def _fail(self, content: str, why: str) -> None:
        self.error, self._failed = f"Failed to send message: {why}", content
