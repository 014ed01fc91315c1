"""The interview front ends over HTTP: ``/api/generate/`` and ``/api/models/``."""

from aiohttp import web

from services.gateway.access.limits import check_text
from services.gateway.context import USER, gateway_of
from services.gateway.dialects.interview import replay, wire
from services.gateway.http.describe import IDEMPOTENCY_KEY, REPLYING, Events, describe
from services.gateway.http.oneshot import one_shot_run, stream_reply, whole_reply
from services.gateway.http.requests import read_body, require_id
from shared.errors import NotFound


def routes() -> list[web.RouteDef]:
    return [
        web.get(wire.MODELS, list_models),
        web.post(f"{wire.GENERATE}/", generate),
        web.post(wire.GENERATE, generate_without_slash),
    ]


@describe(
    body=wire.Generate,
    answers={200: (Events((wire.Piece, wire.Last, wire.Broken)), wire.Last)},
    headers=(IDEMPOTENCY_KEY,),
    errors=REPLYING,
    replay=replay.generate,
)
async def generate(request: web.Request) -> web.StreamResponse:
    """Answer a prompt.

    As a stream of pieces, unless ``stream`` is false.  Without a session, closing the
    connection stops the reply; within one it goes on.  The key counts within sessions.
    """
    gateway = gateway_of(request)
    wish = await read_body(request, wire.decode_generate)
    body = wish.body
    check_text(body.prompt, gateway.settings, path="$.prompt")
    if body.session_id is not None:
        require_id(body.session_id, "session")
    prompt = wire.prompt_of(wish, gateway.settings, request.headers.get("Idempotency-Key"))
    async with one_shot_run(request, prompt) as run:
        model = body.model or run.session.model or "default"
        accepted_at = run.accepted.run.created_at
        if body.stream is not False:
            return await stream_reply(request, run, wire.SseLines(model, accepted_at))
        reply = await whole_reply(run)
    answer = wire.last(model, accepted_at, reply.final, response=reply.final.text)
    return web.Response(body=wire.encode(answer), content_type="application/json")


@describe(
    body=wire.Generate,
    answers={200: (Events((wire.Piece, wire.Last, wire.Broken)), wire.Last)},
    headers=(IDEMPOTENCY_KEY,),
    errors=REPLYING,
    replay=replay.generate,
)
async def generate_without_slash(request: web.Request) -> web.StreamResponse:
    """Answer a prompt, for whoever accepts server-sent events.

    For all others this is the place of Ollama's own API, which is not there yet.
    """
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await generate(request)
    raise NotFound(
        "Ollama's own API is not there yet. Ask /api/generate/ (with the slash), or accept "
        "text/event-stream."
    )


@describe(answers={200: wire.ModelList})
async def list_models(request: web.Request) -> web.Response:
    """List the models on offer."""
    known = await gateway_of(request).models.known(request[USER].id)
    shown = wire.model_list([model for model in known if model.is_available])
    return web.Response(body=wire.encode(shown), content_type="application/json")
