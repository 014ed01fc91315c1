"""Clients of the native API that change between streams, sockets and polling, with cursors."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import aiohttp

from tests.chaos.harness.errand import NOT_NOW, PAUSE, Errand, objections, patiently
from tests.chaos.harness.evidence import Shown
from tests.chaos.harness.prompts import mark_of
from tests.support.browser import BROKEN
from tests.support.native_client import NativeClient, Reply

STREAM, SOCKET, POLL, PLAIN = "stream", "socket", "poll", "plain"
_SILENCE = 5.0
"""Seconds after which a client takes a silent line for a dead one, and its stream up again."""
_POLLS = 3


class MovingReply(Reply):
    """A reply that may come over a socket as well, where all messages may be shown anew."""

    def take(self, event: dict[str, Any], cursor: str) -> None:
        if event["type"] == "resync":
            self._take_messages(event["messages"])
        elif event["type"] != "error" or "retryable" in event:
            super().take(event, cursor)

    def _take_messages(self, messages: list[dict[str, Any]]) -> None:
        """A reply that has ended is among them; one that is being written comes next."""
        self.text = ""
        for message in messages:
            if message["run_id"] == self.run_id and message["role"] == "assistant":
                self.text = message["content"]
                self.end = {"type": "message_complete", "message": message}

    def keep(self, message: dict[str, Any]) -> None:
        """Take the whole message, where it does not come in pieces."""
        self.run_id, self.text = message["run_id"], message["content"]
        self.end = {"type": "message_complete", "message": message}

    @property
    def status(self) -> str:
        """How it ended; empty before."""
        if self.end is None:
            return ""
        return "failed" if self.end["type"] == "error" else self.end["message"]["status"]


class Reader:
    """One client of one session, which goes on with a reply wherever it left it."""

    def __init__(self, errand: Errand, client: NativeClient, session_id: str) -> None:
        self._errand = errand
        self._client = client
        self._session = session_id

    async def send(self, reply: MovingReply, content: str, via: str) -> None:
        """Send a message over one transport, again and again until it is accepted."""
        if via == STREAM:
            await self._client.start(reply, self._session, content)
        elif via == SOCKET:
            await self._send_on_socket(reply, content)
        else:
            await self._send_plainly(reply, content)

    async def follow(self, reply: MovingReply, via: str, until: int | None) -> None:
        """Read on over one transport: to the end, or until so many characters are there."""
        if via == POLL:
            await self._poll(reply, until)
        elif via == SOCKET and reply.cursor:
            await self._follow_on_socket(reply, until)
        else:  # a socket without a cursor begins with what is being written now
            await self._client.follow(reply, until=until)

    async def cancel(self, reply: MovingReply) -> None:
        path = f"/runs/{reply.run_id}/cancel"
        status, body = await patiently(lambda: self._client.call("POST", path))
        assert status == 200, body

    # -- sockets --------------------------------------------------------------------------

    async def _send_on_socket(self, reply: MovingReply, content: str) -> None:
        message = {"type": "send", "session_id": self._session, "content": content}
        while not reply.run_id:
            with contextlib.suppress(*BROKEN):
                await self._converse(reply, message | {"client_id": mark_of(content)}, None)
            await self._pause(reply)

    async def _follow_on_socket(self, reply: MovingReply, until: int | None) -> None:
        subscribe = {"type": "subscribe", "session_id": self._session, "cursor": reply.cursor}
        while reply.end is None and (until is None or len(reply.text) < until):
            with contextlib.suppress(*BROKEN):
                await self._converse(reply, subscribe | {"cursor": reply.cursor}, until)
            await self._pause(reply)

    async def _converse(self, reply: MovingReply, first: dict[str, Any], until: int | None) -> None:
        """Say one thing on a new socket, and listen until that is enough."""
        begins = not reply.run_id
        async with self._client.http.ws_connect(self._client.url("/ws"), max_msg_size=0) as ws:
            await ws.send_json(first)
            while True:
                message = await ws.receive(timeout=_SILENCE)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise aiohttp.ClientError("closed")
                event = json.loads(message.data)
                reply.take(event, event.get("cursor", ""))
                enough = until is not None and len(reply.text) >= until
                if reply.end or enough or (begins and reply.run_id):
                    return
                if event["type"] == "error":
                    raise aiohttp.ClientError(event["code"])

    # -- without a stream -------------------------------------------------------------------

    async def _send_plainly(self, reply: MovingReply, content: str) -> None:
        """Wait for the whole reply; where its run failed, the answer names it in a header."""
        body = {"session_id": self._session, "content": content}
        headers = {"Idempotency-Key": f"{self._session}:{hash(content)}"}
        while not reply.run_id:
            try:
                async with self._client.http.post(
                    self._client.url("/messages"), json=body, headers=headers
                ) as response:
                    run_id = response.headers.get("X-Run-Id", "")
                    if response.status == 201:
                        reply.keep((await response.json())["assistant_message"])
                    elif run_id:
                        reply.run_id = run_id
                    else:
                        assert response.status in NOT_NOW, await response.text()
            except (*BROKEN, aiohttp.ClientPayloadError):
                pass
            await self._pause(reply)

    async def _poll(self, reply: MovingReply, until: int | None) -> None:
        """Look at the run now and then; when it has ended, read its message."""
        polls = 0
        while reply.end is None and (until is None or polls < _POLLS):
            polls += 1
            status, run = await patiently(lambda: self._client.call("GET", f"/runs/{reply.run_id}"))
            assert status == 200, run
            if run["ended_at"] is not None:
                await self._read_message(reply)
            else:
                await asyncio.sleep(PAUSE)  # what such a client does

    async def _read_message(self, reply: MovingReply) -> None:
        path = f"/messages/{self._session}?order=desc&branches=all"
        status, page = await patiently(lambda: self._client.call("GET", path))
        assert status == 200, page
        for message in page["items"]:
            if message["run_id"] == reply.run_id and message["role"] == "assistant":
                reply.keep(message)
                return
        raise AssertionError(f"run {reply.run_id} has ended and its message is not listed")

    async def _pause(self, reply: MovingReply) -> None:
        if reply.end is None:
            await self._client.go_elsewhere()


# -- what such a client does ------------------------------------------------------------------


async def converse(errand: Errand) -> None:
    """One session, a few turns; each reply is read over several transports, and by others too."""
    rng = errand.rng
    async with NativeClient(*errand.urls, silence=_SILENCE) as client:
        fields = {"model": errand.draw_model()}
        status, session = await patiently(lambda: client.call("POST", "/sessions", json=fields))
        assert status == 201, session
        errand.sessions.add(session["id"])
        reader = Reader(errand, client, session["id"])
        for _ in range(rng.randint(1, 3)):
            await _turn(errand, reader)


async def _turn(errand: Errand, reader: Reader) -> None:
    rng, prompt = errand.rng, errand.prompt()
    reply, via = MovingReply(), rng.choice((STREAM, STREAM, SOCKET, PLAIN))
    shown = errand.begin("assistant", via)
    cancels, is_watched = rng.random() < 0.12, rng.random() < 0.2
    legs = [(rng.choice((STREAM, SOCKET, POLL)), rng.randint(1, 120)) for _ in range(3)]
    watched_via = rng.choice((STREAM, POLL))
    with _noted(shown, reply):
        await reader.send(reply, prompt, via)
        async with asyncio.TaskGroup() as group:
            if is_watched:
                group.create_task(_watch(errand, reader, reply.run_id, watched_via))
            for leg, more in legs:
                await _leg(reader, reply, shown, leg, len(reply.text) + more)
            if cancels:
                await reader.cancel(reply)
            await _leg(reader, reply, shown, legs[-1][0], None)


async def _leg(
    reader: Reader, reply: MovingReply, shown: Shown, via: str, until: int | None
) -> None:
    if reply.end is None:
        shown.via.append(via)
        await reader.follow(reply, via, until)


async def _watch(errand: Errand, reader: Reader, run_id: str, via: str) -> None:
    """Another client, which comes later and sees it from the start."""
    reply, shown = MovingReply(run_id=run_id), errand.begin("assistant", "watch", via)
    with _noted(shown, reply):
        await reader.follow(reply, via, None)


@contextlib.contextmanager
def _noted(shown: Shown, reply: MovingReply) -> Iterator[None]:
    """What the reply has come to when the block ends, however it does."""
    try:
        with objections(shown):
            yield
    finally:
        note_reply(shown, reply)


def note_reply(shown: Shown, reply: MovingReply) -> None:
    end = reply.end or {}
    shown.run_id, shown.text, shown.status = reply.run_id, reply.text, reply.status
    shown.ends = sum(event["type"] in ("message_complete", "error") for event in reply.events)
    shown.sha256 = end.get("sha256") or ""
    shown.resets, shown.cuts = reply.resets, reply.cuts
    if shown.sha256 and end["message"]["content"] != reply.text:
        shown.problem = "its message is not what its pieces are together"
