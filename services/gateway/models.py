"""The models on offer, as every dialect lists them, and how the providers are.

Lists are answered from the store's tables, so they are there without any worker.
A list that was not compared with the providers for a while is compared when somebody
wants it, who waits for that a short time and no longer.
"""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Literal, NamedTuple, Self

from services.gateway.single_flight import SingleFlight
from shared.bus import BusError
from shared.commands import ListModels, PreferModel
from shared.errors import NatterlogError
from shared.llm_client import LlmClient
from shared.log import get_logger
from shared.offers import ListOffers, Offers, ProviderState, Refresh, Refreshed
from shared.records import Model
from shared.store_client import StoreClient

log = get_logger()

FRESH = 30.0
"""Seconds for which a list is shown without asking the providers again."""
TIMEOUT = 0.3
"""Seconds that a list waits for the providers."""
FIRST_TIMEOUT = 6.0
"""The same for the first list of all: there is nothing to show until a worker has answered."""
HEALTH_FOR = 5.0
"""Seconds for which the providers' health is believed."""

_ALL = "all"
"""Lists and probes are of all providers: there is one of each at a time."""

Status = Literal["healthy", "degraded", "unhealthy"]


class Health(NamedTuple):
    """How the providers are; ``fault`` says why nobody could be asked."""

    status: Status
    providers: list[tuple[ProviderState, Status]]
    fault: str | None = None


class Models:
    """``async with Models(store, workers) as models``: one of them a gateway."""

    def __init__(self, store: StoreClient, workers: LlmClient) -> None:
        self._store = store
        self._workers = workers
        self._refreshes = SingleFlight(self._refresh_list, name="models-refresh")
        self._refreshed_at = float("-inf")
        self._health: Health | None = None
        self._health_at = 0.0
        self._probes = SingleFlight(self._probe, name="models-probe")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._refreshes.cancel()
        self._probes.cancel()

    # -- lists --------------------------------------------------------------------

    async def known(self, user: str) -> list[Model]:
        """Every known model, those that are no longer on offer too; quite fresh.

        Raises:
            Unavailable: the store does not answer.
        """
        refresh = self._refreshes.under_way(_ALL)
        if refresh is None and asyncio.get_running_loop().time() - self._refreshed_at > FRESH:
            refresh = self._refreshes.of(_ALL)
        if refresh is not None:
            await refresh.landed(within=TIMEOUT)
        is_late = refresh is not None and not refresh.over
        listed = await self._list(user)
        if not listed and is_late and refresh is not None:
            await refresh.landed(within=FIRST_TIMEOUT)
            listed = await self._list(user)
        return listed

    async def refresh(self) -> Refreshed:
        """Ask every provider now, and have the store note what it says.

        Raises:
            Unavailable: no worker answers.
        """
        refreshed = await self._workers.ask(Refresh())
        self._store.heard(refreshed.seq)
        self._refreshed_at = asyncio.get_running_loop().time()
        return refreshed

    async def prefer(self, user: str, model: str | None) -> None:
        """Make a model the user's default, or have none of their own.

        Raises:
            ModelNotFound, InvalidRequest: it is not there, or not on offer any more.
        """
        await self._store.ask(PreferModel(user_id=user, model=model))

    async def _list(self, user: str) -> list[Model]:
        return (await self._store.ask(ListModels(user_id=user))).items

    async def _refresh_list(self, _: object) -> None:
        try:
            refreshed = await self._workers.ask(Refresh())
            self._store.heard(refreshed.seq)
        except (NatterlogError, BusError) as error:
            log.info("models.list_not_refreshed", error=str(error))
        finally:
            self._refreshed_at = asyncio.get_running_loop().time()

    # -- health -------------------------------------------------------------------

    async def health(self) -> Health:
        """How the providers are, as of a few seconds ago; never fails."""
        age = asyncio.get_running_loop().time() - self._health_at
        if self._health is not None and age <= HEALTH_FOR:
            return self._health
        return await self._probes.of(_ALL).result()

    async def _probe(self, _: object) -> Health:
        try:
            self._health = health_of(await self._workers.ask(ListOffers()))
        except (NatterlogError, BusError) as error:
            log.warning("models.health_unknown", error=str(error))
            fault = "No llm_worker answers, so no reply can be written."
            self._health = Health("unhealthy", [], fault)
        self._health_at = asyncio.get_running_loop().time()
        return self._health


def health_of(offers: Offers) -> Health:
    """The providers' health, and all in all; the demo says nothing about a real provider."""
    states: list[tuple[ProviderState, Status]] = [(s, _status(s)) for s in offers.providers]
    real = [status for state, status in states if state.name != "demo"]
    counts = Counter(real or [status for _, status in states])
    if counts["unhealthy"] == counts.total():
        return Health("unhealthy", states)
    return Health("healthy" if counts["healthy"] == counts.total() else "degraded", states)


def _status(provider: ProviderState) -> Status:
    if provider.error is not None:
        return "unhealthy"
    return "healthy" if provider.circuit == "closed" and not provider.open_models else "degraded"


def bare_names(models: list[Model]) -> dict[str, str]:
    """Each model's name as lists show it: bare where that means this model alone."""
    counts = Counter(model.name for model in models)
    providers = {model.provider for model in models}

    def is_clear(name: str) -> bool:
        prefix, slash, _ = name.partition("/")
        return counts[name] == 1 and not (slash and prefix in providers)

    return {model.id: model.name if is_clear(model.name) else model.id for model in models}
