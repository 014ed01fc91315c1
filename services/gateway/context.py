"""What every handler of the gateway is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from services.gateway.access.accounts import Accounts
from services.gateway.access.auth import User
from services.gateway.access.limits import SocketCount
from services.gateway.access.rates import Rate, Rates
from services.gateway.connections import Connections
from services.gateway.jobs.hub import JobHub
from services.gateway.models import Models
from services.gateway.sessions.cursor import CursorCodec
from services.gateway.sessions.hub import Hub
from shared.bus import Bus
from shared.pipelines import Pipeline
from shared.settings import Settings
from shared.store_client import StoreClient


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The gateway's parts, made once in ``app.py``."""

    settings: Settings
    bus: Bus
    store: StoreClient
    accounts: Accounts
    rates: Rates
    hub: Hub
    jobs: JobHub
    models: Models
    pipelines: Mapping[str, Pipeline]
    cursors: CursorCodec
    connections: Connections = field(default_factory=Connections)
    sockets: SocketCount


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
USER: web.RequestKey[User] = web.RequestKey("user", User)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
RUN_ID: web.RequestKey[str] = web.RequestKey("run_id", str)
"""The run that the request is about: for the header X-Run-Id, and the log."""
RATE: web.RequestKey[Rate] = web.RequestKey("rate", Rate)
"""How its user stands, where the request was counted: for the headers RateLimit."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def gateway_of(request: web.Request) -> Gateway:
    return request.app[GATEWAY]
