"""What this worker's providers offer: the answers to requests, and the store's list of models."""

import asyncio

import msgspec
from prometheus_client import Gauge

from services.llm_worker.breaker import LONGEST_NAME, Breaker
from services.llm_worker.providers.base import ModelInfo, ProviderError
from services.llm_worker.providers.registry import FRESH, Registry
from shared.bus import BusError
from shared.commands import SyncModels
from shared.errors import Unavailable, from_code
from shared.events import ModelDetails, OfferedModel
from shared.log import get_logger
from shared.offers import (
    Circuit,
    FindModel,
    FoundModel,
    ListOffers,
    ListOpenCircuits,
    Offers,
    OpenCircuits,
    ProviderState,
    Refresh,
    Refreshed,
    UnavailableProvider,
)
from shared.store_client import StoreClient
from shared.subjects import NONE

log = get_logger()

LONGEST_LIST = 1024 * 1024
"""Bytes of JSON of one provider's models: the lists of all go to the store as one message."""
MOST_FAMILIES = 20
_AGAIN = 1.0

_circuits = Gauge(
    "natterlog_open_circuits",
    "1 for each model that is left alone because it kept failing; no model: the whole provider",
    ["provider", "model"],
)


class Offering:
    """Answers for the providers of one worker."""

    def __init__(self, registry: Registry, breaker: Breaker, store: StoreClient) -> None:
        self._registry = registry
        self._breaker = breaker
        self._store = store
        self._refreshing = asyncio.Lock()

    async def refresh_at_start(self) -> None:
        """Have the store note the offer, as soon as it can."""
        while True:
            try:
                await self.refresh(Refresh())
            except (Unavailable, BusError) as error:
                log.info("models.refresh_postponed", error=str(error))
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def list_offers(self, request: ListOffers) -> Offers:
        """Ask every provider what it offers."""
        del request
        catalogue = await self._registry.models(max_age=0.0)
        failures = dict(catalogue.unavailable)
        circuits = await self._breaker.open_circuits()
        of_provider: dict[str, Circuit] = {c.provider: c.state for c in circuits if c.model is None}
        offered = [_offered(provider, info) for provider, info in catalogue.models]
        states = [
            ProviderState(
                name=name,
                models=_first([m for m in offered if m is not None and m.provider == name]),
                circuit=of_provider.get(name, "closed"),
                latency_ms=None if name in failures else self._registry.latency_ms(name),
                error=failures[name].message if name in failures else None,
                open_models=[c.model for c in circuits if c.provider == name and c.model],
            )
            for name in self._registry.providers
        ]
        return Offers(providers=states, default=await self._default())

    async def refresh(self, request: Refresh) -> Refreshed:
        """Ask every provider what it offers, and have the store note it."""
        del request
        async with self._refreshing:  # an older list is noted before a newer one is asked for
            offers = await self.list_offers(ListOffers())
            failed = [p for p in offers.providers if p.error is not None]
            models = [model for p in offers.providers if p.error is None for model in p.models]
            noted = await self._store.ask(
                SyncModels(
                    user_id=NONE,
                    models=models,
                    unavailable=[p.name for p in failed],
                    default=offers.default,
                )
            )
        if noted.added or noted.removed:
            log.info("models.changed", added=noted.added, removed=noted.removed)
        return Refreshed(
            offered=len(models),
            added=noted.added,
            removed=noted.removed,
            unavailable=[UnavailableProvider(provider=p.name, error=p.error or "") for p in failed],
            seq=noted.seq,
        )

    async def list_open_circuits(self, request: ListOpenCircuits) -> OpenCircuits:
        """Say what is left alone at the moment."""
        del request
        return OpenCircuits(circuits=await self._breaker.open_circuits())

    async def measure(self) -> None:
        """Set the gauge of open circuits, for whoever looks at the metrics."""
        circuits = await self._breaker.open_circuits()
        _circuits.clear()
        for circuit in circuits:
            _circuits.labels(circuit.provider, circuit.model or "").set(1)

    async def find_model(self, request: FindModel) -> FoundModel:
        """Say which model a name means."""
        try:
            return FoundModel(id=await self._registry.find(request.model))
        except ProviderError as error:
            raise from_code(error.code, error.message) from error

    async def _default(self) -> str | None:
        try:
            return await self._registry.find(None, max_age=FRESH)
        except ProviderError as error:
            log.info("models.default_unknown", error=error.message)
            return None


def _offered(provider: str, info: ModelInfo) -> OfferedModel | None:
    """A provider's model as facts have it; None when a fact cannot hold it."""
    if not _is_usable(info.name):
        log.warning("models.name_unusable", provider=provider, length=len(info.name))
        return None
    fields = {
        **msgspec.structs.asdict(info),
        "display_name": _usable(info.display_name),
        "digest": _usable(info.digest),
        "details": info.details and _described(info.details),
    }
    try:
        return msgspec.convert({**msgspec.to_builtins(fields), "provider": provider}, OfferedModel)
    except msgspec.ValidationError as error:
        log.warning("models.description_unusable", provider=provider, error=str(error))
        return OfferedModel(provider=provider, name=info.name)


def _described(details: ModelDetails) -> ModelDetails:
    """The details without texts that cannot be shown."""
    texts = {
        name: _usable(value) or ""
        for name, value in msgspec.structs.asdict(details).items()
        if isinstance(value, str)
    }
    families = [name for name in details.families[:MOST_FAMILIES] if _is_usable(name)]
    return ModelDetails(**texts, families=families)


def _usable(text: str | None) -> str | None:
    return text if text is not None and _is_usable(text) else None


def _is_usable(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def _first(models: list[OfferedModel]) -> list[OfferedModel]:
    """As many of a provider's models as a list may have."""
    size = 0
    for count, model in enumerate(models):
        size += len(msgspec.json.encode(model)) + 1
        if size > LONGEST_LIST:
            log.warning("models.too_many", provider=model.provider, listed=count, of=len(models))
            return models[:count]
    return models
