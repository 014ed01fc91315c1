"""Every event of the system, in the order in which a run lives through them.

This module is the table of contents: what can happen, and who tells whom.  A
*fact* is appended to the stream ``EVENTS`` and stays true for ever; a *delta*
or *progress* lives in ``TOKENS`` for minutes, while its attempt is running.
All are JSON on the bus, told apart by ``type``; ``docs/events.md`` shows each.
Times are UTC.  Offsets and lengths count Unicode code points, never bytes.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

OnBusy = Literal["queue", "reject", "interrupt"]
"""What a session does with a message that comes while a run is active."""

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A number from outside that a table can hold: a larger one stops whoever projects it, for ever."""

SessionStatus = Literal["active", "inactive"]
EndStatus = Literal["completed", "failed", "cancelled"]
StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "refusal",
    "content_filter",
    "tool_calls",
    "max_length",
]
"""How a complete reply ended; ``max_length`` is natterlog's own bound of its text."""
Rating = Literal["up", "down"]
FileKind = Literal["pdf", "image", "csv", "markdown", "text"]


# -- what facts are made of ---------------------------------------------------


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them (natterlog estimates nothing)."""

    input_tokens: Int64 = 0
    output_tokens: Int64 = 0
    cache_creation_input_tokens: Int64 = 0
    cache_read_input_tokens: Int64 = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run failed: a sentence for people, a stable code for programs."""

    code: str
    message: str
    retryable: bool = False
    retry_after: float | UnsetType = UNSET
    """Seconds after which another try makes sense, where the provider said so."""


class Thoughts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model thought before it answered: apart from the text, and not in its digest."""

    text: str
    blocks: list[dict[str, Any]] = []
    """As the provider wants them back with the next turn (Anthropic's signed blocks)."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One failed call of a provider."""

    ms: int
    """Milliseconds from the claim to the call's end."""
    code: str
    message: str
    status: int | None = None
    """The HTTP status, where the provider answered with one that is not 200."""
    usage: Usage | None = None
    cost: Int64 | None = None
    """Billionths of a US dollar, as for :class:`RunEnded`."""


class Continued(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply had when it was asked to go on: its run's text begins with that."""

    length: Int64
    tokens: Int64 | None = None
    created_at: datetime | None = None
    """When it was there first; its message keeps that."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A user message and the reply that is asked for.

    ``content`` is None when an existing user message is answered anew
    (regenerate): then ``user_message_id`` names that message.  ``parent_id`` is
    fixed at dispatch, so a waiting turn does not know it yet.
    """

    user_message_id: str
    assistant_message_id: str
    content: str | None
    parent_id: str | None = None
    attachments: list[str] = []
    model: str | None = None
    temperature: float | None = None
    max_tokens: Int64 | None = None
    client_id: str | None = None
    idempotency_key: str | None = None
    idempotency_digest: str | None = None
    edits: str | None = None
    """The message beside which this one stands, as another way to say it."""
    system: str | None = None
    """Instead of the session's system prompt, for this reply alone."""
    notes: list[str] = []
    """What of the wish is not honoured, one sentence each."""
    context: str | None = None
    """The message whose branch is the prompt, where a run of elsewhere is run again."""
    continues: Continued | None = None
    """Set where ``assistant_message_id`` is a reply that was cut and now goes on: the run's
    text is the whole of it, the old and the new, and when it ends well the message is that."""


class PastMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a session is opened with, because it was said in another one."""

    id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    status: EndStatus = "completed"
    tokens: Int64 | None = None
    latency_ms: Int64 | None = None
    model: str | None = None
    feedback: dict[str, str] | None = None
    attachments: list[str] = []
    stop_reason: str | None = None
    thoughts: Thoughts | None = None
    provider: str | None = None
    """Of its model: thoughts are for whoever had them."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of another session, each after its parent, and the last one of the branch."""

    messages: list[PastMessage]
    leaf: str | None


class SentFile(msgspec.Struct, frozen=True, kw_only=True):
    """How a file went with a prompt; what it is called and holds, its own facts say alone."""

    id: str
    """The session under which it lies in FILES: an attachment's own, or the job's."""
    message_id: str | None = None
    """The message that it is attached to; None for a job's."""
    as_it_is: list[str] = []
    """What of it was sent as it is, by the ids: itself, or its pictures."""
    characters: Int64 | None = None
    """So many of the text that was read from it; None when that was not sent."""
    length: Int64 | None = None
    """So many that text has."""
    missing: Literal["unread", "unreadable", "gone"] | None = None
    """Why nothing of it was sent."""


class PromptSource(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt's prompt was made of; the messages are in the log by id."""

    provider: str
    model: str
    system: str | None
    message_ids: list[str]
    temperature: float | None
    max_tokens: Int64 | None
    notes: list[str] = []
    """What the provider could not be told, one sentence each."""
    files: list[SentFile] | None = None
    """What went with the messages, or with a job's step; None in claims of before it was told."""
    go_on: str | None = None
    """Natterlog's own words after the messages, where a reply that was cut is to go on."""


class FileRef(msgspec.Struct, frozen=True, kw_only=True):
    """A file in FILES, where it lies under ``<session>/<id>``."""

    id: str
    name: str
    """As the client called it, without any path."""
    kind: FileKind
    media_type: str
    size: int
    """Bytes."""
    sha256: str


class FilePlan(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """Read a file, to be attached to messages: the step ``extract``, whose result ends the run."""

    file: FileRef


class DocumentPlan(msgspec.Struct, frozen=True, kw_only=True, tag="document"):
    """Read a file, then answer a prompt about it: steps ``extract`` and ``answer``."""

    file: FileRef
    prompt: str


class PipelineStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step: a prompt template, and the JSON Schema that its answer must fit."""

    name: str
    template: str
    system: str | None = None
    schema: dict[str, Any] | None = None


class PipelinePlan(msgspec.Struct, frozen=True, kw_only=True, tag="pipeline"):
    """Go through a named pipeline's steps, each a generation whose answer fits a schema.

    The steps are copied into the plan when the run is accepted, so that a changed
    pipeline file never changes a run that is under way.
    """

    pipeline: str
    steps: list[PipelineStep]
    inputs: dict[str, str]
    """What the client gave: topic, query, platform, …; templates may name them."""


Plan = DocumentPlan | PipelinePlan | FilePlan


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished step left for those after it."""

    step: str
    text: str
    """The extracted text, or the answer (JSON where the step has a schema)."""
    notes: list[str] = []
    """What was cut or could not be read, one sentence each; told in the prompt and on the job."""
    text_file: FileRef | None = None
    """Where the text lies in FILES instead, when it is not for the next step of the same run."""
    images: list[FileRef] = []
    """Page images or pictures for a model that can see."""
    usage: Usage | None = None
    """What its answers took, those that missed the schema included."""
    cost: Int64 | None = None
    """What they cost, as for :class:`RunEnded`."""


class StepPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a generate todo asks the model: a prompt of its own, not a conversation's."""

    step: str
    prompt: str
    system: str | None = None
    files: list[FileRef] = []
    """What is sent natively where the model takes it (PDF, images)."""
    instead: str = ""
    """What follows the prompt where the model does not take the files: their text, fenced."""
    schema: dict[str, Any] | None = None
    """The answer must be JSON that fits this; it is asked for again when it does not."""
    misses: int = 0
    """Answers so far that missed the schema; the prompt names the last one's fault."""
    spent: Usage | None = None
    """What those answers cost."""


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says about the making of a model (Ollama does)."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] = []
    parameter_size: str = ""
    quantization_level: str = ""


class OfferedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its provider describes it; what it does not say is None, or False."""

    provider: str
    name: str
    """The provider's own; natterlog's id of the model is ``provider/name``."""
    display_name: str | None = None
    context_window: Int64 | None = None
    max_tokens: Int64 | None = None
    supports_tools: bool = False
    supports_vision: bool = False
    size: Int64 = 0
    """Bytes; 0 for a hosted model."""
    modified_at: datetime | None = None
    digest: str | None = None
    details: ModelDetails | None = None

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.name}"


Timeline = list[tuple[int, int]]
"""One pair a delta: (milliseconds since the claim, length of the text so far)."""


class PreviousAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """What the attempt before this fact had written when it was over."""

    attempt: int
    text: str
    reason: str
    timeline: Timeline = []
    progress: Timeline = []
    """Of a reading: (milliseconds since the claim, thousandths done)."""
    fault: Fault | None = None
    """What the provider failed with, where that was the reason."""
    tries: list[Try] = []
    """The provider's failed calls within the attempt."""


# -- facts --------------------------------------------------------------------


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every fact carries.

    ``prev`` is the sequence that the publisher expected (0 for the first of its
    chain) and ``nonce`` is the publisher's own mark: together they let it find
    out, after a time-out, whether its fact was stored.
    """

    at: datetime
    prev: int = 0
    nonce: str = ""


class SessionCreated(Fact, frozen=True, kw_only=True, tag="session.created"):
    """A session was opened.  store → store, gateway"""

    title: str | None
    mode: str
    model: str | None
    temperature: float | None
    max_tokens: Int64 | None
    system_prompt: str | None
    context_tags: list[str]
    on_busy: OnBusy
    enable_tools: bool = False
    client_ref: str | None = None
    history: History | None = None
    """What it begins with: a branch of another session, or one that was exported."""


class SessionUpdated(Fact, frozen=True, kw_only=True, tag="session.updated"):
    """Some fields of a session changed; absent ones did not.  store → store, gateway"""

    title: str | UnsetType | None = UNSET
    status: SessionStatus | UnsetType = UNSET
    model: str | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    max_tokens: Int64 | UnsetType | None = UNSET
    system_prompt: str | UnsetType | None = UNSET
    context_tags: list[str] | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET
    enable_tools: bool | UnsetType = UNSET


class BranchChosen(Fact, frozen=True, kw_only=True, tag="session.branch"):
    """Another branch of a session is the active one.  store → store, gateway"""

    leaf: str
    """Its last message."""


class MessageRated(Fact, frozen=True, kw_only=True, tag="message.feedback"):
    """Somebody said what a reply is worth, or took it back.  store → store, gateway"""

    message_id: str
    rating: Rating | None
    comment: str | None = None


class SessionDeleted(Fact, frozen=True, kw_only=True, tag="session.deleted"):
    """The tombstone of a session whose other facts are being erased.  store → store, gateway"""

    mode: str | None = None
    """The session's, because nobody can look it up any more."""


class RunWaiting(Fact, frozen=True, kw_only=True, tag="waiting"):
    """A turn was accepted; another run of its session goes first.  store → store, gateway"""

    turn: Turn


class TodoChat(Fact, frozen=True, kw_only=True, tag="todo.chat"):
    """A reply is to be written; that is the acceptance.  store → llm_worker, store, gateway"""

    n: int
    turn: Turn


class RunScheduled(Fact, frozen=True, kw_only=True, tag="scheduled"):
    """A job was accepted for later; ``sched.…`` fires its first todo.  store → store, gateway"""

    plan: Plan
    priority: int
    due: datetime


class TodoProcess(Fact, frozen=True, kw_only=True, tag="todo.process"):
    """A file is to be read, or the next step chosen.  store, llm_worker → processor, store, gateway

    ``step`` is the plan's step that is due, and ``results`` holds what the steps
    before it left.  The first one is the acceptance of a job, or comes from its
    schedule; that one may come twice, and only the first counts.
    """

    n: int
    priority: int
    step: str
    plan: Plan
    results: list[StepResult] = []
    previous: PreviousAttempt | None = None
    """The attempt that led here: a result keeps its answer, and this how it came about."""


class TodoGenerate(Fact, frozen=True, kw_only=True, tag="todo.generate"):
    """A model is to answer a step's prompt.  processor, llm_worker → llm_worker, store, gateway

    The worker streams it as deltas; then it appends the final when ``last``, else
    the next ``todo.process`` with the answer among the results.  An answer that
    misses the schema is asked for again: the same step, one miss more.
    """

    n: int
    priority: int
    ask: StepPrompt
    plan: Plan
    results: list[StepResult] = []
    last: bool
    previous: PreviousAttempt | None = None
    """As in ``todo.process``; also an answer that missed its schema."""


class RunClaimed(Fact, frozen=True, kw_only=True, tag="claim"):
    """A worker owns the run; this fact's sequence is the attempt's id.  worker → store, gateway"""

    worker: str
    todo: int
    prompt: PromptSource | None
    previous: PreviousAttempt | None = None
    failures: int = 0
    """Failed calls of a provider in this run so far."""
    fraction: float = 0.0
    """How much of a file the attempts before had read at most, 0 to 1."""


class CancelRequested(Fact, frozen=True, kw_only=True, tag="cancel"):
    """Somebody wants it to stop.  store → llm_worker, processor, store, gateway"""

    reason: str = "asked by the user"


class RunEnded(Fact, frozen=True, kw_only=True, tag="final"):
    """The run is over, and everything about its end is here.  worker, store → store, gateway

    ``attempt`` is 0 when nobody had claimed the run's latest todo.  ``sha256`` is of the
    text's UTF-8, in hexadecimal.  Latencies are milliseconds since the claim.
    """

    status: EndStatus
    attempt: int
    text: str
    length: int
    sha256: str
    model: str | None = None
    provider: str | None = None
    stop_reason: str | None = None
    """One of ``StopReason``; None where the run failed or was cancelled.  Older facts have the
    provider's own word (:func:`shared.run_state.stop_reason` reads all)."""
    usage: Usage | None = None
    cost: Int64 | None = None
    """Billionths of a US dollar, by the prices known then; None: the model has no known price."""
    thoughts: Thoughts | None = None
    tries: list[Try] = []
    """The failed calls of a provider within the last attempt."""
    error: Fault | None = None
    latency_ms: int | None = None
    first_delta_ms: int | None = None
    timeline: Timeline = []
    results: list[StepResult] = []
    """A job's: what its steps left (a document's without the text that was extracted)."""
    notes: list[str] = []
    fraction: float = 0.0
    """How much of the job's file had been read at most, 0 to 1, if it ended in that step."""
    progress: Timeline = []
    """Of a reading that was not finished, as in a previous attempt."""


# -- facts outside any session: what users, and all of them, have ----------------


class PresetCreated(Fact, frozen=True, kw_only=True, tag="preset.created"):
    """A user keeps a choice of model, prompt and parameters under a name.  store → store"""

    preset_id: str
    name: str
    description: str
    system_prompt: str | None
    model: str | None
    temperature: float | None
    max_tokens: Int64 | None
    is_public: bool


class PresetUpdated(Fact, frozen=True, kw_only=True, tag="preset.updated"):
    """Some fields of a preset changed; absent ones did not.  store → store"""

    preset_id: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    system_prompt: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    max_tokens: Int64 | UnsetType | None = UNSET
    is_public: bool | UnsetType = UNSET


class PresetDeleted(Fact, frozen=True, kw_only=True, tag="preset.deleted"):
    """A preset is gone; sessions that were made from it stay as they are.  store → store"""

    preset_id: str


class ModelPreferred(Fact, frozen=True, kw_only=True, tag="model.preferred"):
    """A user chose the model of sessions that name none; None: the system's.  store → store"""

    model: str | None


class ModelsSynced(Fact, frozen=True, kw_only=True, tag="model.synced"):
    """The providers offer other models than before; the others stayed.  store → store"""

    models: list[OfferedModel]
    """New ones, those that are back, and those that are described differently."""
    removed: list[str]
    """The ids of those that are no longer on offer."""
    default: str | UnsetType = UNSET
    """The id of the system's default model, when it is another than before."""


class UserCreated(Fact, frozen=True, kw_only=True, tag="user.created"):
    """Somebody may have tokens from now on; no other user has the name.  store → store"""

    name: str


class UserDisabled(Fact, frozen=True, kw_only=True, tag="user.disabled"):
    """None of the user's tokens counts until he is enabled again.  store → store, gateway"""


class UserEnabled(Fact, frozen=True, kw_only=True, tag="user.enabled"):
    """The user's tokens count again.  store → store, gateway"""


class TokenCreated(Fact, frozen=True, kw_only=True, tag="token.created"):
    """A credential was made; nobody keeps it, only its SHA-256 (hex).  store → store, gateway"""

    token_id: str
    sha256: str
    label: str
    expires_at: datetime | None


class TokenRevoked(Fact, frozen=True, kw_only=True, tag="token.revoked"):
    """A credential does not count any more.  store → store, gateway"""

    token_id: str


# -- from another log -----------------------------------------------------------------


class FactImported(Fact, frozen=True, kw_only=True, tag="imported"):
    """A fact of another log, brought here with its session.  recorder → store

    Nobody works on what is inside, because no consumer has this subject.  ``file`` is
    the digest of the export that it came with, where it is the ``position``-th of the
    session's ``of`` facts; ``origin`` is its sequence in the other log (0: made by the
    import).  What is inside refers to sequences of this log.
    """

    what: str
    """The end of its own subject."""
    fact: msgspec.Raw
    file: str
    position: int
    of: int
    origin: int


SessionChange = SessionUpdated | BranchChosen | MessageRated | SessionDeleted
SessionFact = SessionCreated | SessionChange
PresetFact = PresetCreated | PresetUpdated | PresetDeleted
ModelFact = ModelPreferred | ModelsSynced
AccountFact = UserCreated | UserDisabled | UserEnabled | TokenCreated | TokenRevoked
LibraryFact = PresetFact | ModelFact | AccountFact
RunFact = (
    RunWaiting
    | RunScheduled
    | TodoChat
    | TodoProcess
    | TodoGenerate
    | RunClaimed
    | CancelRequested
    | RunEnded
)
AnyFact = SessionFact | RunFact | LibraryFact | FactImported


# -- what a running attempt says (stream TOKENS) --------------------------------


class Delta(msgspec.Struct, frozen=True, tag_field="type", tag="delta"):
    """The next piece of an attempt's text, from ``offset`` on.  llm_worker → gateway

    A snapshot is a delta with offset 0 and the whole text.  (attempt, offset,
    length) says which delta it is, so it needs no nonce.  ``ms`` is milliseconds
    since the claim: with it whoever takes over a run keeps its timeline.
    """

    attempt: int
    offset: int
    text: str
    ms: int = 0


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """How much of a step is done, 0 to 1.  processor → gateway"""

    attempt: int
    step: str
    fraction: float
    ms: int = 0
    """Since the claim."""


AnyTokenEvent = Delta | Progress


# -- JSON ---------------------------------------------------------------------

_encoder = msgspec.json.Encoder()
_fact_decoder = msgspec.json.Decoder(AnyFact)
_token_event_decoder = msgspec.json.Decoder(AnyTokenEvent)


def encode(event: Fact | AnyTokenEvent) -> bytes:
    """The event as JSON."""
    return _encoder.encode(event)


def decode_fact(data: bytes) -> AnyFact:
    """The fact in ``data``.

    Raises:
        msgspec.ValidationError: an unknown type, or a field that does not fit.
    """
    return _fact_decoder.decode(data)


def inside(fact: AnyFact) -> AnyFact:
    """What happened: an imported fact's own, or the fact itself.

    Raises:
        msgspec.ValidationError: as for :func:`decode_fact`.
    """
    return decode_fact(bytes(fact.fact)) if isinstance(fact, FactImported) else fact


def decode_token_event(data: bytes) -> AnyTokenEvent:
    """The delta or progress in ``data``.

    Raises:
        msgspec.ValidationError: as for :func:`decode_fact`.
    """
    return _token_event_decoder.decode(data)
