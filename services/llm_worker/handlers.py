"""Everything that an llm_worker reacts to, and with what."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.offers import Offering
from services.llm_worker.worker import Worker
from shared.bus import Bus, Incoming
from shared.consumer import Delivery
from shared.errors import InvalidRequest
from shared.events import CancelRequested, Fact, TodoChat, TodoGenerate
from shared.offers import FindModel, ListOffers, ListOpenCircuits, LlmRequest, Refresh
from shared.ownership import RunOwnership
from shared.requests import BusRequest
from shared.subjects import live_facts, llm_command, owns

Owned = RunOwnership[DeltaWriter]
Endpoint = Callable[[bytes], Awaitable[bytes]]

TODOS: dict[type[Fact], Callable[[Worker, Delivery], Awaitable[None]]] = {
    TodoChat: Worker.handle,
    TodoGenerate: Worker.handle,
}
"""Facts of which each is handed to one worker, until it is acked."""

LIVE_FACTS: dict[type[Fact], Callable[[Owned, Incoming], None]] = {
    CancelRequested: Owned.on_cancel,
}
"""Facts that every worker hears of once they are stored."""

SIGNALS: dict[Callable[[str], str], Callable[[Owned, Incoming], None]] = {
    owns: Owned.on_owns,
}
"""Signals to a worker, by how their subject is made of its id."""

REQUESTS: dict[type[LlmRequest[Any]], Callable[[Offering, Any], Awaitable[msgspec.Struct]]] = {
    ListOffers: Offering.list_offers,
    Refresh: Offering.refresh,
    FindModel: Offering.find_model,
    ListOpenCircuits: Offering.list_open_circuits,
}
"""Requests that any worker answers."""


async def listen(bus: Bus, owned: Owned) -> None:
    """Subscribe to the signals and to the live facts."""
    for subject_of, react in SIGNALS.items():
        await bus.listen(subject_of(owned.worker_id), partial(react, owned))
    for kind, react in LIVE_FACTS.items():
        await bus.listen_live(live_facts(kind), partial(react, owned))


def endpoints(offering: Offering) -> dict[str, Endpoint]:
    """What answers each request, by its subject."""
    return {
        llm_command(kind.name): _endpoint(kind, partial(answer, offering))
        for kind, answer in REQUESTS.items()
    }


def _endpoint(
    kind: type[BusRequest[Any]], answer: Callable[[Any], Awaitable[msgspec.Struct]]
) -> Endpoint:
    async def serve(data: bytes) -> bytes:
        try:
            request = msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"The question cannot be read: {error}") from error
        return msgspec.json.encode(await answer(request))

    return serve
