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
from services.gateway.single_flight import Flight
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
_READS = 16
"""Jobs of one list that are read at a time."""
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
        job = await Flight(_accept(gateway, permit, command, name), name="job-accept").result()
    return _json(wire.uploaded(job))


async def _accept(gateway: Gateway, permit: RunPermit, command: CreateJob, name: str) -> Job:
    try:
        return (await permit.start(command)).job
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


@describe(query=wire.JobsQuery, answers={200: wire.Success[wire.JobList]}, errors=(NotFound,))
async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs, newest first."""
    gateway, user = gateway_of(request), request[USER].id
    query = read_query(request, wire.JobsQuery)
    if query.cursor and not is_id(query.cursor):
        raise not_found("page")
    page = await gateway.store.ask(
        ListJobs(
            user_id=user,
            mode=wire.MODE,
            status=_STATUSES[query.status] if query.status else None,
            limit=min(query.limit, MOST),
            before=query.cursor or None,
        )
    )
    limit = asyncio.Semaphore(_READS)

    async def view(job: Job, plan: DocumentPlan) -> wire.JobView:
        async with limit:
            progress = _known_progress(job)
            if progress is None:
                progress = await gateway.jobs.progress_of(user, job)
            return wire.job_view(job, plan, progress)

    jobs = [(job, job.plan) for job in page.items if isinstance(job.plan, DocumentPlan)]
    reading = [asyncio.create_task(view(job, plan), name="job-view") for job, plan in jobs]
    try:
        views = await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()
    return _json(wire.JobList(jobs=views, next_cursor=page.next_before))


@describe(answers={200: wire.Success[wire.JobView]}, errors=(Conflict,))
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel, and answer with the job as it ended, if it does so soon."""
    gateway, user = gateway_of(request), request[USER].id
    job, plan = await _job(request)
    if job.run.ended_at is not None or job.run.cancelled:
        raise Conflict("The job has ended." if job.run.ended_at else "It is being cancelled.")
    async with gateway.jobs.of(user) as feed:
        await gateway.store.ask(CancelRun(user_id=user, run_id=job.run.id))
        await _wait_for_end(feed, job.run.id)
    query = GetJob(user_id=user, run_id=job.run.id)
    return await _answer(request, (await gateway.store.ask(query)).job, plan)


async def _wait_for_end(feed: JobFeed, run_id: str) -> None:
    """Wait until the job has ended, or is gone; not for long."""
    ended = asyncio.Event()

    def look(changed: str) -> None:
        state = feed.jobs.get(run_id)
        if changed == run_id and (state is None or state.ending is not None):
            ended.set()

    with feed.watchers.watching(look):
        look(run_id)
        try:
            async with asyncio.timeout(CANCEL_WAIT):
                await ended.wait()
        except TimeoutError:
            pass  # its owner is away; whoever takes over ends it


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
    """Answer with the job, its progress never less than its sockets were shown (from a feed)."""
    progress = _known_progress(job)
    if progress is None:
        async with gateway_of(request).jobs.of(request[USER].id) as feed:
            progress = (await feed.find(run_id=job.run.id)).progress
    return _json(wire.job_view(job, plan, progress))


def _known_progress(job: Job) -> int | None:
    """A job's progress where its record alone tells it: done, or not begun; else None."""
    if job.run.status == "completed":
        return 100
    return 0 if job.run.ended_at is None and not job.run.attempt else None


def _json(data: object) -> web.Response:
    body = wire.encode(wire.Success(data=data))
    return web.Response(body=body, content_type="application/json")
