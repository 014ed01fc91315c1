"""Models over HTTP, in Django REST framework's manner, and the health of their providers."""

from typing import NamedTuple

from aiohttp import web

from services.gateway.context import USER, gateway_of
from services.gateway.dialects.channels import models_wire as wire
from services.gateway.dialects.channels.drf import Page
from services.gateway.dialects.channels.drf_http import json, page, read_fields
from services.gateway.dialects.channels.wire import PREFIX
from services.gateway.http.describe import JsonOrForm, describe
from services.gateway.http.requests import read_query
from shared.errors import ModelNotFound, NotFound
from shared.records import Model

MODELS = f"{PREFIX}/models"
_ID = {"model_id": "`provider/name`, its slashes encoded or not"}
_CHANGE = JsonOrForm(wire.ModelChange)


def routes() -> list[web.RouteDef]:
    model = MODELS + "/{model_id:.+}"
    return [
        web.get(f"{MODELS}/", list_models),
        web.post(f"{MODELS}/sync_models/", sync_models),
        web.get(f"{model}/", get_model),
        web.put(f"{model}/", replace_model),
        web.patch(f"{model}/", change_model),
        web.get(f"{PREFIX}/health/llm_server/", llm_server),
    ]


class _Listed(NamedTuple):
    items: list[Model]
    total: int


@describe(query=wire.ModelsQuery, answers={200: Page[wire.ModelView]}, errors=(NotFound,))
async def list_models(request: web.Request) -> web.Response:
    """List the models on offer."""
    query = read_query(request, wire.ModelsQuery)
    known = await gateway_of(request).models.known(request[USER].id)
    listed = [model for model in known if model.is_available or query.include_unavailable]

    async def read(limit: int, offset: int) -> _Listed:
        return _Listed(listed[offset:][:limit], len(listed))

    return await page(request, query, read, wire.model_view)


@describe(answers={200: wire.Synced})
async def sync_models(request: web.Request) -> web.Response:
    """Ask every provider what it offers now."""
    models = gateway_of(request).models
    refreshed = await models.refresh()
    return json(wire.synced(refreshed, await models.known(request[USER].id)))


@describe(answers={200: wire.ModelView}, errors=(ModelNotFound,), names=_ID)
async def get_model(request: web.Request) -> web.Response:
    """Show a model, also one that is no longer on offer."""
    return json(wire.model_view(await _model(request)))


@describe(body=_CHANGE, answers={200: wire.ModelView}, errors=(ModelNotFound,), names=_ID)
async def change_model(request: web.Request) -> web.Response:
    """Make a model the default of your sessions, or take that back.

    It counts in every dialect, for sessions that are opened without naming a model.
    """
    return await _changed(request)


@describe(body=_CHANGE, answers={200: wire.ModelView}, errors=(ModelNotFound,), names=_ID)
async def replace_model(request: web.Request) -> web.Response:
    """Make a model the default of your sessions; it has no field that must be there."""
    return await _changed(request)


async def _changed(request: web.Request) -> web.Response:
    models, user = gateway_of(request).models, request[USER].id
    model = await _model(request)
    body = await read_fields(request, wire.MODEL_CHANGE)
    if body.is_default is True:
        await models.prefer(user, model.id)
    elif body.is_default is False and model.is_default:
        await models.prefer(user, None)
    return json(wire.model_view(await _model(request)))


@describe(answers={200: wire.HealthView}, public=True)
async def llm_server(request: web.Request) -> web.Response:
    """Tell how the providers of models are, as of a few seconds ago."""
    return json(wire.health_view(await gateway_of(request).models.health()))


async def _model(request: web.Request) -> Model:
    """The model that the path names.

    Raises:
        ModelNotFound: there never was one.
    """
    wanted = request.match_info["model_id"]
    known = await gateway_of(request).models.known(request[USER].id)
    found = next((model for model in known if model.id == wanted), None)
    if found is None:
        raise ModelNotFound("There is no such model.")
    return found
