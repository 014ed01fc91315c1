"""A gateway in this process, before a real log and a store that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from services.gateway.access.accounts import Accounts
from services.gateway.access.limits import SocketCount
from services.gateway.access.rates import Rates
from services.gateway.app import make_app
from services.gateway.context import Gateway
from services.gateway.jobs.hub import JobHub
from services.gateway.models import Models
from services.gateway.sessions.cursor import CursorCodec
from services.gateway.sessions.hub import Hub
from shared import pipelines
from shared.bus import Bus
from shared.ids import LOCAL_USER
from shared.llm_client import LlmClient
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.streams import ensure_streams
from tests.support.between import Between
from tests.support.fake_store import FakeStore
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work

DEADLINE = 10.0
PIPELINES = pipelines.load(Settings())
"""Read once: to check their schemas takes as long as to open a gateway."""


@dataclass
class Stage:
    """What a contract test works with."""

    url: str
    http: aiohttp.ClientSession
    store: FakeStore
    gateway: Gateway
    bus: Bus

    async def open(self, path: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket; it is closed with the stage."""
        return await self.http.ws_connect(path, autoping=True, **options)

    async def token(self, value: str, user: str = LOCAL_USER, **fields: Any) -> str:
        """A token that the gateway has heard of; answers its id."""
        token_id = await self.store.accounts.make(value, user, **fields)
        async with asyncio.timeout(DEADLINE):
            while not self.gateway.accounts.needed:
                await self.bus.api("INFO")  # a round trip, on which the news of it comes along
        return token_id

    async def session(self, **fields: Any) -> str:
        """A new native session's id."""
        async with self.http.post("/api/v1/chat/sessions", json=fields) as answer:
            assert answer.status == 201, await answer.text()
            return (await answer.json())["id"]


@asynccontextmanager
async def stage(
    nats_url: str,
    *,
    with_store: bool = True,
    store: FakeStore | None = None,
    line: str | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """A gateway with these settings, listening on a free port.

    Several may share a ``store``.  The gateway may have another ``line`` to NATS
    than the store, to be cut alone.
    """
    async with Bus(line or nats_url, name="gateway") as bus, Bus(nats_url, name="store") as own:
        epoch = await ensure_streams(bus)
        fake = store or FakeStore(own)
        if with_store and store is None:
            await fake.serve()
        asker = StoreClient(bus)
        # All tests share one local user; those that count messages say so.
        made = Settings(**{"messages_per_minute": 0, **settings})
        async with (
            Accounts(made, bus, asker) as accounts,
            Hub(bus, asker) as hub,
            JobHub(hub, bus, asker) as jobs,
            Models(asker, LlmClient(bus)) as models,
        ):
            gateway = Gateway(
                settings=made,
                bus=bus,
                store=asker,
                accounts=accounts,
                rates=Rates(made, bus),
                hub=hub,
                jobs=jobs,
                models=models,
                pipelines=PIPELINES,
                cursors=CursorCodec(epoch),
                sockets=SocketCount(made),
            )
            runner = web.AppRunner(
                make_app(gateway), access_log=None, handler_cancellation=True, shutdown_timeout=1
            )
            async with gateway.connections:
                await runner.setup()
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                async with aiohttp.ClientSession(url) as http:
                    yield Stage(url, http, fake, gateway, bus)
                gateway.connections.stop()
                await runner.cleanup()


@asynccontextmanager
async def stage_with_store(
    server: NatsServer, data_dir: Path, between: Between | None = None, **settings: Any
) -> AsyncIterator[tuple[Stage, StoreAtWork]]:
    """A gateway before a real store, on a server of its own: everybody's user is the same."""
    between = between or Between()
    async with store_at_work(server, data_dir) as at_work:
        at_work.user = LOCAL_USER
        await at_work.bus.serve("store", between.around(at_work.store.endpoints()))
        try:
            async with stage(server.url, with_store=False, **settings) as made:
                yield made, at_work
        finally:
            between.end()


async def frame(ws: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The socket's next message."""
    return json.loads(await ws.receive_str(timeout=DEADLINE))


async def frames(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    """The socket's next messages."""
    return [await frame(ws) for _ in range(count)]


async def close_code(ws: aiohttp.ClientWebSocketResponse) -> int | None:
    """The code that the server closes with; whatever it says before is passed over."""
    while True:
        message = await ws.receive(timeout=DEADLINE)
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            return ws.close_code
