"""The document front ends over HTTP: ``/api/upload`` and ``/api/jobs``."""

import asyncio
from contextlib import suppress

from aiohttp import web

from services.gateway.access.limits import check_text
from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.dialects.documents import wire
from services.gateway.dialects.documents.wire import FIELDS, JOBS, UPLOAD
from services.gateway.http.describe import Form, describe
from services.gateway.http.requests import MOST, not_found, read_query, require_id
from services.gateway.http.start_run import RunPermit, run_permit
from services.gateway.http.uploads import receive
from services.gateway.jobs.feed import JobFeed
from shared.bus import BusError
from shared.commands import CancelRun, CreateJob, GetJob, ListJobs
from shared.errors import (
    Conflict,
    ModelNotFound,
    NatterlogError,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
    Unreached,
    UnsupportedMediaType,
)
from shared.events import DocumentPlan
from shared.ids import is_id, new_id
from shared.objects import erase, writing
from shared.records import Job, RunStatus

CANCEL_WAIT = 5.0
"""Seconds for which the answer to a cancel waits for the job's end."""
_STATUSES: dict[wire.Status, RunStatus] = {t: status for status, t in wire.STATUSES.items()}


def routes() -> list[web.RouteDef]:
    return [
        web.post(UPLOAD, upload),
        web.get(JOBS, list_jobs),
        web.get(JOBS + "/{job_id}", get_job),
        web.post(JOBS + "/{job_id}/cancel", cancel_job),
    ]


@describe(
    body=Form(wire.UploadForm),
    answers={200: wire.Success[wire.Uploaded]},
    errors=(UnsupportedMediaType, RateLimited, Timeout, ModelNotFound),
)
async def upload(request: web.Request) -> web.Response:
    """Send a file and a question about it: a job that answers it."""
    gateway, user = gateway_of(request), request[USER].id
    session_id, run_id, file_id = new_id(), new_id(), new_id()
    name = f"{session_id}/{file_id}"
    async with run_permit(request) as permit:
        async with writing(gateway.bus, name) as writer:
            form = await receive(request, writer, gateway.settings, FIELDS)
            command = wire.create_job(
                form.fields,
                form.need_file(),
                user=user,
                session_id=session_id,
                run_id=run_id,
                settings=gateway.settings,
            )
            check_text(form.fields["prompt"], gateway.settings, path="$.prompt")
        request[RUN_ID] = run_id
        # The client has sent everything: its job is accepted even if it hangs up now.
        accepting = asyncio.create_task(_accept(gateway, permit, command, name), name="accept")
        job = await asyncio.shield(accepting)
    return _json(wire.uploaded(job))


async def _accept(gateway: Gateway, permit: RunPermit, command: CreateJob, name: str) -> Job:
    try:
        return (await permit.ask(command)).job
    except NatterlogError as error:
        # A store that was asked may have accepted it all the same, and then it needs its file.
        if isinstance(error, Unreached) or not isinstance(error, Unavailable):
            with suppress(BusError):  # the store's sweep finds it
                await erase(gateway.bus, name)
        raise


@describe(answers={200: wire.Success[wire.JobView]})
async def get_job(request: web.Request) -> web.Response:
    """Show a job."""
    job, plan = await _job(request)
    return await _answer(request, job, plan)


@describe(query=wire.JobsAsked, answers={200: wire.Success[wire.JobList]}, errors=(NotFound,))
async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs, newest first."""
    gateway, user = gateway_of(request), request[USER].id
    asked = read_query(request, wire.JobsAsked)
    if asked.cursor and not is_id(asked.cursor):
        raise not_found("page")
    page = await gateway.store.ask(
        ListJobs(
            user_id=user,
            mode=wire.MODE,
            status=_STATUSES[asked.status] if asked.status else None,
            limit=min(asked.limit, MOST),
            before=asked.cursor or None,
        )
    )
    async with gateway.boards.of(user) as board:
        jobs = [
            wire.job_view(job, job.plan, await _progress(board, job))
            for job in page.items
            if isinstance(job.plan, DocumentPlan)
        ]
    return _json(wire.JobList(jobs=jobs, next_cursor=page.next_before))


@describe(answers={200: wire.Success[wire.JobView]}, errors=(Conflict,))
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel, and answer with the job as it ended, if it does so soon."""
    gateway, user = gateway_of(request), request[USER].id
    job, plan = await _job(request)
    if job.run.ended_at is not None or job.run.cancelled:
        raise Conflict("The job has ended." if job.run.ended_at else "It is being cancelled.")
    async with gateway.boards.of(user) as board:
        ended = asyncio.Event()

        def look(run_id: str) -> None:
            state = board.jobs.get(job.run.id)
            if run_id == job.run.id and (state is None or state.ending is not None):
                ended.set()

        board.watchers.add(look)
        try:
            await gateway.store.ask(CancelRun(user_id=user, run_id=job.run.id))
            look(job.run.id)
            async with asyncio.timeout(CANCEL_WAIT):
                await ended.wait()
        except TimeoutError:
            pass  # its owner is away; whoever takes over ends it
        finally:
            board.watchers.discard(look)
    query = GetJob(user_id=user, run_id=job.run.id)
    return await _answer(request, (await gateway.store.ask(query)).job, plan)


# -- reading requests, writing answers ----------------------------------------------


async def _job(request: web.Request) -> tuple[Job, DocumentPlan]:
    job_id = require_id(request.match_info["job_id"], "job")
    query = GetJob(user_id=request[USER].id, run_id=job_id)
    job = (await gateway_of(request).store.ask(query)).job
    if not isinstance(job.plan, DocumentPlan):
        raise not_found("job")
    request[RUN_ID] = job.run.id
    return job, job.plan


async def _answer(request: web.Request, job: Job, plan: DocumentPlan) -> web.Response:
    async with gateway_of(request).boards.of(request[USER].id) as board:
        progress = await _progress(board, job)
    return _json(wire.job_view(job, plan, progress))


async def _progress(board: JobFeed, job: Job) -> int:
    """How far the job has got, never less than its sockets were told."""
    if job.run.status == "completed":
        return 100
    if job.run.ended_at is None and not job.run.attempt:
        return 0
    return (await board.find(run_id=job.run.id)).progress


def _json(data: object) -> web.Response:
    body = wire.encode(wire.Success(data=data))
    return web.Response(body=body, content_type="application/json")
