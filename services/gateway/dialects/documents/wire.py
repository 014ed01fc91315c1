"""The wire of the document front ends (docs/api.md, docs/files.md)."""

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from services.gateway.access.limits import NonBlank
from services.gateway.http.requests import Count
from services.gateway.jobs.state import NOTHING, JobState, Written
from shared.commands import CreateJob
from shared.due import check_due
from shared.errors import InvalidRequest, NatterlogError
from shared.events import DocumentPlan, FileRef
from shared.ids import now
from shared.records import Job, JobStep, RunStatus
from shared.settings import Settings

UPLOAD = "/api/upload"
JOBS = "/api/jobs"
SOCKET = "/ws"
MODE = "document"
MAX_TOKENS = 1024
FIELDS = {"prompt": 1024 * 1024, "priority": 100, "scheduled_at": 100}
"""The form's fields beside the file, and how many bytes each may have."""
MOST_NAMED = 1000
"""Jobs that one client may name at a time."""

Status = Literal["scheduled", "pending", "processing", "completed", "failed", "cancelled"]

STATUSES: dict[RunStatus, Status] = {
    "scheduled": "scheduled",
    "queued": "pending",
    "running": "processing",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
FAILED = "The job failed."
CANCELLED = "The job was cancelled."

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


# -- what clients send ----------------------------------------------------------

File = Annotated[
    str,
    Meta(extra_json_schema={"format": "binary", "contentMediaType": "application/octet-stream"}),
]
Time = Annotated[
    str,
    Meta(
        extra_json_schema={"anyOf": [{"type": "string", "format": "date-time"}, {"maxLength": 0}]}
    ),
]


class UploadForm(msgspec.Struct, frozen=True, kw_only=True):
    """The form of an upload, its fields in any order."""

    file: File
    """With a file name. PDF, pictures, CSV, Markdown, plain text."""
    prompt: NonBlank
    """What is asked about it."""
    priority: Annotated[int, Meta(ge=0, le=9)] = 0
    """Higher first."""
    scheduled_at: Time = ""
    """Not before this time, 2262-04-11 at the latest; UTC where it names no zone, the past means
    now."""


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True):
    status: Status | Literal[""] = ""
    limit: Count = 50
    """How many; 200 at most."""
    cursor: str = ""
    """The `next_cursor` of the page before."""


def create_job(
    fields: dict[str, str],
    file: FileRef,
    *,
    user: str,
    session_id: str,
    run_id: str,
    settings: Settings,
) -> CreateJob:
    """The command that accepts a job.

    Raises:
        InvalidRequest: a field is missing or cannot be read.
    """
    return CreateJob(
        user_id=user,
        session_id=session_id,
        run_id=run_id,
        plan=DocumentPlan(file=file, prompt=_prompt(fields)),
        mode=MODE,
        temperature=settings.llm_temperature,
        max_tokens=settings.llm_max_tokens or MAX_TOKENS,
        priority=_priority(fields.get("priority", "")),
        due=_due(fields.get("scheduled_at", "")),
    )


def _prompt(fields: dict[str, str]) -> str:
    prompt = fields.get("prompt")
    if prompt is None:
        raise InvalidRequest("This field is required.", path="$.prompt")
    if not prompt.strip():
        raise InvalidRequest("The prompt is empty.", path="$.prompt")
    return prompt


def _priority(text: str) -> int:
    text = text.strip()
    if not text:
        return 0
    if not (len(text) == 1 and text.isascii() and text.isdigit()):
        raise InvalidRequest("Expected a whole number from 0 to 9.", path="$.priority")
    return int(text)


def _due(text: str) -> datetime | None:
    """The time in UTC; None for now, which the past is too."""
    text = text.strip()
    if not text:
        return None
    path = "$.scheduled_at"
    try:
        due = datetime.fromisoformat(text)
    except ValueError as error:
        sentence = "Expected a time in ISO 8601, as 2026-11-20T09:00:00Z."
        raise InvalidRequest(sentence, path=path) from error
    due = due.replace(tzinfo=UTC) if due.tzinfo is None else due
    check_due(due, path=path)
    return due.astimezone(UTC) if due > now() else None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe"):
    """Show only these jobs from now on, however long ago they ended; none: all again."""

    job_ids: Annotated[list[str], Meta(max_length=MOST_NAMED)]


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Stop a job, in whatever state it is."""

    job_id: str


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ping"):
    """Ask for a `pong`."""


ClientMessage = Subscribe | Cancel | Ping
decode_message = msgspec.json.Decoder(ClientMessage).decode


# -- what clients are sent --------------------------------------------------------


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    notes: list[str]
    """What was cut or could not be read."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    status: Status
    progress: int
    file_name: str
    created_at: datetime
    completed_at: datetime | None
    ai_response: str | None
    steps: list[StepView]
    error: str | None


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    status: Status
    progress: int = 0
    message: str = "File uploaded successfully"


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[JobView]
    next_cursor: str | None


class Success(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    success: bool = True
    data: T


def uploaded(job: Job) -> Uploaded:
    return Uploaded(job_id=job.run.id, status=STATUSES[job.run.status])


def job_view(job: Job, plan: DocumentPlan, progress: int) -> JobView:
    run = job.run
    ended = run.ended_at is not None
    return JobView(
        job_id=run.id,
        status=STATUSES[run.status],
        progress=progress,
        file_name=plan.file.name,
        created_at=run.created_at,
        completed_at=run.ended_at,
        ai_response=job.text if ended and (job.text or run.status == "completed") else None,
        steps=[_step_view(step, job) for step in job.steps],
        error=_sentence(run.status, run.error.message if run.error else None),
    )


def _step_view(step: JobStep, job: Job) -> StepView:
    notes = [note for r in job.results if r.step == step.name for note in r.notes]
    return StepView(
        name=step.name,
        status=step.status,
        started_at=step.started_at,
        ended_at=step.ended_at,
        notes=notes,
    )


def _sentence(status: RunStatus, message: str | None) -> str | None:
    if status == "failed":
        return message or FAILED
    return CANCELLED if status == "cancelled" else None


# -- the socket's frames ------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message of the socket: the contract's fields, and no others."""


class JobUpdate(Frame, frozen=True, kw_only=True, tag="job_update"):
    """How far a job has got."""

    job_id: str
    progress: int
    step: str
    status: Status


class AiChunk(Frame, frozen=True, kw_only=True, tag="ai_chunk"):
    """What is new of an answer, and all of it so far; both empty: it starts over."""

    job_id: str
    chunk: str
    partial: str


class JobCompleted(Frame, frozen=True, kw_only=True, tag="job_completed"):
    """A job has ended well."""

    job_id: str
    ai_response: str


class JobFailed(Frame, frozen=True, kw_only=True, tag="job_failed"):
    """A job has failed, or was cancelled (code `cancelled`)."""

    job_id: str
    error: str
    code: str


class Pong(Frame, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `ping`."""


class Refused(Frame, frozen=True, kw_only=True, tag="error"):
    """What the client sent was refused; the socket stays open."""

    message: str
    code: str
    retry_after: float | UnsetType = UNSET


class Shown:
    """How far one client has been shown one job."""

    def __init__(self) -> None:
        self.update: JobUpdate | None = None
        self.attempt = 0
        self.offset = 0
        self.ended = False


def frames_of(job: JobState, shown: Shown) -> list[Frame]:
    """What is new of the job to a client that has seen ``shown``, which goes along."""
    if shown.ended:
        return []
    frames: list[Frame] = []
    update = JobUpdate(
        job_id=job.run_id,
        progress=job.progress,
        step=job.step,
        status=STATUSES[job.status],
    )
    if update != shown.update:
        shown.update = update
        frames.append(update)
    frames += _chunks(job.run_id, job.written, shown)
    if job.ending is not None:
        shown.ended = True
        frames.append(_end(job))
    return frames


def _chunks(job_id: str, written: Written, shown: Shown) -> list[Frame]:
    """The text since; put together after the last empty one, chunks are always the partial."""
    frames: list[Frame] = []
    void = written.attempt != shown.attempt or shown.offset > len(written.text)
    if shown.offset and void:
        frames.append(AiChunk(job_id=job_id, chunk="", partial=""))
        shown.attempt, shown.offset = NOTHING.attempt, 0
    if len(written.text) > shown.offset:
        chunk = written.text[shown.offset :]
        frames.append(AiChunk(job_id=job_id, chunk=chunk, partial=written.text))
        shown.attempt, shown.offset = written.attempt, len(written.text)
    return frames


def _end(job: JobState) -> Frame:
    text = job.written.text
    if job.status == "completed":
        return JobCompleted(job_id=job.run_id, ai_response=text)
    fault = job.ending.error if job.ending else None
    if job.status == "cancelled":
        return JobFailed(job_id=job.run_id, error=CANCELLED, code="cancelled")
    return JobFailed(
        job_id=job.run_id,
        error=fault.message if fault else FAILED,
        code=fault.code if fault else "internal",
    )


def refused(error: NatterlogError) -> Refused:
    return Refused(
        message=error.located,
        code=error.code,
        retry_after=UNSET if error.retry_after is None else error.retry_after,
    )


# -- errors -----------------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    success: bool = False
    error: str
    code: str


def failure(error: NatterlogError) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer for ``error``."""
    body = encode(Failure(error=error.located, code=error.code))
    return body, {"Content-Type": "application/json"}
