"""Everything that a gateway reacts to, and with what.

The gateway dispatches with these tables' parts, each of which stands where its state is
(``FACTS`` of a class, ``reactions`` of a dialect); a test holds all to each other.
"""

from collections.abc import Callable
from typing import Any

from services.gateway.access.accounts import Accounts
from services.gateway.dialects.registry import DIALECTS
from services.gateway.jobs.feed import JobFeed
from services.gateway.jobs.state import JobState
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from services.gateway.sessions.hub import Hub
from services.gateway.sessions.state import SessionState
from services.gateway.sessions.typing_signals import TypingListeners
from shared.events import (
    BranchChosen,
    CancelRequested,
    Delta,
    Fact,
    MessageRated,
    Progress,
    RunClaimed,
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    TokenCreated,
    TokenRevoked,
    UserDisabled,
    UserEnabled,
)
from shared.subjects import (
    LIVE,
    OUTSIDE_SESSIONS,
    live_facts_of_user,
    live_tokens_of_session,
    typing,
)

Reaction = Callable[..., Any]

SUBSCRIPTIONS: dict[str, Reaction] = {
    f"{LIVE}{OUTSIDE_SESSIONS}": Accounts.on_fact,
    live_facts_of_user("{user}"): Hub.on_fact,
    live_tokens_of_session("{user}", "{session}"): Feed.on_token_event,
    live_tokens_of_session("{user}", "*"): JobFeed.on_token_event,
    typing("{user}", "{session}"): TypingListeners.on_signal,
}
"""What it listens to: all users' accounts for as long as it runs, one user's facts while one of his
clients is there, a session's deltas and signals while it is watched, those of all his jobs."""

_FOR_EVERY_DIALECT: dict[type[Fact], tuple[Reaction, ...]] = {
    SessionUpdated: (Follower.show_change,),
    BranchChosen: (Follower.show_branch,),
    MessageRated: (Follower.show_branch,),
    SessionDeleted: (
        SessionState.end,
        Follower.show_gone,
        JobFeed.drop_session,
    ),
    RunWaiting: (SessionState.accept_turn, Follower.show_turn),
    RunScheduled: (JobState.apply,),
    TodoChat: (SessionState.accept_turn, Follower.show_turn),
    TodoProcess: (JobState.apply,),
    TodoGenerate: (JobState.apply,),
    RunClaimed: (SessionState.begin_attempt, Follower.show_claim, JobState.apply),
    CancelRequested: (JobState.apply,),
    RunEnded: (
        SessionState.end_run,
        Follower.show_end,
        JobState.apply,
    ),
    UserDisabled: (Accounts.user_disabled,),
    UserEnabled: (Accounts.user_enabled,),
    TokenCreated: (Accounts.token_created,),
    TokenRevoked: (Accounts.token_revoked,),
}
"""In the order of a run's life: a session's state, what its clients are shown of it, a job's state,
who is let in.  A client of a session's log is shown every fact of it."""

FACTS: dict[type[Fact], tuple[Reaction, ...]] = {
    kind: (
        *_FOR_EVERY_DIALECT.get(kind, ()),
        *(dialect.reactions[kind] for dialect in DIALECTS if kind in dialect.reactions),
    )
    for kind in dict.fromkeys((*_FOR_EVERY_DIALECT, *(k for d in DIALECTS for k in d.reactions)))
}
"""The same, and after them what a dialect does besides."""

TOKEN_EVENTS: dict[type[Delta | Progress], tuple[Reaction, ...]] = {
    Delta: (SessionState.merge, JobState.merge),
    Progress: (JobState.merge,),
}
"""What a running attempt says."""
