"""Presets of the Channels front ends over HTTP: ``/ai-chat/api/presets``."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from services.gateway.asking import an_id
from services.gateway.context import USER, gateway_of
from services.gateway.dialects import channels
from services.gateway.dialects import channels_presets as words
from services.gateway.dialects.channels import PREFIX
from services.gateway.dialects.drf_http import Listed, json, page, read_fields
from services.gateway.presets import find_preset, with_preset
from shared.commands import DeletePreset, ListPresets
from shared.errors import Forbidden, NatterlogError
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
        web.post(f"{preset}/create_session_from_preset/", create_session),
    ]


async def list_presets(request: web.Request) -> web.Response:
    """Named choices of model, system prompt and parameters: the user's own and shared ones."""
    store, user = gateway_of(request).store, request[USER].id

    def ask(limit: int, offset: int) -> Awaitable[Listed]:
        return store.ask(ListPresets(user_id=user, limit=limit, offset=offset))

    return await page(request, ask, lambda preset: preset)


async def create_preset(request: web.Request) -> web.Response:
    body = await read_fields(request, words.NEW_PRESET)
    command = words.create_preset(body, request[USER].id)
    answer = await gateway_of(request).store.ask(command)
    return json(answer.preset, status=201)


async def get_preset(request: web.Request) -> web.Response:
    """A preset; only its owner may change it."""
    return json(await _preset(request))


async def replace_preset(request: web.Request) -> web.Response:
    async with _mine(request):
        body = await read_fields(request, words.PRESET_REPLACEMENT)
    return await _change(request, body)


async def change_preset(request: web.Request) -> web.Response:
    async with _mine(request):
        body = await read_fields(request, words.PRESET_CHANGE)
    return await _change(request, body)


async def delete_preset(request: web.Request) -> web.Response:
    command = DeletePreset(user_id=request[USER].id, preset_id=_preset_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


async def create_session(request: web.Request) -> web.Response:
    """Open a session as the preset says; what the body says goes before."""
    gateway, preset = gateway_of(request), await _preset(request)
    body = await read_fields(request, channels.NEW_SESSION)
    if body.title is None:
        body = msgspec.structs.replace(body, title=preset.name)
    wish = with_preset(body, preset)
    command = channels.create_session(wish, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return json(channels.session_view(answer.session), status=201)


BODIES = {
    create_preset: words.NEW_PRESET,
    replace_preset: words.PRESET_REPLACEMENT,
    create_session: channels.NEW_SESSION,
}
"""What may be sent to those that answer POST and PUT."""


# -- reading requests ---------------------------------------------------------------


def _preset_id(request: web.Request) -> str:
    return an_id(request.match_info["preset_id"], "preset")


async def _preset(request: web.Request) -> Preset:
    return await find_preset(gateway_of(request), request[USER].id, _preset_id(request))


async def _change(request: web.Request, body: words.PresetChange) -> web.Response:
    command = words.update_preset(body, request[USER].id, _preset_id(request))
    answer = await gateway_of(request).store.ask(command)
    return json(answer.preset)


@asynccontextmanager
async def _mine(request: web.Request) -> AsyncGenerator[None]:
    """Read a change; what is wrong with it is told only to whom may make one.

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
