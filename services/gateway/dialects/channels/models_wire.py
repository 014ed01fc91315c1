"""Models, and how their providers are, as the Channels front ends are sent them."""

import msgspec
from msgspec import UNSET, UnsetType

from services.gateway.dialects.channels.drf import Fields, PageQuery
from services.gateway.models import Health, Status
from shared.offers import Circuit, Refreshed, UnavailableProvider
from shared.records import Model


class ModelsQuery(PageQuery, frozen=True, kw_only=True):
    include_unavailable: bool = False
    """Also those that their provider no longer names."""


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    is_default: bool | UnsetType = UNSET
    """True: your sessions that name no model get this one.  False: the system's default again."""


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """``provider/name``."""
    name: str
    provider: str
    display_name: str
    context_window: int | None
    max_tokens: int | None
    supports_tools: bool
    supports_vision: bool
    is_default: bool
    is_available: bool


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    synced: int
    """Models of the providers that could be asked."""
    added: list[str]
    removed: list[str]
    unavailable: list[UnavailableProvider]
    models: list[ModelView]


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: Status
    latency_ms: int | None
    circuit: Circuit
    error: str | None
    """Why it does not answer, or which of its models are left alone."""


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    providers: list[ProviderHealth]
    detail: str | UnsetType = UNSET
    """Why nobody could be asked."""


MOST_NAMED = 20
"""Models that the health names, of a provider of which more keep failing."""

MODEL_CHANGE = Fields(ModelChange)


def model_view(model: Model) -> ModelView:
    return ModelView(
        id=model.id,
        name=model.name,
        provider=model.provider,
        display_name=model.display_name or model.name,
        context_window=model.context_window,
        max_tokens=model.max_tokens,
        supports_tools=model.supports_tools,
        supports_vision=model.supports_vision,
        is_default=model.is_default,
        is_available=model.is_available,
    )


def synced(refreshed: Refreshed, models: list[Model]) -> Synced:
    return Synced(
        synced=refreshed.offered,
        added=refreshed.added,
        removed=refreshed.removed,
        unavailable=refreshed.unavailable,
        models=[model_view(model) for model in models if model.is_available],
    )


def health_view(health: Health) -> HealthView:
    return HealthView(
        status=health.status,
        providers=[
            ProviderHealth(
                name=provider.name,
                status=status,
                latency_ms=provider.latency_ms,
                circuit=provider.circuit,
                error=provider.error or _left_alone(provider.open_models),
            )
            for provider, status in health.providers
        ],
        detail=UNSET if health.fault is None else health.fault,
    )


def _left_alone(models: list[str]) -> str | None:
    """Which models of a provider that answers fail all the same; None when there are none."""
    if not models:
        return None
    names, more = ", ".join(models[:MOST_NAMED]), len(models) - MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"Left alone for a while, because they kept failing: {names}{rest}."
