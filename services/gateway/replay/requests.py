"""``?replay=<run>&speed=``: a recording over the stream or socket that showed it (docs/replay.md).

A request with ``replay`` starts nothing and changes nothing: whatever its method
and body, it is answered from the log, in the frames that were sent back then.
What answers it is declared with its route (``@describe(…, replay=…)``).
"""

from functools import wraps

from aiohttp import web

from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.http.describe import replay_of
from services.gateway.http.requests import not_found, require_id
from services.gateway.replay.recording import Recording, speed_of
from shared.commands import GetRun
from shared.errors import InvalidRequest, NotFound
from shared.recording import read_recording

PARAMETER = "replay"


def or_replayed(route: web.RouteDef) -> web.RouteDef:
    """The route as it is, but for requests that ask for a recording."""
    live, replay = route.handler, replay_of(route)
    if replay is None:
        return route

    @wraps(live)
    async def either(request: web.Request) -> web.StreamResponse:
        return await (replay if PARAMETER in request.query else live)(request)

    return web.RouteDef(route.method, route.path, either, route.kwargs)


def requested_speed(request: web.Request) -> float | None:
    """How fast the recording is to be shown.

    Raises:
        InvalidRequest: that is no speed.
    """
    return speed_of(request.query.get("speed", "1"))


async def requested_recording(request: web.Request) -> Recording:
    """What the request names: a run of its user's, or a session.

    Raises:
        NotFound: the user has neither.
    """
    gateway, user = gateway_of(request), request[USER].id
    named = require_id(request.query[PARAMETER], "run")
    try:
        run = (await gateway.store.ask(GetRun(user_id=user, run_id=named))).run
    except NotFound:
        session_id, run_id = named, None
    else:
        session_id, run_id = run.session_id, run.id
        request[RUN_ID] = run.id
    try:
        links = await read_recording(gateway.bus, gateway.store, user, session_id)
    except NotFound as error:
        raise not_found("run") from error
    return Recording(user, session_id, links, run_id)


async def requested_reply(request: web.Request) -> Recording:
    """The recording of one reply that has ended.

    Raises:
        NotFound: the user has no such run, or it is a job.
        InvalidRequest: a session is named.
        Conflict: the run goes on.
    """
    recording = await requested_recording(request)
    if recording.run_id is None:
        raise InvalidRequest("This stream shows one run: name a run.", path="$.replay")
    if recording.is_job or request.match_info.get("run_id") not in (None, recording.run_id):
        raise not_found("run")
    recording.need_end()
    return recording


async def requested_conversation(request: web.Request) -> Recording:
    """The recording of a session's replies, or of one of them.

    Raises:
        NotFound: there is none, or it is a job.
    """
    recording = await requested_recording(request)
    if recording.is_job:
        raise not_found("run")
    return recording
