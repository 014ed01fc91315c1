"""Requests of operators about everybody's runs and sessions: ``cmd.store.find_…``.

Like the other requests of operators (:mod:`shared.operating`) they name no owner: who
has one run that went wrong at 3 a.m. has its id, and not its user's.  No gateway
knows this module.
"""

from datetime import datetime

import msgspec

from shared.commands import Facts
from shared.events import Fault, StopReason, Usage
from shared.operating import Operation
from shared.records import RunStatus, Session


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as operators see it in a list."""

    id: str
    session_id: str
    user_id: str
    kind: str
    """chat, document, or the pipeline's name."""
    status: RunStatus
    waiting: bool
    cancelled: bool
    attempt: int
    worker: str | None
    provider: str | None
    model: str | None
    length: int | None
    stop_reason: StopReason | None = None
    usage: Usage | None
    error: Fault | None
    called: bool
    """Whether it has ended and a model was called for it."""
    cost: int | None
    """Billionths of a US dollar; None: no model was called, or it has no known price."""
    restarts: int
    """Attempts that were lost, so that another one began anew."""
    latency_ms: int | None
    """From the last claim to the end."""
    first_delta_ms: int | None
    """From the last claim to its first text."""
    first_word_at: datetime | None
    """When the first text came, be it of an attempt that was lost."""
    created_at: datetime
    ended_at: datetime | None
    first_seq: int
    last_seq: int


class FoundRuns(msgspec.Struct, frozen=True, kw_only=True):
    items: list[FoundRun]
    seq: int


class FoundSession(msgspec.Struct, frozen=True, kw_only=True):
    session: Session
    runs: int
    unfinished: int
    importing: bool
    """Brought here by an import that is not complete, so that its user does not see it yet."""
    last_seq: int


class FoundSessions(msgspec.Struct, frozen=True, kw_only=True):
    items: list[FoundSession]
    seq: int


class FindRuns(Operation[FoundRuns], frozen=True, kw_only=True):
    """Runs, the one accepted last first.  What is None does not matter.

    ``user``, ``session`` and ``prefix`` (of the run's id) are beginnings; ``error`` is
    a code, and empty for any; ``message`` is one that the run answered or wrote, whole.
    ``restarted`` runs lost an attempt.
    ``since`` and ``until`` are about the acceptance, ``before`` is when a page's last run
    was accepted, and its first fact, for the page that follows.
    """

    prefix: str = ""
    user: str | None = None
    session: str | None = None
    state: RunStatus | None = None
    model: str | None = None
    error: str | None = None
    message: str | None = None
    restarted: bool = False
    since: datetime | None = None
    until: datetime | None = None
    before: tuple[datetime, int] | None = None
    limit: int = 50


class FindSessions(Operation[FoundSessions], frozen=True, kw_only=True):
    """Sessions, the one last written to first.

    Filters work as for :class:`FindRuns`; times are about the last change.
    """

    prefix: str = ""
    user: str | None = None
    model: str | None = None
    mode: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    follows: str | None = None
    """Those with a greater id, in the order of their ids, which no change changes."""
    limit: int = 50


class ReadFacts(Operation[Facts], frozen=True, kw_only=True):
    """A session's facts after ``after``, whole, from the cold log.

    As many as fit into a few megabytes; what follows is read by the next request.
    """

    session_id: str
    after: int = 0
    limit: int = 1000
