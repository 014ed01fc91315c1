"""The wire of the content front ends (docs/api.md, docs/pipelines.md)."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from services.gateway.access.limits import NonBlank
from services.gateway.jobs.state import NOTHING, JobState
from shared.commands import CreateJob
from shared.errors import InvalidRequest, NatterlogError
from shared.events import PipelinePlan
from shared.ids import new_id
from shared.pipelines import Pipeline
from shared.settings import Settings

PREFIX = "/chat"
SOCKETS = "/ws/chat"
SOCKET = SOCKETS + "/{session_id}"
MODE = "content"
PIPELINE = "content"
"""The pipeline of a request that names none."""
PLATFORMS = {name.lower(): name for name in ("Instagram", "Twitter", "TikTok", "Facebook")}
FAILED = "The job failed."
CANCELLED = "The job was cancelled."

encode = msgspec.json.Encoder().encode


# -- what clients send ----------------------------------------------------------


Platform = Annotated[str, Meta(extra_json_schema={"enum": list(PLATFORMS.values())})]
"""In any case: small or capital letters are the same."""
Reference = Annotated[str, Meta(max_length=200)]


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    topic: NonBlank
    query: NonBlank
    platform: Platform
    session_id: Reference | None = None
    """The client's own reference."""
    pipeline: str | None = None


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    stream: bool = False
    """Tell each step's text while it is written, as `chunk` and `reset`."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Stop the job."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ping"):
    """Ask for a `pong`."""


ClientMessage = Cancel | Ping
decode_new_job = msgspec.json.Decoder(NewJob).decode
decode_message = msgspec.json.Decoder(ClientMessage).decode


def create_job(
    body: NewJob, user: str, pipelines: Mapping[str, Pipeline], settings: Settings
) -> CreateJob:
    """The command that accepts a job.

    Raises:
        InvalidRequest: the platform or the pipeline is not one of those that there are.
    """
    platform = PLATFORMS.get(body.platform.strip().lower())
    if platform is None:
        raise InvalidRequest(f"Expected one of {', '.join(PLATFORMS.values())}.", path="$.platform")
    pipeline = pipelines.get(body.pipeline or PIPELINE)
    if pipeline is None:
        raise InvalidRequest(f"Expected one of {', '.join(pipelines)}.", path="$.pipeline")
    inputs = {"topic": body.topic, "query": body.query, "platform": platform}
    if unknown := set(pipeline.inputs) - set(inputs):
        raise InvalidRequest(
            f"This pipeline needs {', '.join(sorted(unknown))}, which cannot be given here.",
            path="$.pipeline",
        )
    return CreateJob(
        user_id=user,
        session_id=new_id(),
        run_id=new_id(),
        plan=PipelinePlan(pipeline=pipeline.name, steps=pipeline.steps, inputs=inputs),
        mode=MODE,
        temperature=settings.llm_temperature,
        max_tokens=settings.llm_max_tokens,
        client_ref=body.session_id or None,
    )


# -- what clients are sent --------------------------------------------------------


class Started(msgspec.Struct, frozen=True, kw_only=True):
    message: str = "Job started successfully..."
    session_id: str
    websocket_url: str


class Cancelling(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    session_id: str


class PipelineView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    title: str
    steps: list[str]


class PipelineList(msgspec.Struct, frozen=True, kw_only=True):
    pipelines: list[PipelineView]


def started(session_id: str) -> Started:
    return Started(session_id=session_id, websocket_url=f"{SOCKETS}/{session_id}")


def pipeline_list(pipelines: Mapping[str, Pipeline]) -> PipelineList:
    views = [
        PipelineView(name=p.name, title=p.title, steps=[step.name for step in p.steps])
        for p in pipelines.values()
    ]
    return PipelineList(pipelines=views)


# -- the socket's frames ------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message of the socket: the contract's fields, and no others."""


class Progress(Frame, frozen=True, kw_only=True, tag="progress"):
    """A step is done; each is told once, in order."""

    step: str
    message: str


class Chunk(Frame, frozen=True, kw_only=True, tag="chunk"):
    """What is new of a step's answer; only with `?stream=1`."""

    step: str
    content: str


class Reset(Frame, frozen=True, kw_only=True, tag="reset"):
    """Forget the step's chunks: it starts over."""

    step: str


class Result(Frame, frozen=True, kw_only=True, tag="result"):
    """The end: what the steps made.  After it the socket is closed."""

    session_id: str
    response_text: str
    strategy: Any
    compliance: Any


class Failed(Frame, frozen=True, kw_only=True, tag="error"):
    """The job failed; after it the socket is closed."""

    message: str
    code: str
    step: str


class Refused(Frame, frozen=True, kw_only=True, tag="error"):
    """What the client sent was refused; the socket stays open."""

    message: str
    code: str
    retry_after: float | UnsetType = UNSET


class Pong(Frame, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `ping`."""


class Shown:
    """How far one client has been shown the job."""

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming
        self.steps = 0
        self.attempt = 0
        self.offset = 0
        self.ended = False


def frames_of(job: JobState, shown: Shown) -> list[Frame]:
    """What is new of the job to a client that has seen ``shown``, which goes along."""
    frames: list[Frame] = []
    for done in job.done[shown.steps :]:
        frames += _chunks(done.step, done.attempt, done.text, shown)
        frames.append(Progress(step=done.step, message=f"Completed step: {done.step}"))
        shown.steps += 1
        shown.attempt = shown.offset = 0
    if job.ending is None:
        frames += _chunks(job.step, job.written.attempt, job.written.text, shown)
    elif not shown.ended:
        shown.ended = True
        frames.append(_end(job))
    return frames


def _chunks(step: str, attempt: int, text: str, shown: Shown) -> list[Frame]:
    if not shown.streaming:
        return []
    frames: list[Frame] = []
    if shown.offset and (attempt != shown.attempt or shown.offset > len(text)):
        frames.append(Reset(step=step))
        shown.attempt, shown.offset = NOTHING.attempt, 0
    if len(text) > shown.offset:
        frames.append(Chunk(step=step, content=text[shown.offset :]))
        shown.attempt, shown.offset = attempt, len(text)
    return frames


def _end(job: JobState) -> Frame:
    if job.status == "completed":
        return _result(job)
    fault = job.ending.error if job.ending else None
    if job.status == "cancelled":
        return Failed(message=CANCELLED, code="cancelled", step=job.step)
    return Failed(
        message=fault.message if fault else FAILED,
        code=fault.code if fault else "internal",
        step=job.step,
    )


def _result(job: JobState) -> Result:
    left = {done.step: done.text for done in job.done}
    return Result(
        session_id=job.session_id,
        response_text=left.get("content_generation", job.written.text),
        strategy=_json(left.get("keywords")),
        compliance=_json(left.get("compliance_check")),
    )


def _json(text: str | None) -> Any:
    """A step's answer as JSON; null where a pipeline has no such step."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def refused(error: NatterlogError) -> Refused:
    return Refused(
        message=error.located,
        code=error.code,
        retry_after=UNSET if error.retry_after is None else error.retry_after,
    )


# -- errors -----------------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    error: str
    code: str


def failure(error: NatterlogError) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer for ``error``."""
    body = encode(Failure(error=error.located, code=error.code))
    return body, {"Content-Type": "application/json"}
