"""The native API's exports and imports of whole sessions (docs/api.md, *Export*)."""

import asyncio
from typing import Literal

import msgspec
from aiohttp import web

from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.dialects.assistant.export.document import (
    Document,
    as_json,
    decode,
    history_of,
    mode_of,
)
from services.gateway.dialects.assistant.export.pdf import as_pdf
from services.gateway.dialects.assistant.export.text import (
    as_markdown,
    as_text,
    disposition,
    paper_of,
)
from services.gateway.dialects.assistant.requests import answer, session_id_of
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import Content, describe
from services.gateway.http.requests import decode_json, read_query
from services.gateway.http.uploads import LONGEST, SILENT
from shared.commands import CreateSession, Export, ExportSession
from shared.errors import InvalidRequest, Timeout, TooLarge
from shared.events import History
from shared.ids import new_id
from shared.objects import erase, put

Format = Literal["md", "txt", "json", "pdf"]
_TYPES: dict[Format, str] = {
    "md": "text/markdown; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
    "pdf": "application/pdf",
}


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True):
    format: Format = "md"


def routes() -> list[web.RouteDef]:
    return [
        web.get(PREFIX + "/sessions/{session_id}/export", export),
        web.post(f"{PREFIX}/sessions/import", import_session),
    ]


@describe(
    query=ExportQuery,
    answers={
        200: (
            Document,
            Content("text/markdown"),
            Content("text/plain"),
            Content("application/pdf", binary=True),
        )
    },
    errors=(TooLarge, Timeout),
)
async def export(request: web.Request) -> web.Response:
    """Give a conversation away as a file.

    JSON has all branches and can be imported; the others show the active one.
    """
    kind = read_query(request, ExportQuery).format
    query = ExportSession(user_id=request[USER].id, session_id=session_id_of(request))
    exported = await gateway_of(request).store.ask(query)
    headers = {
        "Content-Type": _TYPES[kind],
        "Content-Disposition": disposition(exported.session.title, kind),
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(body=await _bytes(exported, kind), headers=headers)


async def _bytes(exported: Export, kind: Format) -> bytes:
    match kind:
        case "json":
            return as_json(exported)
        case "pdf":
            return await as_pdf(paper_of(exported))
        case "txt":
            return as_text(paper_of(exported)).encode()
        case "md":
            return as_markdown(paper_of(exported)).encode()


@describe(body=Document, answers={201: wire.SessionView}, errors=(Timeout,))
async def import_session(request: web.Request) -> web.Response:
    """Open a session that is what a JSON export says, under new ids."""
    gateway = gateway_of(request)
    document = decode_json(await _read(request, gateway.settings.max_upload), decode)
    opened = await _open(gateway, request[USER].id, document, history_of(document))
    return answer(opened, status=201)


async def _open(
    gateway: Gateway, user: str, document: Document, history: History
) -> wire.SessionView:
    """Open a session that begins with this, which may be too much for a request to the store."""
    session_id, settings = new_id(), document.session
    name = f"{session_id}/{new_id()}"
    await put(gateway.bus, name, msgspec.json.encode(history))
    try:
        opened = await gateway.store.ask(
            CreateSession(
                user_id=user,
                session_id=session_id,
                title=settings.title,
                mode=mode_of(document),
                model=settings.model,
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
                system_prompt=settings.system_prompt,
                context_tags=settings.context_tags,
                on_busy=settings.on_busy,
                enable_tools=settings.enable_tools,
                history_file=name,
            )
        )
    finally:
        await erase(gateway.bus, name)
    return wire.session_view(opened.session)


async def _read(request: web.Request, most: int) -> bytes:
    """The body, which may be larger than others: an import holds a whole conversation.

    Raises:
        TooLarge: it is longer than even that.
        Timeout: nothing comes any more.
        InvalidRequest: it cannot be read as its headers say.
    """
    data = bytearray()
    if (request.content_length or 0) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(LONGEST):
            while piece := await _piece(request):
                data += piece
                if len(data) > most:
                    raise _too_large(most)
    except TimeoutError as error:
        raise Timeout("The import took too long to come.") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("The body cannot be read as its headers say.") from error
    return bytes(data)


async def _piece(request: web.Request) -> bytes:
    async with asyncio.timeout(SILENT):
        return await request.content.read(64 * 1024)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"An import may have {most} bytes.")
