"""A reply of many events, cut after every single one, and taken up again in another way.

The provider says one token and waits until the client has it, so no two come as one event.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand, objections
from tests.chaos.harness.evidence import Shown
from tests.chaos.harness.native import SOCKET, STREAM, MovingReply, Reader, note_reply
from tests.chaos.harness.scene import Scene, concluded
from tests.chaos.harness.world import World
from tests.support.content_client import ContentClient
from tests.support.documents_client import DocumentsClient
from tests.support.native_client import NativeClient, events_of

DEADLINE = 30.0
"""Seconds in which an event must come."""
Frame = dict[str, Any]
Way = Callable[[str], Coroutine[Any, Any, None]]
"""Connect, read until the text is there that is due, and break the connection."""


async def every_cut(made: World, *, events: int) -> Scene:
    """Replies of so many events, one for each order of the ways, and a job of each kind."""
    errands: list[Errand] = []

    def errand(name: str) -> Errand:
        errands.append(Errand(name, 0, chooser(0, name), list(made.urls)))
        return errands[-1]

    async with asyncio.TaskGroup() as group:
        for first in range(len(_Native.WAYS)):
            group.create_task(_cut_reply(made, errand(f"cuts{first}"), events, first))
        group.create_task(_cut_document(made, errand("cuts-documents"), events))
        group.create_task(_cut_pipeline(made, errand("cuts-content"), events))
    cuts = events * len(errands)
    return await concluded("cuts", made, errands, {"replies": len(errands), "cuts": cuts})


async def _step_by_step(made: World, mark: str, events: int, ways: list[Way]) -> None:
    """Each event by the next way; each way is given all the text that there is by now."""
    text, tag = "", await made.provider.stepping(mark, DEADLINE)
    for n in range(events):
        made.provider.allow(mark)
        text, way = text + f"{tag}-{n} ", ways[n % len(ways)]
        try:
            async with asyncio.timeout(DEADLINE):
                await way(text)
        except TimeoutError:
            raise AssertionError(f"event {n} did not come by {way.__name__}") from None
    made.provider.allow(mark)


# -- replies --------------------------------------------------------------------------------


async def _cut_reply(made: World, errand: Errand, events: int, first: int) -> None:
    shown, mark = errand.begin("assistant", "stream", mark=errand.mark(1)), errand.mark(1)
    async with NativeClient(*errand.urls) as client:
        session_id = await client.session()
        errand.sessions.add(session_id)
        native = _Native(errand, client, session_id, f"mark={mark} steps={events}")
        ways = native.ways()
        with objections(shown):
            await native.reader.send(native.reply, native.prompt, STREAM)
            await _step_by_step(made, mark, events, ways[first:] + ways[:first])
            await native.reader.follow(native.reply, STREAM, None)
        shown.via = ["stream", "socket", "again", "channels"]
        note_reply(shown, native.reply)


class _Native:
    """One client that has a reply by four ways, and goes from gateway to gateway."""

    WAYS = ("stream", "socket", "again", "channels")

    def __init__(self, errand: Errand, client: NativeClient, session_id: str, prompt: str) -> None:
        self.reader = Reader(errand, client, session_id)
        self.reply = MovingReply()
        self.prompt = prompt
        self._client = client
        self._session = session_id

    def ways(self) -> list[Way]:
        return [self._stream, self._socket, self._again, self._channels]

    def _next_gateway(self) -> None:
        self._client.urls.append(self._client.urls.pop(0))

    async def _stream(self, text: str) -> None:
        await self._follow(text, STREAM)

    async def _socket(self, text: str) -> None:
        await self._follow(text, SOCKET)

    async def _follow(self, text: str, via: str) -> None:
        self._next_gateway()
        await self.reader.follow(self.reply, via, len(text))
        assert self.reply.text == text, f"{self.reply.text!r} by {via} where {text!r} was due"

    async def _again(self, text: str) -> None:
        """The message once more under its key: it is streamed from its start."""
        self._next_gateway()
        reply = MovingReply()
        body = {"session_id": self._session, "content": self.prompt}
        headers = {"Idempotency-Key": f"{self._session}:{hash(self.prompt)}"}
        async with self._client.http.post(
            self._client.url("/messages?stream=true"), json=body, headers=headers
        ) as response:
            async for event, cursor in events_of(response):
                reply.take(event, cursor)
                assert text.startswith(reply.text), f"{reply.text!r} where {text!r} was due"
                if reply.text == text:
                    break
        assert reply.run_id == self.reply.run_id, "its key began another run"
        self.reply.text, self.reply.cursor = reply.text, reply.cursor

    async def _channels(self, text: str) -> None:
        """A page that knows no cursor is given all so far at once."""
        self._next_gateway()
        url = f"{self._client.urls[0]}/ws/ai-chat/session/{self._session}/"
        async with _frames(self._client.http, url) as frames:
            async for frame in frames:
                if frame["type"] == "ai_message_chunk":
                    whole = frame["full_content"]
                    assert text.startswith(whole), f"{whole!r} where {text!r} was due"
                    if whole == text:
                        return
        raise AssertionError("the socket was closed")


# -- jobs -----------------------------------------------------------------------------------


async def _cut_document(made: World, errand: Errand, events: int) -> None:
    mark, shown = errand.mark(1), errand.begin("documents", "socket", mark=errand.mark(1))
    async with DocumentsClient(*errand.urls) as page:
        shown.run_id = await page.upload(b"a,b\n1,2\n", f"mark={mark} steps={events}", name="a.csv")
        answer = page.answers[shown.run_id]

        async def connect(text: str) -> None:
            page.urls.append(page.urls.pop(0))
            await page.watch(until=lambda: len(answer.text) >= len(text))
            assert answer.text == text, f"{answer.text!r} where {text!r} was due"

        with objections(shown):
            await _step_by_step(made, mark, events, [connect])
            await page.watch()
            assert answer.resets == 0, "it was shown anew"
            shown.status, shown.ends = "completed", 1
        shown.text, shown.progress = answer.text, answer.seen


async def _cut_pipeline(made: World, errand: Errand, events: int) -> None:
    mark, shown = errand.mark(1), errand.begin("content", "socket", mark=errand.mark(1))
    async with ContentClient(*errand.urls) as page:
        path = await page.start(topic=f"mark={mark} steps={events}", query="Be brief")
        shown.session_id, shown.step = page.session_id, "content_generation"

        async def connect(text: str) -> None:
            page.urls.append(page.urls.pop(0))
            await _read_step(page, path, shown, text)

        with objections(shown):
            await _wait_for_step(page, path)
            await _step_by_step(made, mark, events, [connect])
            await page.watch(path)
            assert page.end is not None
            shown.text, shown.status, shown.ends = page.end["response_text"], "completed", 1
            shown.steps = page.steps()


async def _wait_for_step(page: ContentClient, path: str) -> None:
    """Until the step before the one that comes token by token is done."""
    await page.watch(path, until=lambda frame: frame.get("step") == "keywords")


async def _read_step(page: ContentClient, path: str, shown: Shown, text: str) -> None:
    """A connection is given the chunks of the step from its start."""
    whole = ""
    async with _frames(page.http, f"{page.url}{path}?stream=1&token=any") as frames:
        async for frame in frames:
            assert frame["type"] != "reset", "it was shown anew"
            if frame["type"] == "chunk" and frame["step"] == shown.step:
                whole += frame["content"]
                assert text.startswith(whole), f"{whole!r} where {text!r} was due"
                if whole == text:
                    return
    raise AssertionError("the socket was closed")


@asynccontextmanager
async def _frames(http: aiohttp.ClientSession, url: str) -> AsyncIterator[AsyncIterator[Frame]]:
    """The frames of a socket, which breaks when the block ends."""

    async def frames() -> AsyncIterator[Frame]:
        async for message in socket:
            yield json.loads(message.data)

    async with http.ws_connect(url, max_msg_size=0) as socket:
        yield frames()
