"""Everything that a gateway reacts to, and with what.

The gateway dispatches with these tables' parts, each of which stands where its state is
(``FACTS`` of a class, ``CHANGES`` of the list of sessions); a test holds all to each other.
"""

from collections.abc import Callable
from typing import Any

from services.gateway.access.accounts import Accounts
from services.gateway.dialects.channels.socket import ListedSessions
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
    SessionCreated,
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

FACTS: dict[type[Fact], tuple[Reaction, ...]] = {
    SessionCreated: (ListedSessions.on_fact,),
    SessionUpdated: (Follower.show_change, ListedSessions.on_fact),
    BranchChosen: (Follower.show_branch,),
    MessageRated: (Follower.show_branch,),
    SessionDeleted: (
        SessionState.end,
        Follower.show_gone,
        JobFeed.drop_session,
        ListedSessions.on_fact,
    ),
    RunWaiting: (SessionState.accept_turn, Follower.show_turn, ListedSessions.on_fact),
    RunScheduled: (JobState.apply,),
    TodoChat: (SessionState.accept_turn, Follower.show_turn, ListedSessions.on_fact),
    TodoProcess: (JobState.apply,),
    TodoGenerate: (JobState.apply,),
    RunClaimed: (SessionState.begin_attempt, Follower.show_claim, JobState.apply),
    CancelRequested: (JobState.apply,),
    RunEnded: (
        SessionState.end_run,
        Follower.show_end,
        JobState.apply,
        ListedSessions.on_fact,
    ),
    UserDisabled: (Accounts.user_disabled,),
    UserEnabled: (Accounts.user_enabled,),
    TokenCreated: (Accounts.token_created,),
    TokenRevoked: (Accounts.token_revoked,),
}
"""In the order of a run's life: a session's state, what its clients are shown of it, a job's state,
the list of sessions, who is let in.  A client of a session's log is shown every fact of it."""

TOKEN_EVENTS: dict[type[Delta | Progress], tuple[Reaction, ...]] = {
    Delta: (SessionState.merge, JobState.merge),
    Progress: (JobState.merge,),
}
"""What a running attempt says."""
