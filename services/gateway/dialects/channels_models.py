"""The Channels front ends' models, and how their providers are: words and routes."""

from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from services.gateway.asking import read_body, read_query
from services.gateway.context import USER, gateway_of
from services.gateway.describing import describe
from services.gateway.dialects import channels as words
from services.gateway.dialects.channels import PREFIX
from services.gateway.models import Health, Status
from shared.errors import ModelNotFound, NotFound
from shared.offers import Circuit, Refreshed, UnavailableProvider
from shared.records import Model

MODELS = f"{PREFIX}/models"
_ID = {"model_id": "`provider/name`, its slashes encoded or not"}


def routes() -> list[web.RouteDef]:
    return [
        web.get(f"{MODELS}/", list_models),
        web.post(f"{MODELS}/sync_models/", sync_models),
        web.get(MODELS + "/{model_id:.+}/", get_model),
        web.patch(MODELS + "/{model_id:.+}/", change_model),
        web.get(f"{PREFIX}/health/llm_server/", llm_server),
    ]


# -- words ------------------------------------------------------------------------


class ModelsAsked(words.PageAsked, frozen=True, kw_only=True):
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


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    providers: list[ProviderHealth]
    detail: str | UnsetType = UNSET
    """Why nobody could be asked."""


decode_model_change = msgspec.json.Decoder(ModelChange).decode


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
                error=provider.error,
            )
            for provider, status in health.providers
        ],
        detail=UNSET if health.fault is None else health.fault,
    )


# -- routes -----------------------------------------------------------------------


@describe(query=ModelsAsked, answers={200: words.Page[ModelView]}, errors=(NotFound,))
async def list_models(request: web.Request) -> web.Response:
    """List the models on offer."""
    asked = read_query(request, ModelsAsked)
    known = await gateway_of(request).models.known(request[USER].id)
    listed = [model for model in known if model.is_available or asked.include_unavailable]
    shown = [model_view(model) for model in listed[asked.offset :][: asked.size]]
    if asked.number > 1 and not shown:
        raise NotFound("Invalid page.")
    page = words.page_view(
        shown,
        count=len(listed),
        number=asked.number,
        size=asked.size,
        url=str(request.url.with_query(None)),
        query={name: value for name, value in request.query.items() if name != "token"},
    )
    return _json(page)


@describe(answers={200: Synced})
async def sync_models(request: web.Request) -> web.Response:
    """Ask every provider what it offers now."""
    models = gateway_of(request).models
    refreshed = await models.refresh()
    return _json(synced(refreshed, await models.known(request[USER].id)))


@describe(answers={200: ModelView}, errors=(ModelNotFound,), names=_ID)
async def get_model(request: web.Request) -> web.Response:
    """Show a model, also one that is no longer on offer."""
    return _json(model_view(await _model(request)))


@describe(body=ModelChange, answers={200: ModelView}, errors=(ModelNotFound,), names=_ID)
async def change_model(request: web.Request) -> web.Response:
    """Make a model the default of your sessions, or take that back.

    It counts in every dialect, for sessions that are opened without naming a model.
    """
    models, user = gateway_of(request).models, request[USER].id
    body = await read_body(request, decode_model_change)
    model = await _model(request)
    if body.is_default is True:
        await models.prefer(user, model.id)
    elif body.is_default is False and model.is_default:
        await models.prefer(user, None)
    return _json(model_view(await _model(request)))


@describe(answers={200: HealthView}, public=True)
async def llm_server(request: web.Request) -> web.Response:
    """Tell how the providers of models are, as of a few seconds ago."""
    return _json(health_view(await gateway_of(request).models.health()))


async def _model(request: web.Request) -> Model:
    wanted = request.match_info["model_id"]
    known = await gateway_of(request).models.known(request[USER].id)
    found = next((model for model in known if model.id == wanted), None)
    if found is None:
        raise ModelNotFound("There is no such model.")
    return found


def _json(body: Any) -> web.Response:
    return web.Response(body=words.encode(body), content_type="application/json")
