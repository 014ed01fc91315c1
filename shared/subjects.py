"""The only place where a subject is spelled.

``evt.<user>.<session>.<run>.<kind>`` carries facts, ``tok.<user>.<session>.<run>``
deltas and progress, ``live.…`` what the server republishes of both once it is
stored, ``cmd.…`` requests to a service, ``sig.…`` signals that nobody keeps.  A
token that does not apply is ``_``.
"""

from enum import Enum
from typing import NamedTuple

from shared.events import AnyFact, Fact, TodoChat, TodoGenerate, TodoProcess

EVENTS = "EVENTS"
TOKENS = "TOKENS"
RATES = "RATES"
NONE = "_"

EVERY_FACT = "evt.>"
LIVE = "live."
CHAT_TODOS = "evt.*.*.*.todo.chat.*"
PRIORITIES = range(10)
"""Of jobs; 9 goes first."""
LIVE_FACTS = "live.evt.>"
OUTSIDE_SESSIONS = f"evt.*.{NONE}.{NONE}.>"
"""The filter over what users have outside any session."""


class Scope(Enum):
    """Which chain a fact extends: its run's, its session's, or one for a kind, of all users."""

    RUN = "run"
    SESSION = "session"
    EVERYBODY = "everybody"


class Address(NamedTuple):
    """Whose fact or delta it is: the first four tokens of its subject."""

    user: str
    session: str
    run: str

    # Facts are named after the run's life, so the subject tells a person
    # watching the wire what happened before the payload is read.

    def fact(self, kind: str) -> str:
        return f"evt.{self.user}.{self.session}.{self.run}.{kind}"

    def subject_of(self, fact: AnyFact) -> str:
        """Where the fact is appended."""
        return self.fact(kind_of_fact(fact))

    def todo_chat(self, n: int) -> str:
        return self.fact(f"todo.chat.{n}")

    def todo_process(self, priority: int, n: int) -> str:
        return self.fact(f"todo.process.{priority}.{n}")

    def todo_generate(self, priority: int, n: int) -> str:
        return self.fact(f"todo.generate.{priority}.{n}")

    @property
    def schedule(self) -> str:
        """Where the scheduled message lies that fires the run's first todo."""
        return f"sched.{self.user}.{self.session}.{self.run}"

    @property
    def session_schedules(self) -> str:
        """The filter over the schedules of the session's runs."""
        return f"sched.{self.user}.{self.session}.>"

    @property
    def facts(self) -> str:
        """The filter over the run's facts: what the run chain covers."""
        return f"evt.{self.user}.{self.session}.{self.run}.>"

    @property
    def session_facts(self) -> str:
        """The filter over the session's facts, its runs' included."""
        return f"evt.{self.user}.{self.session}.>"

    @property
    def tokens(self) -> str:
        return f"tok.{self.user}.{self.session}.{self.run}"

    @property
    def session_tokens(self) -> str:
        """The filter over the deltas of all runs of the session."""
        return f"tok.{self.user}.{self.session}.*"


def session_address(user: str, session: str) -> Address:
    """The address of the session's own facts, outside any run."""
    return Address(user, session, NONE)


def user_address(user: str) -> Address:
    """The address of what a user has outside any session: the token, the preset."""
    return Address(user, NONE, NONE)


EVERYBODY = Address(NONE, NONE, NONE)
"""The address of what is no single user's: the models."""


def parse(subject: str) -> Address:
    """Whose fact or delta this is; ``live.`` in front is allowed.

    Raises:
        ValueError: the subject is neither a fact's nor a delta's.
    """
    tokens = subject.removeprefix(LIVE).split(".", 4)
    if len(tokens) < 4 or tokens[0] not in ("evt", "tok"):
        raise ValueError(f"not a fact's or delta's subject: {subject}")
    return Address(tokens[1], tokens[2], tokens[3])


def fact_kind(subject: str) -> str:
    """The kind of the fact at ``subject``: ``session.created``, ``todo.chat.0``, ``final``, …

    Empty where the subject ends before it: somebody else wrote there.
    """
    tokens = subject.removeprefix(LIVE).split(".", 4)
    kind = tokens[4] if len(tokens) > 4 else ""
    return _OLD_KINDS.get(kind, kind)


_OLD_KINDS = {
    "created": "session.created",
    "updated": "session.updated",
    "branch": "session.branch",
    "deleted": "session.deleted",
}
"""Ends of the subjects of facts that were written before each equalled its wire tag."""


def kind_of_fact(fact: AnyFact) -> str:
    """The fact's wire tag, with the numbers of a todo: the end of its subject."""
    tag = _tag(type(fact))
    match fact:
        case TodoChat(n=n):
            return f"{tag}.{n}"
        case TodoProcess(priority=priority, n=n) | TodoGenerate(priority=priority, n=n):
            return f"{tag}.{priority}.{n}"
        case _:
            return tag


def _tag(kind: type[Fact]) -> str:
    return str(kind.__struct_config__.tag)


def chain_filter(subject: str, scope: Scope) -> str:
    """The filter whose last sequence a publisher of ``subject`` must know.

    Derived here and nowhere else, because the server accepts a filter that does
    not cover the subject, and then checks nothing (architecture.md, law 3).
    """
    if subject.startswith(("tok.", "$KV.")):
        return subject
    address = parse(subject)
    if scope is Scope.EVERYBODY and address.session == NONE:
        return everybodys(fact_kind(subject).partition(".")[0])
    if scope is not Scope.RUN or address.run == NONE:
        return address.session_facts
    return address.facts


def everybodys(kind: str) -> str:
    """The filter over all users' facts of a kind, ``user`` or ``token``: names are unique there."""
    return f"evt.*.{NONE}.{NONE}.{kind}.>"


def rate(user: str) -> str:
    """Where the messages of a user are counted."""
    return f"rate.{user}"


def live_facts(kind: type[Fact]) -> str:
    """The filter over all live facts of a kind that has no numbers in its subject."""
    return f"{LIVE}evt.*.*.*.{_tag(kind)}"


def live_facts_of_user(user: str) -> str:
    return f"live.evt.{user}.>"


def live_tokens_of_session(user: str, session: str) -> str:
    return f"live.tok.{user}.{session}.*"


def store_command(name: str) -> str:
    return f"cmd.store.{name}"


def llm_command(name: str) -> str:
    return f"cmd.llm.{name}"


def service_of(command: str) -> str:
    """The service that answers requests on this subject, by its name."""
    name = command.removeprefix("cmd.").partition(".")[0]
    return "llm_worker" if name == "llm" else name


def ping(service: str) -> str:
    """Where every NATS micro service of that name answers that it is there."""
    return f"$SRV.PING.{service}"


def owns(worker: str) -> str:
    """Where a worker answers whether it is writing a run right now."""
    return f"sig.worker.{worker}.holds"


def typing(user: str, session: str) -> str:
    """Where it is signalled that somebody is typing; lost when nobody listens."""
    return f"sig.typing.{user}.{session}"


def dead_letters(consumer: str) -> str:
    """Where a consumer puts what it could not handle."""
    return f"dead.{consumer}"


def breaker(circuit: str) -> str:
    """Where the state of a circuit lies: of ``<provider>``, or of ``<provider>.<model>``."""
    return f"$KV.BREAKERS.{circuit}"


EVERY_BREAKER = "$KV.BREAKERS.>"
"""The filter over the states of all circuits."""


def process_todos(priority: int) -> str:
    """The filter over all process todos of one priority."""
    return f"evt.*.*.*.todo.process.{priority}.*"


def generate_todos(priority: int) -> str:
    """The filter over all generate todos of one priority."""
    return f"evt.*.*.*.todo.generate.{priority}.*"
