"""The nouns that the store keeps and the other services show: sessions, messages, runs."""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from shared.events import (
    Continued,
    Fault,
    FileRef,
    ModelDetails,
    OnBusy,
    Plan,
    SessionStatus,
    StepResult,
    StopReason,
    Usage,
)

HIDDEN_MODES = ("adhoc", "document", "content", "file")
"""Of the sessions that calls without one make for themselves: listed only when asked for."""

Role = Literal["user", "assistant"]
MessageStatus = Literal["waiting", "completed", "failed", "cancelled"]
RunStatus = Literal["queued", "scheduled", "running", "completed", "failed", "cancelled"]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    title: str | None
    mode: str
    status: SessionStatus
    model: str | None
    temperature: float | None
    max_tokens: int | None
    system_prompt: str | None
    context_tags: list[str]
    on_busy: OnBusy
    enable_tools: bool
    client_ref: str | None
    message_count: int
    """Messages of the active branch, waiting ones included."""
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    session_id: str
    parent_id: str | None
    role: Role
    content: str
    tokens: int | None
    latency_ms: int | None
    created_at: datetime
    status: MessageStatus
    feedback: dict[str, str] | None
    attachments: list[str]
    model: str | None
    run_id: str | None
    stop_reason: StopReason | None = None
    """How a reply ended; null: it failed, was cancelled, or is none."""
    thoughts: str | None = None
    """What the model thought before it answered."""
    error: Fault | UnsetType = UNSET
    """Why a reply failed; only one that did has it."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    session_id: str
    status: RunStatus
    attempt: int
    """The sequence of the latest claim, 0 before the first."""
    sha256: str | None
    length: int | None
    usage: Usage | None
    error: Fault | None
    created_at: datetime
    ended_at: datetime | None
    user_message_id: str | None
    assistant_message_id: str | None
    """None for a run without a turn (a file job, a pipeline)."""
    first_seq: int
    """Where the run begins in the log."""
    last_seq: int
    """The run's latest fact as far as the projection has got: the chain's head."""
    cancelled: bool
    """A cancel is on the chain: whatever comes next ends the run."""
    stop_reason: StopReason | None = None
    continues: Continued | None = None
    """What the reply had that it goes on with, if that was there before."""


class JobStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a job as far as it has got."""

    name: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run with a plan, as its clients see it."""

    run: Run
    plan: Plan
    priority: int
    due: datetime | None
    steps: list[JobStep]
    results: list[StepResult]
    """What the finished steps left, without the extracted text of a file."""
    notes: list[str]
    text: str
    """The answer, once it has ended."""
    client_ref: str | None


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A named choice of model, system prompt and parameters."""

    id: str
    name: str
    description: str
    system_prompt: str | None
    model: str | None
    temperature: float | None
    max_tokens: int | None
    is_public: bool
    """Whether others see it and may use it; only its owner may change it."""
    owner: str
    """The id of the user who made it."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a provider offers, or offered once."""

    id: str
    """``provider/name``."""
    provider: str
    name: str
    display_name: str | None
    context_window: int | None
    max_tokens: int | None
    supports_tools: bool
    supports_vision: bool
    is_available: bool
    """Whether its provider named it when it could last be asked."""
    is_default: bool
    """Whether it is the asking user's default: what they chose, else the system's."""
    size: int
    modified_at: datetime
    """As the provider says, else when natterlog last heard something new of it."""
    digest: str | None
    details: ModelDetails | None


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may have tokens."""

    id: str
    name: str
    created_at: datetime
    disabled_at: datetime | None
    tokens: int
    """How many of them count, those that expired included."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A credential; what it is itself, nobody keeps."""

    id: str
    user: str
    """The name of the user."""
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one model has written for a user."""

    model: str | None
    replies: int
    """Runs that a model was asked for, however they ended."""
    tokens_in: int
    """Of the prompts, with what a provider's cache kept or knew of them."""
    tokens_out: int
    cost_usd: float | None
    """None where nobody knows a price; never 0 for that reason."""
    average_latency_ms: int | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has, and what it took; the tokens of deleted sessions stay counted."""

    sessions: int
    active_sessions: int
    messages: int
    """In those sessions, on every branch."""
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    average_latency_ms: int | None
    by_model: list[ModelStatistics]
    """The most asked one first."""


class StoredFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as the log holds it: its sequence, its subject, its JSON."""

    seq: int
    subject: str
    data: msgspec.Raw


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a user's, for messages to be attached to; ``id`` names it, and all that is its."""

    id: str
    ref: FileRef
    """The file itself: in FILES under ``<id>/<ref.id>``."""
    status: RunStatus
    """Of its reading: what is unfinished has no text yet, what failed never will."""
    error: Fault | None
    created_at: datetime


class UsageGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of models came to that have ``key`` in common."""

    key: str | None
    """The day (UTC), the model, the session, or how the replies ended; None: of deleted sessions,
    of no known model, of replies that failed or were cancelled."""
    calls: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cost: int | None
    """Billionths of a US dollar, of the priced calls; None when there is none."""
    unpriced_calls: int
    unpriced_tokens: int


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A message in which what was searched for stands."""

    session_id: str
    message_id: str
    snippet: str
    created_at: datetime
