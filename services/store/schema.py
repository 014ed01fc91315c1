"""The tables: what the projection consists of, in portable SQLAlchemy Core.

Only :mod:`services.store.projection` writes them.  A change here needs a
migration and another ``VERSION``; a test holds the two against each other.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import event

from shared.events import Fault, ModelDetails, Plan, StepResult, Thoughts, Turn, Usage
from shared.records import JobStep

VERSION = "0009"
"""The newest migration."""


class UtcTime(sa.TypeDecorator[datetime]):
    """A time in UTC, with its zone on the way out although SQLite keeps none."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Document(sa.TypeDecorator[Any]):
    """A msgspec value as JSON, and typed again on the way out."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else self._decoder.decode(value)


metadata = sa.MetaData()

sessions = sa.Table(
    "ai_chat_sessions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("context_tags", Document(list[str]), nullable=False),
    sa.Column("system_prompt", Document(str)),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("last_message_at", UtcTime),
    sa.Column("model", sa.Text),
    sa.Column("temperature", sa.Float),
    sa.Column("max_tokens", sa.Integer),
    sa.Column("on_busy", sa.Text, nullable=False),
    sa.Column("enable_tools", sa.Boolean, nullable=False),
    sa.Column("client_ref", sa.Text),
    # the active branch: its last message, and how many messages it has
    sa.Column("active_leaf", sa.String(36)),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("waiting", sa.Integer, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    # brought here by an import that is not complete: nobody sees it, nothing of it goes on
    sa.Column("importing", sa.Boolean, nullable=False),
    sa.Index("ix_ai_chat_sessions_user", "user_id", "last_seq"),
)

messages = sa.Table(
    "ai_chat_messages",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("session_id", sa.String(36), nullable=False),
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("tokens", sa.Integer),
    sa.Column("latency_ms", sa.Integer),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("parent_id", sa.String(36)),
    # messages from the first to this one; 0 outside any branch (waiting, or never sent)
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("feedback", Document(dict[str, str])),
    sa.Column("attachments", Document(list[str]), nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("run_id", sa.String(36)),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("stop_reason", sa.Text),
    # what the model thought, and whose that is
    sa.Column("thoughts", Document(Thoughts)),
    sa.Column("provider", sa.Text),
    sa.Column("error", Document(Fault)),
    sa.Index("ix_ai_chat_messages_session", "session_id", "status", "seq"),
)

attachments = sa.Table(
    "attachments",
    metadata,
    sa.Column("file_id", sa.String(36), primary_key=True),
    sa.Column("message_id", sa.String(36), primary_key=True),
    sa.Column("session_id", sa.String(36), nullable=False),
    sa.Index("ix_attachments_session", "session_id"),
)

usage_log = sa.Table(
    "api_usage_log",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),  # the run's
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("session_id", sa.String(36)),  # NULL once the session is deleted
    sa.Column("provider", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("input_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cache_creation_input_tokens", sa.Integer),
    sa.Column("cache_read_input_tokens", sa.Integer),
    sa.Column("latency_ms", sa.Integer),
    sa.Column("first_delta_ms", sa.Integer),
    sa.Column("created_at", UtcTime, nullable=False),
    # billionths of a US dollar; NULL: the model has no known price
    sa.Column("cost", sa.BigInteger),
    sa.Column("stop_reason", sa.Text),
    sa.Index("ix_api_usage_log_user", "user_id", "created_at"),
    sa.Index("ix_api_usage_log_session", "session_id"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("session_id", sa.String(36), nullable=False),
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("waiting", sa.Boolean, nullable=False),
    sa.Column("cancelled", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("provider", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("length", sa.Integer),
    sa.Column("usage", Document(Usage)),
    sa.Column("error", Document(Fault)),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("turn", Document(Turn)),
    sa.Column("user_message_id", sa.String(36)),
    sa.Column("assistant_message_id", sa.String(36)),
    sa.Column("user_depth", sa.Integer, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("idempotency_digest", sa.Text),
    sa.Column("first_seq", sa.BigInteger, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    # a job's, which a chat run has not
    sa.Column("plan", Document(Plan)),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("due", UtcTime),
    # the number of its latest todo; -1 before the first
    sa.Column("todo", sa.Integer, nullable=False),
    sa.Column("steps", Document(list[JobStep]), nullable=False),
    sa.Column("results", Document(list[StepResult]), nullable=False),
    sa.Column("notes", Document(list[str]), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("stop_reason", sa.Text),
    sa.Column("restarts", sa.Integer, nullable=False),
    sa.Column("claimed_at", UtcTime),
    sa.Column("first_word_at", UtcTime),
    sa.Index("ix_runs_session", "session_id", "ended_at", "first_seq"),
    sa.Index("ix_runs_unfinished", "ended_at", "first_seq"),
    # not unique: two stores may accept one key in two sessions at the same moment,
    # and a projection cannot refuse a fact; whoever asks takes the first
    sa.Index("ix_runs_key", "user_id", "idempotency_key", "first_seq"),
)

presets = sa.Table(
    "presets",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("system_prompt", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("temperature", sa.Float),
    sa.Column("max_tokens", sa.Integer),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Index("ix_presets_user", "user_id", "name"),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # provider/name
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("display_name", sa.Text),
    sa.Column("context_window", sa.BigInteger),
    sa.Column("max_tokens", sa.BigInteger),
    sa.Column("supports_tools", sa.Boolean, nullable=False),
    sa.Column("supports_vision", sa.Boolean, nullable=False),
    sa.Column("is_available", sa.Boolean, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified_at", UtcTime),
    sa.Column("digest", sa.Text),
    sa.Column("details", Document(ModelDetails)),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
)

preferences = sa.Table(
    "preferences",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),  # the user's; "_": the system's
    sa.Column("model", sa.Text),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("disabled_at", UtcTime),
    sa.Index("ix_users_name", "name"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("user_id", sa.String(36), nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
    sa.Index("ix_tokens_sha256", "sha256"),
    sa.Index("ix_tokens_user", "user_id"),
)

CREATE_WORDS = "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, message_id UNINDEXED)"
"""What is searched, of SQLite's FTS5 (:mod:`services.store.search`)."""
event.listen(metadata, "after_create", sa.DDL(CREATE_WORDS).execute_if(dialect="sqlite"))

projection = sa.Table(
    "projection",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # always 1
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
)
