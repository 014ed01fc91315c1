"""Requests to the store, each with its answer: the subjects ``cmd.store.<name>``.

Commands are imperative and change something by appending facts; queries read
the projection.  Every request names its user: what is not that user's is not
there (:class:`shared.errors.NotFound`).  Every query may carry ``min_seq``: the
answer waits until the projection has applied that fact.  Every answer that
follows from the log names ``seq``, the last fact that it takes into account.
"""

from datetime import datetime
from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from shared.events import (
    Continued,
    Fault,
    FileRef,
    Int64,
    OfferedModel,
    OnBusy,
    Plan,
    Rating,
    SessionStatus,
    Thoughts,
    Turn,
)
from shared.records import (
    Hit,
    Job,
    Message,
    Model,
    Preset,
    Role,
    Run,
    RunStatus,
    Session,
    Statistics,
    StoredFact,
    StoredFile,
    UsageGroup,
)
from shared.requests import Answer, BusRequest

# -- answers -----------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, kw_only=True):
    seq: int


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    session: Session
    seq: int


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Session]
    next: int | None
    """Where the next page goes on, though this one's sessions be written to or erased by then."""
    total: int
    seq: int


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Message]
    total: int
    seq: int


class MessageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    message: Message
    seq: int


class HitPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Hit]
    next: str | None
    total: int
    seq: int


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """``messages`` are those of all branches, each after its parent; ``branch`` is the active one.

    What waits, or was cancelled before its turn came, is in no branch.
    """

    session: Session
    messages: list[Message]
    branch: list[str]
    files: list[StoredFile]
    """Those that messages refer to, as far as they are there."""
    seq: int


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    file: StoredFile
    seq: int


class UsagePage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[UsageGroup]
    whole: UsageGroup
    """All of the groups together."""
    total: int
    """How many groups there are."""
    seq: int


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    seq: int


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    job: Job
    seq: int


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Job]
    next_before: str | None
    seq: int


class PresetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    preset: Preset
    seq: int


class PresetPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Preset]
    total: int
    seq: int


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Model]
    seq: int


class ModelsNoted(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of the models that are on offer since, and of those that no longer are."""

    added: list[str]
    removed: list[str]
    seq: int


class StatisticsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    statistics: Statistics
    seq: int


class RunStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A run is in the log."""

    repeated: bool = False
    """Another request began it (by its idempotency key or reference), and was counted then."""


class Accepted(RunStarted, frozen=True, kw_only=True):
    """A turn's run is in the log."""

    run: Run
    user_message: Message
    assistant_message_id: str
    seq: int


class JobAccepted(RunStarted, frozen=True, kw_only=True):
    """A job's run is in the log."""

    job: Job
    seq: int


Started = TypeVar("Started", bound=RunStarted)


class ContextFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that goes with a message, as far as it was read."""

    id: str
    """Under it lies in FILES whatever is the file's."""
    ref: FileRef
    is_read: bool
    error: Fault | None = None
    """Why it could not be read."""
    text: FileRef | None = None
    """What was read of it, as a file of its own."""
    images: list[FileRef] = []
    """What a model that can see is shown."""
    notes: list[str] = []


class ContextMessage(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    role: Role
    content: str
    files: list[ContextFile] = []
    missing_files: int = 0
    """Attachments that are not there any more."""
    thoughts: Thoughts | None = None
    """What a reply's model thought; ``provider`` and ``model`` wrote it, nobody else wants it."""
    provider: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    """How a reply ended, as for :class:`shared.events.RunEnded`."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A reply's prompt; the turn's own values win over the session's."""

    messages: list[ContextMessage]
    system_prompt: str | None
    model: str | None
    temperature: float | None
    max_tokens: Int64 | None
    seq: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """``upto`` is how far the archive has got: nothing up to there is missing from it."""

    facts: list[StoredFact]
    upto: int


class UnfinishedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a feed must show: ``attempt`` is its latest claim, 0 before the first."""

    run_id: str
    user_message: Message
    assistant_message_id: str
    attempt: int
    waiting: bool
    continues: Continued | None = None


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    session: Session
    unfinished: list[UnfinishedRun]
    """In the order in which they will run; only the first can be active."""
    seq: int


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a credential is, and until when."""

    user_id: str
    token_id: str
    sha256: str
    expires_at: datetime | None


class TokenCheck(msgspec.Struct, frozen=True, kw_only=True):
    """``made``: whether any token was ever made; before that nobody needs one."""

    holder: Holder | None
    made: bool
    seq: int


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    facts: int
    seq: int


# -- requests --------------------------------------------------------


class Request(BusRequest[Answer], frozen=True, kw_only=True):
    """A request to the store, on behalf of a user."""

    user_id: str
    min_seq: int = 0


class StartsRun(Request[Started], frozen=True, kw_only=True):
    """A command that begins a run: gateways count each, so it has a way of its own to the store."""

    run_id: str = ""
    """The client makes it, so that sending once more cannot begin a second; empty: the store."""


# -- commands ----------------------------------------------------------------


class CreateSession(Request[SessionAnswer], frozen=True, kw_only=True):
    """Open a session.

    The client makes the id, so that sending once more cannot open a second one.
    Without a ``model`` it gets the user's default, else the settings'.
    """

    session_id: str
    title: str | None = None
    mode: str = "general"
    model: str | None = None
    temperature: float | None = None
    max_tokens: Int64 | None = None
    system_prompt: str | None = None
    context_tags: list[str] = []
    on_busy: OnBusy = "queue"
    enable_tools: bool = False
    client_ref: str | None = None
    history_file: str | None = None
    """The object in FILES that holds the :class:`shared.events.History` it begins with."""


class UpdateSession(Request[SessionAnswer], frozen=True, kw_only=True):
    """Change the fields of a session that are set."""

    session_id: str
    title: str | UnsetType | None = UNSET
    status: SessionStatus | UnsetType = UNSET
    model: str | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    max_tokens: Int64 | UnsetType | None = UNSET
    system_prompt: str | UnsetType | None = UNSET
    context_tags: list[str] | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET
    enable_tools: bool | UnsetType = UNSET


class DeleteSession(Request[Done], frozen=True, kw_only=True):
    """Erase a session and every word of it."""

    session_id: str


class SendMessage(StartsRun[Accepted], frozen=True, kw_only=True):
    """Append a user message and ask for its reply.

    The same ``idempotency_key`` with the same body gives the same turn again; with
    another body it is refused (:class:`shared.errors.KeyReused`).  A turn that failed
    in passing is answered anew.
    """

    session_id: str
    content: str
    attachments: list[str] = []
    model: str | None = None
    temperature: float | None = None
    max_tokens: Int64 | None = None
    client_id: str | None = None
    idempotency_key: str | None = None
    system: str | None = None
    notes: list[str] = []
    context: str | None = None
    """A message of the user's, of any session: the branch that ends in it is the prompt."""


class EditMessage(StartsRun[Accepted], frozen=True, kw_only=True):
    """Say a user message in another way, as a sibling branch with a reply.

    ``attachments`` None: those of the message.  The key works as for :class:`SendMessage`.
    """

    message_id: str
    content: str
    attachments: list[str] | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: Int64 | None = None
    idempotency_key: str | None = None


class ForkSession(Request[SessionAnswer], frozen=True, kw_only=True):
    """Open a session that begins with another's branch up to a message.

    The client makes the new session's id, so that sending once more cannot open a second one.
    """

    session_id: str
    message_id: str
    new_session_id: str


class ChooseBranch(Request[SessionAnswer], frozen=True, kw_only=True):
    """Make the branch through a message the active one.

    It ends in the newest message that follows from that one.  Refused while a
    reply is being written, or a message waits (:class:`shared.errors.Conflict`).
    """

    session_id: str
    message_id: str


class RateMessage(Request[MessageAnswer], frozen=True, kw_only=True):
    """Say what a reply is worth; ``rating`` None takes it back."""

    message_id: str
    rating: Rating | None
    comment: str | None = None


class Regenerate(StartsRun[Accepted], frozen=True, kw_only=True):
    """Answer a user message once more, as a sibling branch.

    ``message_id`` is the reply to replace, or the message to answer; the last
    of the active branch when None.  ``session_id`` None: the message's own.  The
    key works as for :class:`SendMessage`.
    """

    session_id: str | None = None
    message_id: str | None = None
    idempotency_key: str | None = None


class ContinueReply(StartsRun[Accepted], frozen=True, kw_only=True):
    """Have a reply go on that was cut at a limit, or cancelled.

    Its message grows: the run's text is the whole of it.  It must be the last of its
    branch (:class:`shared.errors.Conflict`).  The key works as for :class:`SendMessage`.
    """

    message_id: str
    idempotency_key: str | None = None


class CancelRun(Request[RunAnswer], frozen=True, kw_only=True):
    """Stop a run in whatever state it is.

    Cancelling an ended run changes nothing and answers as it is.
    """

    run_id: str


class CreateJob(StartsRun[JobAccepted], frozen=True, kw_only=True):
    """Open a session of its own for a job and accept it.

    The gateway makes the ids, so that sending twice is harmless; a file lies in
    FILES under ``<session_id>/<file id>`` already.  A ``due`` in the past means now.
    With a ``client_ref`` an unfinished job of the same user and reference is
    answered instead of a new one.
    """

    session_id: str
    plan: Plan
    mode: str
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    priority: int = 0
    due: datetime | None = None
    client_ref: str | None = None


class CreatePreset(Request[PresetAnswer], frozen=True, kw_only=True):
    """Keep a preset.

    The client makes the id, so that sending once more cannot make a second one.
    """

    preset_id: str
    title: str
    description: str = ""
    system_prompt: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: Int64 | None = None
    is_public: bool = False


class UpdatePreset(Request[PresetAnswer], frozen=True, kw_only=True):
    """Change the fields of a preset that are set.

    What another user shares may be used by all and changed by nobody else
    (:class:`shared.errors.Forbidden`).
    """

    preset_id: str
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    system_prompt: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    max_tokens: Int64 | UnsetType | None = UNSET
    is_public: bool | UnsetType = UNSET


class DeletePreset(Request[Done], frozen=True, kw_only=True):
    """Forget a preset of one's own."""

    preset_id: str


class SyncModels(Request[ModelsNoted], frozen=True, kw_only=True):
    """Note what the providers offer now; what is known is no news.

    ``unavailable`` names the providers that could not be asked: theirs stay as they
    are.  All others that are not among ``models`` are no longer on offer.
    """

    models: list[OfferedModel]
    unavailable: list[str]
    default: str | None
    """The id of the system's default model, if that could be found out."""


class PreferModel(Request[Done], frozen=True, kw_only=True):
    """Choose the model of sessions that name none; None: the system's again."""

    model: str | None


class Rebuild(Request[Rebuilt], frozen=True, kw_only=True):
    """Drop the projection and replay the log into it.  For operators only."""


# -- queries -----------------------------------------------------------------


class GetSession(Request[SessionAnswer], frozen=True, kw_only=True):
    """A session; with ``at`` as it was when that was the last fact."""

    session_id: str
    at: int | None = None


class ListSessions(Request[SessionPage], frozen=True, kw_only=True):
    """The user's sessions, the one last written to first.

    ``modes`` None leaves out what calls without a session made for themselves
    (adhoc, document, content).  ``before`` is the ``next`` of the page before;
    ``offset`` skips instead.
    """

    query: str | None = None
    status: SessionStatus | None = "active"
    modes: list[str] | None = None
    limit: int = 50
    before: int | None = None
    offset: int = 0


class ListMessages(Request[MessagePage], frozen=True, kw_only=True):
    """The active branch, waiting messages at its end.

    With ``all_branches`` every message of the session, in the order of the tree's depth.
    With ``at`` as it was when that was the last fact.
    """

    session_id: str
    limit: int = 50
    offset: int = 0
    descending: bool = False
    all_branches: bool = False
    at: int | None = None


class SearchMessages(Request[HitPage], frozen=True, kw_only=True):
    """The user's messages that contain every word of ``query``, newest first.

    ``before`` is the last message of the page before; ``offset`` skips instead.
    """

    query: str
    limit: int = 50
    before: str | None = None
    offset: int = 0


class GetMessage(Request[MessageAnswer], frozen=True, kw_only=True):
    """A message of any branch; with ``at`` as for a session.

    A user's message in a branch never changes any more.
    """

    session_id: str
    message_id: str
    at: int | None = None


class ExportSession(Request[Export], frozen=True, kw_only=True):
    """A session with all of its messages and files."""

    session_id: str


class GetFile(Request[FileAnswer], frozen=True, kw_only=True):
    """A file of the user's."""

    file_id: str


class GetUsage(Request[UsagePage], frozen=True, kw_only=True):
    """What the user's calls of models came to, in groups.

    ``since`` and ``until`` bound the calls' ends, the latter excluded.
    """

    group_by: Literal["day", "model", "session", "stop_reason"] = "day"
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    offset: int = 0


class GetRun(Request[RunAnswer], frozen=True, kw_only=True):
    """A run in whatever state it is."""

    run_id: str


class GetJob(Request[JobAnswer], frozen=True, kw_only=True):
    """A job by its run's id or, for content, its session's."""

    run_id: str | None = None
    session_id: str | None = None


class ListJobs(Request[JobPage], frozen=True, kw_only=True):
    """The user's jobs, newest first.

    ``mode`` None: all but the readings of files for messages.  ``ended_after`` leaves
    out those that ended before (unfinished ones stay).
    """

    mode: str | None = "document"
    status: RunStatus | None = None
    ended_after: datetime | None = None
    limit: int = 50
    before: str | None = None


class GetPreset(Request[PresetAnswer], frozen=True, kw_only=True):
    """A preset of one's own, or one that is shared."""

    preset_id: str


class ListPresets(Request[PresetPage], frozen=True, kw_only=True):
    """The user's own presets and those that others share, by name."""

    limit: int = 50
    offset: int = 0


class ListModels(Request[ModelList], frozen=True, kw_only=True):
    """Every model that is known, unavailable ones too, by id."""


class CheckToken(Request[TokenCheck], frozen=True, kw_only=True):
    """Whose credential has this SHA-256, if it counts.  For gateways only."""

    sha256: str


class GetStatistics(Request[StatisticsAnswer], frozen=True, kw_only=True):
    """What the user has and what it took.

    Sessions that calls without one made for themselves are not counted, nor their
    messages; what their replies took is.
    """


class GetContext(Request[Context], frozen=True, kw_only=True):
    """What a reply is to be written from.

    The last 20 messages of the branch that ends in the turn's user message, that
    one included; empty, failed and waiting ones do not count.  The turn comes with
    the request, so with ``min_seq`` of the fact before its todo nobody waits until
    the tables have the todo itself.
    """

    session_id: str
    turn: Turn | None
    """As its todo has it; None for a job, whose todos say what is asked."""


class GetFacts(Request[Facts], frozen=True, kw_only=True):
    """A session's facts after ``after``, oldest first, from the cold log."""

    session_id: str
    after: int
    limit: int = 1000


class OpenFeed(Request[FeedState], frozen=True, kw_only=True):
    """Where a session stands, for a gateway that begins to follow it."""

    session_id: str
