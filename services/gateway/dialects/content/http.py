"""The content front ends over HTTP: ``/chat/start`` and what belongs to it."""

from aiohttp import web

from services.gateway.access.limits import check_text
from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.dialects.content import wire
from services.gateway.dialects.content.wire import PREFIX
from services.gateway.http.describe import describe
from services.gateway.http.requests import not_found, read_body, require_id
from services.gateway.http.start_run import start as start_run
from shared.commands import CancelRun, GetJob
from shared.errors import ModelNotFound, RateLimited
from shared.events import PipelinePlan


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/start", start),
        web.get(f"{PREFIX}/pipelines", list_pipelines),
        web.post(PREFIX + "/{session_id}/cancel", cancel),
    ]


@describe(body=wire.NewJob, answers={200: wire.Started}, errors=(RateLimited, ModelNotFound))
async def start(request: web.Request) -> web.Response:
    """Start a job; its socket shows it step by step.

    The client's own ``session_id`` once more, while its job runs, is the same job.
    """
    gateway = gateway_of(request)
    body = await read_body(request, wire.decode_new_job)
    check_text(body.topic, gateway.settings, path="$.topic")
    check_text(body.query, gateway.settings, path="$.query")
    command = wire.create_job(body, request[USER].id, gateway.pipelines, gateway.settings)
    job = (await start_run(request, command)).job
    request[RUN_ID] = job.run.id
    return _json(wire.started(job.run.session_id))


@describe(answers={200: wire.PipelineList})
async def list_pipelines(request: web.Request) -> web.Response:
    """List the pipelines that there are."""
    return _json(wire.pipeline_list(gateway_of(request).pipelines))


@describe(answers={200: wire.Cancelling})
async def cancel(request: web.Request) -> web.Response:
    """Stop the job; one that has ended stays as it is."""
    gateway, user = gateway_of(request), request[USER].id
    session_id = require_id(request.match_info["session_id"], "job")
    job = (await gateway.store.ask(GetJob(user_id=user, session_id=session_id))).job
    if not isinstance(job.plan, PipelinePlan):
        raise not_found("job")
    request[RUN_ID] = job.run.id
    answer = await gateway.store.ask(CancelRun(user_id=user, run_id=job.run.id))
    over = answer.run.ended_at is not None
    message = f"The job is {answer.run.status}." if over else "The job is being cancelled."
    return _json(wire.Cancelling(message=message, session_id=session_id))


def _json(body: object) -> web.Response:
    return web.Response(body=wire.encode(body), content_type="application/json")
