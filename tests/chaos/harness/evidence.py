"""What is known after a run of the harness, from four sides that know nothing of each other.

The clients hold texts, the log has facts, the store answers for messages, and the provider
knows what it sent.  :mod:`.checker` holds them against each other; all of it is plain data,
so a run that found something can be kept in a file and looked at again.
"""

import hashlib

import msgspec

Status = str
"""``completed``, ``failed`` or ``cancelled``; empty as long as there is no end."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Shown(msgspec.Struct, kw_only=True):
    """What one client holds of one reply when it has done with it."""

    client: str
    dialect: str
    via: list[str]
    """The transports that it came over, in their order."""
    mark: str
    """What stands in the prompt, and in no other."""
    run_id: str = ""
    """The run; where the dialect does not name it, one of the two below does."""
    message_id: str = ""
    session_id: str = ""
    step: str = ""
    """Of a pipeline: the step whose result the text is."""
    text: str = ""
    status: Status = ""
    """How it ended, as this client was shown; empty: it was cut off, or left before the end."""
    ends: int = 0
    """How often it was shown an end."""
    sha256: str = ""
    """The digest that the dialect named, where it has one."""
    progress: list[int] = []
    """Of a job: every progress that was shown, in order."""
    steps: list[list[str]] = []
    """Of a pipeline: the steps that each connection was shown as done."""
    resets: int = 0
    cuts: int = 0
    problem: str = ""
    """What the client itself objected to."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A lost attempt, as the claim or todo after it keeps it."""

    attempt: int
    text: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of a run's chain, without what it carries."""

    seq: int
    kind: str
    prev: int


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """How the log has it that a run ended."""

    seq: int
    status: Status
    attempt: int
    text: str
    length: int
    sha256: str
    code: str = ""
    """Of its error."""
    retryable: bool = False
    output_tokens: int = 0
    results: dict[str, str] = {}
    """A job's: what its steps left."""


class LoggedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as the log has it."""

    run_id: str
    session_id: str
    mark: str = ""
    """What its prompt is marked with; empty where the harness sent no such prompt."""
    is_job: bool = False
    user_message_id: str = ""
    assistant_message_id: str = ""
    key: str = ""
    """Its idempotency key."""
    facts: list[Fact]
    claims: list[int] = []
    failed_calls: int = 0
    """Calls of a provider that failed, as claims and finals have it."""
    lost: list[Attempt] = []
    finals: list[Final] = []

    @property
    def final(self) -> Final | None:
        return self.finals[0] if self.finals else None


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message, as ``GET /messages`` shows it."""

    id: str
    session_id: str
    role: str
    status: str
    run_id: str | None
    content: str


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as ``GET /runs`` shows it."""

    id: str
    status: str
    attempt: int
    sha256: str | None
    length: int | None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the provider, as the provider has it."""

    tag: str
    mark: str
    text: str
    """All that it would have said."""
    whole: bool
    """Whether it said all of it, its end included."""
    case: str = ""
    """The odd answer that it gave, if it gave one."""


class Evidence(msgspec.Struct, kw_only=True):
    """All four sides."""

    shown: list[Shown] = []
    runs: list[LoggedRun] = []
    messages: list[StoredMessage] = []
    stored_runs: list[StoredRun] = []
    calls: list[Call] = []
    api_facts: dict[str, list[int]] = {}
    """Sequences of each session's facts, as ``GET …/events`` shows them."""
    log_facts: dict[str, list[int]] = {}
    """The same, as the stream has them."""
    output_tokens: int | None = None
    """Of all calls, as ``GET /usage`` adds them up; None: nobody asked."""
