"""Presets of the Channels front ends over HTTP: ``/ai-chat/api/presets``."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from services.gateway.context import USER, gateway_of
from services.gateway.dialects.channels import presets_wire as wire
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.channels.drf import Page, PageQuery
from services.gateway.dialects.channels.drf_http import Listed, json, page, read_fields
from services.gateway.dialects.channels.wire import PREFIX
from services.gateway.http.describe import JsonOrForm, describe
from services.gateway.http.requests import read_query, require_id
from services.gateway.presets import find_preset, with_preset
from shared.commands import DeletePreset, ListPresets
from shared.errors import Forbidden, NatterlogError, NotFound
from shared.records import Preset

PATH = f"{PREFIX}/presets"


def routes() -> list[web.RouteDef]:
    preset = PATH + "/{preset_id}"
    return [
        web.get(f"{PATH}/", list_presets),
        web.post(f"{PATH}/", create_preset),
        web.get(f"{preset}/", get_preset),
        web.put(f"{preset}/", replace_preset),
        web.patch(f"{preset}/", change_preset),
        web.delete(f"{preset}/", delete_preset),
        web.post(f"{preset}/create_session_from_preset/", create_session_from_preset),
    ]


@describe(query=PageQuery, answers={200: Page[Preset]}, errors=(NotFound,))
async def list_presets(request: web.Request) -> web.Response:
    """List the user's own presets and those that others share, by name."""
    store, user = gateway_of(request).store, request[USER].id
    query = read_query(request, PageQuery)

    def read(limit: int, offset: int) -> Awaitable[Listed]:
        return store.ask(ListPresets(user_id=user, limit=limit, offset=offset))

    return await page(request, query, read, lambda preset: preset)


@describe(body=JsonOrForm(wire.NewPreset), answers={201: Preset})
async def create_preset(request: web.Request) -> web.Response:
    """Keep a choice of model, system prompt and parameters under a name."""
    body = await read_fields(request, wire.NEW_PRESET)
    command = wire.create_preset(body, request[USER].id)
    answer = await gateway_of(request).store.ask(command)
    return json(answer.preset, status=201)


@describe(answers={200: Preset})
async def get_preset(request: web.Request) -> web.Response:
    """Show a preset."""
    return json(await _preset(request))


@describe(body=JsonOrForm(wire.NewPreset), answers={200: Preset})
async def replace_preset(request: web.Request) -> web.Response:
    """Change a preset; its name must be there, and whatever else is left out stays."""
    async with _owner_first(request):
        body = await read_fields(request, wire.PRESET_REPLACEMENT)
    return await _change(request, body)


@describe(body=JsonOrForm(wire.PresetChange), answers={200: Preset})
async def change_preset(request: web.Request) -> web.Response:
    """Change some fields of a preset of one's own."""
    async with _owner_first(request):
        body = await read_fields(request, wire.PRESET_CHANGE)
    return await _change(request, body)


@describe(answers={204: None})
async def delete_preset(request: web.Request) -> web.Response:
    """Forget a preset of one's own; sessions that were made from it stay."""
    command = DeletePreset(user_id=request[USER].id, preset_id=_preset_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


@describe(body=JsonOrForm(channels.NewSession), answers={201: channels.SessionView})
async def create_session_from_preset(request: web.Request) -> web.Response:
    """Open a session as the preset says; what the body says itself goes before."""
    gateway, preset = gateway_of(request), await _preset(request)
    body = await read_fields(request, channels.NEW_SESSION)
    if body.title is None:
        body = msgspec.structs.replace(body, title=preset.name)
    wish = with_preset(body, preset)
    command = channels.create_session(wish, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return json(channels.session_view(answer.session), status=201)


# -- reading requests ---------------------------------------------------------------


def _preset_id(request: web.Request) -> str:
    return require_id(request.match_info["preset_id"], "preset")


async def _preset(request: web.Request) -> Preset:
    return await find_preset(gateway_of(request).store, request[USER].id, _preset_id(request))


async def _change(request: web.Request, body: wire.PresetChange) -> web.Response:
    command = wire.update_preset(body, request[USER].id, _preset_id(request))
    answer = await gateway_of(request).store.ask(command)
    return json(answer.preset)


@asynccontextmanager
async def _owner_first(request: web.Request) -> AsyncGenerator[None]:
    """Refuse whoever may not change the preset before anything that is wrong with the change.

    Raises:
        NotFound, Forbidden: there is no such preset, or it is another user's.
    """
    try:
        _preset_id(request)
        yield
    except NatterlogError:
        if (await _preset(request)).owner != request[USER].id:
            raise Forbidden("Only its owner may change a shared preset.") from None
        raise
