"""A large file goes through a real gateway without staying in it, however it ends."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from services.gateway.http.uploads import PIECE
from shared import objects
from shared.bus import Bus
from shared.commands import CreateJob
from shared.events import DocumentPlan
from shared.streams import FILES
from tests.support.fake_store import FakeStore
from tests.support.memory import MEASURABLE, MEBIBYTE, peak, reset_peak, resident
from tests.support.system import System

SIZE = 50 * MEBIBYTE


def lines(size: int) -> AsyncIterator[bytes]:
    """A text of that size, made while it is sent."""

    async def made() -> AsyncIterator[bytes]:
        for start in range(0, size, PIECE):
            yield (b"0123456789abcde\n" * (PIECE // 16))[: size - start]

    return made()


async def upload(url: str, size: int) -> dict[str, Any]:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("prompt", "What?")
    form.add_field("file", lines(size), filename="a.txt", content_type="text/plain")
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/upload", data=form) as answer,
    ):
        return await answer.json()


async def chunks(bus: Bus) -> int:
    query = {"subjects_filter": "$O.FILES.C.>"}
    info = await bus.api(f"STREAM.INFO.{FILES}", query)
    return sum((info["state"].get("subjects") or {}).values())


@pytest.mark.skipif(not MEASURABLE, reason="asks Linux for memory")
async def test_an_upload_of_50_mib_raises_the_gateways_memory_by_8_mib_at_most():
    async with System(services=("gateway",)) as system, Bus(system.nats.url, name="t") as bus:
        store = FakeStore(bus)
        await store.serve()
        pid = system.one("gateway").pid
        await upload(system.url, MEBIBYTE)  # what is loaded at the first one stays
        before = resident(pid)
        reset_peak(pid)

        body = await upload(system.url, SIZE)

        most = peak(pid)
        command = store.requests[-1]
        assert body["success"]
        assert isinstance(command, CreateJob)
        assert isinstance(command.plan, DocumentPlan)
        digest = hashlib.sha256()
        async for chunk in objects.reading(bus, f"{command.session_id}/{command.plan.file.id}"):
            digest.update(chunk)
        assert digest.hexdigest() == command.plan.file.sha256
        assert command.plan.file.size == SIZE
        assert most - before <= 8 * MEBIBYTE, f"{(most - before) / MEBIBYTE:.1f} MiB"
        print(f"memory: {(most - before) / MEBIBYTE:.1f} MiB over {before / MEBIBYTE:.0f}")  # noqa: T201


async def test_what_a_killed_gateway_left_of_an_upload_can_be_swept():
    async with System(services=("gateway",)) as system, Bus(system.nats.url, name="t") as bus:
        await FakeStore(bus).serve()
        stored = asyncio.Event()
        listening = await bus.listen("$O.FILES.C.>", lambda _: stored.set())
        sending = asyncio.create_task(upload(system.url, SIZE))
        async with asyncio.timeout(20):
            await stored.wait()

        await system.one("gateway").kill()
        await asyncio.gather(sending, return_exceptions=True)
        await listening.close()

        assert await chunks(bus) > 0
        assert await objects.sweep(bus, older_than=-60.0) == 1
        assert await chunks(bus) == 0
