"""Cancels in every state of a run, through any gateway: it ends, and nothing comes after."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.chaos.harness.checker import Finding
from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand, objections, patiently
from tests.chaos.harness.native import STREAM, MovingReply, Reader, note_reply
from tests.chaos.harness.scene import Scene, concluded
from tests.chaos.harness.world import World
from tests.support.content_client import ContentClient
from tests.support.documents_client import DocumentsClient
from tests.support.native_client import NativeClient

WITHIN = 1.0
"""Seconds in which the provider's connection is to be closed; what is later is counted."""
DEADLINE = 20.0
"""Seconds in which everything must have ended, on a machine that does other things too."""
_AT_ONCE = 12


class Cancels:
    """The scene: its errands, and what it counts."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.errands: list[Errand] = []
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.waited: list[float] = []
        """Seconds from each answer to a cancel until the provider's connection was closed."""

    def errand(self, state: str, number: int) -> Errand:
        name = f"cancel-{state.replace(' ', '-')}"  # a mark has no spaces
        errand = Errand(name, number, chooser(number, state), list(self.made.urls))
        errand.rng.shuffle(errand.urls)
        self.errands.append(errand)
        return errand

    async def hung_up(self, mark: str, since: float) -> None:
        """Wait until no call for that prompt is open any more."""
        provider = self.made.provider
        await provider.wait_for(
            lambda: all(seen.closed_at or seen.ended_at for seen in provider.seen_of(mark)),
            DEADLINE,
        )
        closed = [seen.closed_at for seen in provider.seen_of(mark) if seen.closed_at]
        self.waited += [max(0.0, at - since) for at in closed]


async def cancel_everywhere(made: World, *, cancels: int) -> Scene:
    """So many cancels, over all states in turn."""
    scene, slots = Cancels(made), asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        state = list(STATES)[number % len(STATES)]
        errand = scene.errand(state, number)
        async with slots:
            try:
                await STATES[state](scene, errand)
                scene.counts[state] += 1
            except (AssertionError, TimeoutError, ExceptionGroup) as error:
                detail = f"{type(error).__name__}: {error}"
                scene.findings.append(Finding(rule="cancel", where=errand.mark(1), detail=detail))

    await asyncio.gather(*(one(number) for number in range(cancels)))
    waited = sorted(scene.waited) or [0.0]
    numbers = {
        **dict(sorted(scene.counts.items())),
        "calls hung up on": len(scene.waited),
        "hung up on later than 1 s": sum(each > WITHIN for each in waited),
        "median ms": round(1000 * waited[len(waited) // 2]),
        "longest ms": round(1000 * waited[-1]),
    }
    done = await concluded("cancels", made, scene.errands, numbers)
    return msgspec.structs.replace(done, findings=[*scene.findings, *done.findings])


# -- replies --------------------------------------------------------------------------------

Ready = Callable[[MovingReply], Awaitable[None]]


async def _reply(
    scene: Cancels, errand: Errand, script: str, *, until: int = 0, calls: int = 0, times: int = 1
) -> None:
    """Cancel a reply after so many characters, or so many calls of its provider."""
    mark = errand.mark(1)
    async with NativeClient(*errand.urls) as client, asyncio.timeout(3 * DEADLINE):
        session_id = await client.session()
        errand.sessions.add(session_id)
        async with _onlooker(client, session_id) as seen:
            reply, shown = MovingReply(), errand.begin("assistant", STREAM, mark=mark)
            reader = Reader(errand, client, session_id)
            with objections(shown):
                await reader.send(reply, f"mark={mark} {script}", STREAM)
                await reader.follow(reply, STREAM, until)
                await scene.made.provider.wait_for(
                    lambda: len(scene.made.provider.seen_of(mark)) >= calls, DEADLINE
                )
                await asyncio.gather(*(_cancel(errand, reply.run_id) for _ in range(times)))
                await scene.hung_up(mark, time.time())
                await reader.follow(reply, STREAM, None)
            note_reply(shown, reply)
            await seen.wait_for_end(reply.run_id)
        assert reply.status == "cancelled", f"{reply.status} in place of cancelled"


async def _cancel(errand: Errand, run_id: str) -> None:
    """Through any gateway."""
    async with NativeClient(errand.rng.choice(errand.urls)) as client:
        status, body = await patiently(lambda: client.call("POST", f"/runs/{run_id}/cancel"))
        assert status == 200, body


async def _waiting(scene: Cancels, errand: Errand) -> None:
    """A message that waits never begins; the reply before it is cancelled as well."""
    async with NativeClient(*errand.urls) as client, asyncio.timeout(3 * DEADLINE):
        session_id = await client.session(on_busy="queue")
        errand.sessions.add(session_id)
        reader = Reader(errand, client, session_id)
        first, second = MovingReply(), MovingReply()
        marks = [errand.mark(1), errand.mark(2)]
        shown = [errand.begin("assistant", STREAM, mark=mark) for mark in marks]
        with objections(shown[0]):
            await reader.send(first, f"mark={marks[0]} delay=60", STREAM)
            await reader.send(second, f"mark={marks[1]}", STREAM)
            for reply in (second, first):
                await _cancel(errand, reply.run_id)
                await reader.follow(reply, STREAM, None)
            assert not scene.made.provider.seen_of(marks[1]), "what waited was begun"
        for each, reply in zip(shown, (first, second), strict=True):
            note_reply(each, reply)
        ends = [first.status, second.status]
        assert ends == ["cancelled"] * 2, f"they ended as {ends}"


async def _ended(scene: Cancels, errand: Errand) -> None:
    """What has ended stays as it is."""
    del scene
    mark = errand.mark(1)
    async with NativeClient(*errand.urls) as client, asyncio.timeout(3 * DEADLINE):
        session_id = await client.session()
        errand.sessions.add(session_id)
        reply, shown = MovingReply(), errand.begin("assistant", STREAM, mark=mark)
        reader = Reader(errand, client, session_id)
        with objections(shown):
            await reader.send(reply, f"mark={mark} tokens=3", STREAM)
            await reader.follow(reply, STREAM, None)
            await _cancel(errand, reply.run_id)
        note_reply(shown, reply)
        assert reply.status == "completed", f"{reply.status} in place of completed"


# -- jobs -----------------------------------------------------------------------------------


async def _document(
    scene: Cancels, errand: Errand, script: str, *, until: int = 0, **fields: str
) -> None:
    mark = errand.mark(1)
    async with DocumentsClient(*errand.urls) as page, asyncio.timeout(3 * DEADLINE):
        job_id = await page.upload(b"a,b\n1,2\n", f"mark={mark} {script}", name="a.csv", **fields)
        answer, shown = page.answers[job_id], errand.begin("documents", "socket", mark=mark)
        shown.run_id = job_id
        with objections(shown):
            if until:
                await page.watch(until=lambda: len(answer.text) >= until)
            status, body = await patiently(lambda: page.call("POST", f"/api/jobs/{job_id}/cancel"))
            assert status == 200, body
            await scene.hung_up(mark, time.time())
            await page.watch()
            assert answer.end is not None
            assert answer.end["code"] == "cancelled", answer.end
            shown.status, shown.ends = "cancelled", 1
        shown.text, shown.progress = answer.text, answer.seen


async def _pipeline(scene: Cancels, errand: Errand) -> None:
    """In its second step, which the provider never ends."""
    mark = errand.mark(1)
    async with ContentClient(*errand.urls) as page, asyncio.timeout(3 * DEADLINE):
        path = await page.start(topic=f"mark={mark} steps=9", query="Be brief", session_id=mark)
        shown = errand.begin("content", "socket", mark=mark)
        shown.session_id = page.session_id
        with objections(shown):
            await scene.made.provider.stepping(mark, DEADLINE)
            status, body = await page.call("POST", f"/chat/{page.session_id}/cancel")
            assert status == 200, body
            await scene.hung_up(mark, time.time())
            await page.watch(path)
            assert page.end is not None
            assert page.end["code"] == "cancelled", page.end
        shown.status, shown.ends, shown.steps = "cancelled", 1, page.steps()


# -- whoever looks on -------------------------------------------------------------------------


class _Seen:
    """What a socket was shown of a session."""

    def __init__(self) -> None:
        self._ends: dict[str, asyncio.Event] = {}
        self._over: set[str] = set()

    async def wait_for_end(self, run_id: str) -> None:
        async with asyncio.timeout(DEADLINE):
            await self._ends.setdefault(run_id, asyncio.Event()).wait()

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        assert not self._over or kind in ("pong", "message_start"), f"{kind} after the end"
        if kind == "message_complete":
            run_id = event["message"]["run_id"]
            self._over.add(run_id)
            self._ends.setdefault(run_id, asyncio.Event()).set()


@asynccontextmanager
async def _onlooker(client: NativeClient, session_id: str) -> AsyncIterator[_Seen]:
    """Somebody else at the session's socket, who must see nothing after the end."""
    seen = _Seen()
    async with client.http.ws_connect(client.url("/ws"), max_msg_size=0) as ws:
        await ws.send_json({"type": "subscribe", "session_id": session_id})
        seen.take(json.loads(await ws.receive_str()))

        async def listen() -> None:
            async for message in ws:
                seen.take(json.loads(message.data))

        listening = asyncio.create_task(listen())
        try:
            yield seen
            await ws.send_json({"type": "ping"})  # its pong comes after whatever is on its way
        finally:
            await ws.close()
            await listening


STATES: dict[str, Callable[[Cancels, Errand], Awaitable[None]]] = {
    "waiting": _waiting,
    "at once": lambda scene, errand: _reply(scene, errand, "delay=60"),
    "before the first word": lambda scene, errand: _reply(scene, errand, "delay=60", calls=1),
    "while a model loads": lambda scene, errand: _reply(scene, errand, "load=60", calls=1),
    "while it thinks": lambda scene, errand: _reply(scene, errand, "think=9000 rate=50", calls=1),
    "being tried again": lambda scene, errand: _reply(
        scene, errand, "fail=529x9 retry_after=30", calls=1
    ),
    "streaming": lambda scene, errand: _reply(
        scene, errand, "tokens=9000 rate=50", until=errand.rng.randint(1, 400)
    ),
    "streaming, three at once": lambda scene, errand: _reply(
        scene, errand, "tokens=9000 rate=50", until=20, times=3
    ),
    "silent": lambda scene, errand: _reply(scene, errand, "fault=stall@5 rate=80", until=8),
    "ended": _ended,
    "a scheduled job": lambda scene, errand: _document(
        scene, errand, "tokens=3", scheduled_at="2099-01-01T00:00:00Z"
    ),
    "a job at once": lambda scene, errand: _document(scene, errand, "delay=60"),
    "a job's answer": lambda scene, errand: _document(
        scene, errand, "tokens=9000 rate=50", until=20
    ),
    "a pipeline's step": _pipeline,
}
"""Every state in which a run can be, and how a client gets it there and cancels it."""
