"""The native API's files: taken in, to be attached to messages (docs/files.md)."""

import msgspec
from aiohttp import web

from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.dialects.assistant.requests import answer
from services.gateway.dialects.assistant.wire import FILE_MODE, PREFIX
from services.gateway.http.describe import Form, describe
from services.gateway.http.requests import require_id
from services.gateway.http.start_run import RunPermit, run_permit
from services.gateway.http.uploads import receive
from services.gateway.single_flight import Flight
from shared.commands import CreateJob, GetFile
from shared.errors import (
    NatterlogError,
    RateLimited,
    Timeout,
    Unavailable,
    Unreached,
    UnsupportedMediaType,
)
from shared.events import Fault, FileKind, FilePlan, FileRef
from shared.ids import new_id
from shared.objects import erase, writing
from shared.records import RunStatus


class FileForm(msgspec.Struct, frozen=True, kw_only=True):
    file: bytes


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    kind: FileKind
    size: int


class FileState(FileView, frozen=True, kw_only=True):
    """A file, and whether it has been read."""

    status: RunStatus
    error: Fault | None


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/files", upload),
        web.get(PREFIX + "/files/{file_id}", get_file),
    ]


@describe(
    body=Form(FileForm),
    answers={201: FileView},
    errors=(UnsupportedMediaType, RateLimited, Timeout),
)
async def upload(request: web.Request) -> web.Response:
    """Take a file in, and have it read; whoever answers a message with it waits for that."""
    gateway = gateway_of(request)
    file_id, run_id = new_id(), new_id()
    name = f"{file_id}/{new_id()}"
    async with run_permit(request) as permit:
        async with writing(gateway.bus, name) as writer:
            form = await receive(request, writer, gateway.settings, {})
            ref = form.need_file()
        request[RUN_ID] = run_id
        command = CreateJob(
            user_id=request[USER].id,
            session_id=file_id,
            run_id=run_id,
            plan=FilePlan(file=ref),
            mode=FILE_MODE,
        )
        # The client has sent everything: its file is kept even if it hangs up now.
        await Flight(_keep(gateway, permit, command, name), name="file-keep").result()
    return answer(view_of(file_id, ref), status=201)


async def _keep(gateway: Gateway, permit: RunPermit, command: CreateJob, name: str) -> None:
    try:
        await permit.start(command)
    except NatterlogError as error:
        # A store that was asked may have accepted it all the same, and then it needs its bytes.
        if isinstance(error, Unreached) or not isinstance(error, Unavailable):
            await erase(gateway.bus, name)
        raise


@describe(answers={200: FileState})
async def get_file(request: web.Request) -> web.Response:
    """Show what a file is, and whether it has been read."""
    file_id = require_id(request.match_info["file_id"], "file")
    query = GetFile(user_id=request[USER].id, file_id=file_id)
    file = (await gateway_of(request).store.ask(query)).file
    ref = file.ref
    return answer(
        FileState(
            id=file.id,
            name=ref.name,
            kind=ref.kind,
            size=ref.size,
            status=file.status,
            error=file.error,
        )
    )


def view_of(file_id: str, ref: FileRef) -> FileView:
    return FileView(id=file_id, name=ref.name, kind=ref.kind, size=ref.size)
