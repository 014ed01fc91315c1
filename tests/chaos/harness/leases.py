"""Workers that sleep past their lease, and wake up while another writes their replies."""

import asyncio
from typing import NamedTuple

from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand, objections
from tests.chaos.harness.evidence import Shown
from tests.chaos.harness.native import STREAM, MovingReply, Reader, note_reply
from tests.chaos.harness.scene import Scene, concluded
from tests.chaos.harness.world import World
from tests.support.native_client import NativeClient

REPLIES = 4
"""At once, over both workers."""
DEADLINE = 60.0


async def sleep_past_leases(made: World, *, sleeps: int) -> Scene:
    """So many times one of the workers is stopped in the middle of its replies, then continued."""
    errands: list[Errand] = []
    workers = made.system.of("llm-worker")
    resets = 0
    async with NativeClient(*made.urls) as client:
        for number in range(sleeps):
            errand = Errand("leases", number, chooser(number, "leases"), list(made.urls))
            errands.append(errand)
            replies = await asyncio.gather(*(_begin(errand, client, n) for n in range(REPLIES)))
            sleeper, taken_over = workers[number % len(workers)], asyncio.Event()
            sleeper.pause()
            following = asyncio.gather(*(_follow(reply, taken_over) for reply in replies))
            waking = asyncio.create_task(taken_over.wait())
            await asyncio.wait([following, waking], return_when=asyncio.FIRST_COMPLETED)
            sleeper.resume()
            waking.cancel()
            await following
            resets += sum(begun.reply.resets for begun in replies)
    return await concluded("leases", made, errands, {"sleeps": sleeps, "taken over": resets})


class Begun(NamedTuple):
    """A reply under way, its reader, and what is kept of it."""

    reader: Reader
    reply: MovingReply
    shown: Shown


async def _begin(errand: Errand, client: NativeClient, number: int) -> Begun:
    """A reply of some seconds, past its beginning."""
    mark = errand.mark(number)
    session_id = await client.session()
    errand.sessions.add(session_id)
    reader, reply = Reader(errand, client, session_id), MovingReply()
    shown = errand.begin("assistant", STREAM, mark=mark)
    await reader.send(reply, f"mark={mark} tokens=120 rate=60", STREAM)
    await reader.follow(reply, STREAM, 20)
    return Begun(reader, reply, shown)


async def _follow(begun: Begun, taken_over: asyncio.Event) -> None:
    """To its end; ``taken_over`` is set as soon as it starts over."""
    reader, reply, shown = begun
    with objections(shown):
        async with asyncio.timeout(DEADLINE):
            while reply.end is None:
                await reader.follow(reply, STREAM, len(reply.text) + 1)
                if reply.resets:
                    taken_over.set()
                    await reader.follow(reply, STREAM, None)
    note_reply(shown, reply)
