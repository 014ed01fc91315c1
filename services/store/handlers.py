"""Everything that the store reacts to, and with what."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from services.store import (
    accounts,
    file_queries,
    inspection,
    job_queries,
    models,
    presets,
    projection,
    queries,
    resources,
    statistics,
)
from services.store.accounts import Accounts
from services.store.admission import Admission
from services.store.answering import Endpoint, endpoint
from services.store.branches import Branches
from services.store.commands import Commands
from services.store.context import Contexts
from services.store.continuing import Continuing
from services.store.database import Database
from services.store.dispatch import Dispatcher
from services.store.exporting import export_session
from services.store.history import History
from services.store.jobs import Jobs
from services.store.log_requests import LogRequests
from services.store.model_names import ModelNames
from services.store.models import Models
from services.store.presets import Presets
from services.store.search import search_messages
from services.store.turns import Turns
from services.store.usage import get_usage
from services.store.watermark import Watermark
from shared import commands as c
from shared import inspection as i
from shared import operating as o
from shared.events import (
    CancelRequested,
    Fact,
    FactImported,
    ModelsSynced,
    RunEnded,
    RunScheduled,
    RunWaiting,
)

Request = type[c.Request[Any]]

FACTS: dict[type[Fact], Callable[..., None]] = {
    **projection.PROJECTORS,
    **resources.PROJECTORS,
    FactImported: projection.import_fact,
}
"""Every fact, and what it does to the tables."""

REACTIONS: dict[type[Any], dict[type[Fact], Callable[[Any, str], None]]] = {
    Dispatcher: {
        RunWaiting: Dispatcher.look_at,
        RunScheduled: Dispatcher.look_at,
        CancelRequested: Dispatcher.look_at,
        RunEnded: Dispatcher.look_at,
    },
    ModelNames: {ModelsSynced: ModelNames.on_synced},
}
"""Facts after which somebody has something to do in that session, once the tables have them."""

COMMANDS: dict[type[Any], dict[Request, Callable[[Any, Any], Awaitable[msgspec.Struct]]]] = {
    Commands: {
        c.CreateSession: Commands.create_session,
        c.UpdateSession: Commands.update_session,
        c.DeleteSession: Commands.delete_session,
    },
    Turns: {
        c.SendMessage: Turns.send_message,
        c.Regenerate: Turns.regenerate,
        c.CancelRun: Turns.cancel_run,
        c.OpenFeed: Turns.open_feed,
    },
    Contexts: {c.GetContext: Contexts.get_context},
    Continuing: {c.ContinueReply: Continuing.continue_reply},
    Branches: {
        c.EditMessage: Branches.edit,
        c.ForkSession: Branches.fork,
        c.ChooseBranch: Branches.choose,
        c.RateMessage: Branches.rate,
    },
    Jobs: {c.CreateJob: Jobs.create_job},
    Presets: {
        c.CreatePreset: Presets.create,
        c.UpdatePreset: Presets.update,
        c.DeletePreset: Presets.delete,
    },
    Accounts: {
        o.CreateUser: Accounts.create_user,
        o.EnableUser: Accounts.enable_user,
        o.CreateToken: Accounts.create_token,
        o.RevokeToken: Accounts.revoke_token,
    },
    Models: {c.SyncModels: Models.sync, c.PreferModel: Models.prefer},
    LogRequests: {
        c.GetFacts: LogRequests.get_facts,
        i.ReadFacts: LogRequests.read_facts,
        c.Rebuild: LogRequests.rebuild,
    },
}
"""Requests that change something, or are about the log, by who carries them out."""

FROM_MEMORY: frozenset[Request] = frozenset(
    {c.CreateSession, c.SendMessage, c.CancelRun, c.OpenFeed, c.GetContext}
)
"""Those that wait for the tables only when they need them."""

QUERIES: dict[Request, Callable[[sa.Connection, Any], msgspec.Struct]] = {
    c.ListSessions: queries.list_sessions,
    c.GetRun: queries.get_run,
    c.GetJob: job_queries.get_job,
    c.ListJobs: job_queries.list_jobs,
    c.GetFile: file_queries.get_file,
    c.SearchMessages: search_messages,
    c.ExportSession: export_session,
    c.GetPreset: presets.get_preset,
    c.ListPresets: presets.list_presets,
    c.ListModels: models.list_models,
    c.CheckToken: accounts.check_token,
    c.GetStatistics: statistics.get_statistics,
    c.GetUsage: get_usage,
    o.ListUsers: accounts.list_users,
    o.ListTokens: accounts.list_tokens,
    i.FindRuns: inspection.find_runs,
    i.FindSessions: inspection.find_sessions,
}
"""Requests that are answered from the tables."""

PAST_QUERIES: dict[Request, Callable[[sa.Connection, Any], Any]] = {
    c.GetSession: queries.get_session,
    c.ListMessages: queries.list_messages,
    c.GetMessage: queries.get_message,
}
"""Those that are answered as of an earlier fact as well, where the request names one."""


NEVER_WAITS: frozenset[Request] = frozenset(
    {c.CancelRun, c.OpenFeed, c.GetContext, c.SyncModels, c.GetFacts, i.ReadFacts, c.Rebuild}
)
"""Commands, and what is about the log, that no flood of messages holds up."""


def react(parts: Iterable[object], fact: Fact, session_id: str) -> None:
    """Hand an applied fact to the parts of the store that react to its kind."""
    for part in parts:
        if reaction := REACTIONS[type(part)].get(type(fact)):
            reaction(part, session_id)


async def _admitted(
    admission: Admission, command: Callable[[Any], Awaitable[msgspec.Struct]], request: Any
) -> msgspec.Struct:
    """Carry out a command when its turn has come."""
    async with admission.slot(request.user_id):
        return await command(request)


def endpoints(
    parts: Iterable[object],
    database: Database,
    history: History,
    applied: Watermark,
    admission: Admission,
) -> dict[str, Endpoint]:
    """What answers each request, by its subject; ``parts`` carry out the commands."""
    answers: dict[Request, Callable[[Any], Awaitable[msgspec.Struct]]] = {}
    for part in parts:
        for kind, do in COMMANDS[type(part)].items():
            command = partial(do, part)
            admitted = partial(_admitted, admission, command)
            answers[kind] = command if kind in NEVER_WAITS else admitted
    answers |= {kind: partial(database.read, query) for kind, query in QUERIES.items()}
    answers |= {kind: partial(history.answer, query) for kind, query in PAST_QUERIES.items()}
    return dict(
        endpoint(kind, answer, None if kind in FROM_MEMORY else applied.catch_up)
        for kind, answer in answers.items()
    )
