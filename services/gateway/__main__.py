"""The gateway: every dialect on one port, in front of one log."""

import asyncio
from functools import partial

from aiohttp import web

from services.gateway.access.accounts import Accounts
from services.gateway.access.limits import SocketCount
from services.gateway.access.rates import Rates
from services.gateway.app import make_app
from services.gateway.context import Gateway
from services.gateway.dependencies import OtherServices
from services.gateway.http.uploads import sweep_now_and_then
from services.gateway.jobs.hub import JobHub
from services.gateway.models import Models
from services.gateway.sessions.cursor import CursorCodec
from services.gateway.sessions.hub import Hub
from shared import pipelines
from shared.lifecycle import Life, running, serve_health
from shared.llm_client import LlmClient
from shared.log import get_logger
from shared.settings import Settings
from shared.store_client import StoreClient

log = get_logger()

SHORT = 5.0
"""Seconds that requests may take to finish once their streams were ended."""
OTHERS = ("store", "llm_worker", "processor")
"""The services without which a gateway can accept and show, but not all that it should."""
LINGERING = 30.0
"""Seconds for which an upload that was refused may go on, so that its sender reads why."""


async def main(settings: Settings) -> None:
    read = pipelines.load(settings)
    async with running(settings, "gateway", own_health=False) as life:
        others = OtherServices(life.bus)
        for kind in OTHERS:
            life.add_check(kind, partial(others.check, kind))
        store = StoreClient(life.bus)
        async with (
            Accounts(settings, life.bus, store) as accounts,
            Hub(life.bus, store) as hub,
            JobHub(hub, life.bus, store) as jobs,
            Models(store, LlmClient(life.bus)) as models,
        ):
            if not await _may_listen(life, accounts):
                return
            gateway = Gateway(
                settings=settings,
                bus=life.bus,
                store=store,
                accounts=accounts,
                rates=Rates(settings, life.bus),
                hub=hub,
                jobs=jobs,
                models=models,
                pipelines=read,
                cursors=CursorCodec(life.epoch),
                sockets=SocketCount(settings),
            )
            await _serve(gateway, life)


async def _serve(gateway: Gateway, life: Life) -> None:
    """Answer whoever comes until it is time to stop; then let go of them in order."""
    settings = gateway.settings
    runner = web.AppRunner(
        make_app(gateway, life.health_routes()),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHORT,
        lingering_time=LINGERING,
    )
    async with gateway.connections:
        await runner.setup()
        site = web.TCPSite(
            runner,
            settings.host,
            settings.port,
            reuse_port=settings.reuse_port or None,
            backlog=1024,
        )
        await site.start()
        life.health_port = port = runner.addresses[0][1]
        log.info("gateway.listening", host=settings.host, port=port)
        # Whoever asks a shared port is answered by any gateway: each has another for its health.
        health = await serve_health(life, settings) if settings.reuse_port else None
        life.ready()
        sweeping = asyncio.create_task(sweep_now_and_then(life.bus), name="sweep")
        await life.stopping.wait()
        sweeping.cancel()
        await site.stop()
        gateway.connections.stop()
        await runner.cleanup()
        if health is not None:
            await health.cleanup()


async def _may_listen(life: Life, accounts: Accounts) -> bool:
    """Wait until the gateway knows that it may; False when it is to stop before that.

    Raises:
        BadSetting: it may not.
    """
    stopping = asyncio.create_task(life.stopping.wait())
    checking = asyncio.create_task(accounts.may_listen())
    try:
        await asyncio.wait({stopping, checking}, return_when=asyncio.FIRST_COMPLETED)
        return checking.done() and await checking is None
    finally:
        stopping.cancel()
        checking.cancel()
