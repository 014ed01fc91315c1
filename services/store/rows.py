"""The projection's rows as typed, changeable values, and the records that are made of them."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from shared.conversation import BranchState
from shared.events import (
    EndStatus,
    ModelDetails,
    OfferedModel,
    OnBusy,
    Plan,
    SessionStatus,
    StopReason,
)
from shared.message_state import MessageState
from shared.records import (
    Job,
    Model,
    Preset,
    Run,
    Session,
)
from shared.run_state import RunState


class SessionRow(BranchState, kw_only=True):
    id: str
    user_id: str
    title: str | None
    context_tags: list[str]
    system_prompt: str | None
    mode: str
    status: SessionStatus
    created_at: datetime
    updated_at: datetime
    model: str | None
    temperature: float | None
    max_tokens: int | None
    on_busy: OnBusy
    enable_tools: bool
    client_ref: str | None
    importing: bool = False
    last_seq: int

    def record(self) -> Session:
        return Session(
            id=self.id,
            user_id=self.user_id,
            title=self.title,
            mode=self.mode,
            status=self.status,
            model=self.model,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            system_prompt=self.system_prompt,
            context_tags=self.context_tags,
            on_busy=self.on_busy,
            enable_tools=self.enable_tools,
            client_ref=self.client_ref,
            message_count=self.depth + self.waiting,
            created_at=self.created_at,
            updated_at=self.updated_at,
            last_message_at=self.last_message_at,
        )


MessageRow = MessageState
"""A message's row is just what its facts make of it."""


class RunRow(RunState, kw_only=True):
    id: str
    session_id: str
    user_id: str
    user_message_id: str | None
    assistant_message_id: str | None
    idempotency_key: str | None
    idempotency_digest: str | None

    def record(self) -> Run:
        return Run(
            id=self.id,
            session_id=self.session_id,
            status=self.status,
            attempt=self.attempt,
            sha256=self.sha256,
            length=self.length,
            usage=self.usage,
            error=self.error,
            created_at=self.created_at,
            ended_at=self.ended_at,
            user_message_id=self.user_message_id,
            assistant_message_id=self.assistant_message_id,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            cancelled=self.cancelled,
            stop_reason=self.stop_reason,
            continues=self.turn.continues if self.turn else None,
        )

    def job(self, plan: Plan, client_ref: str | None) -> Job:
        return Job(
            run=self.record(),
            plan=plan,
            priority=self.priority,
            due=self.due,
            steps=self.steps,
            results=self.results,
            notes=self.notes,
            text=self.text,
            client_ref=client_ref,
        )


class UserRow(msgspec.Struct, kw_only=True):
    id: str
    name: str
    created_at: datetime
    disabled_at: datetime | None = None


class TokenRow(msgspec.Struct, kw_only=True):
    id: str
    user_id: str
    sha256: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None


class PresetRow(msgspec.Struct, kw_only=True):
    id: str
    user_id: str
    name: str
    description: str
    system_prompt: str | None
    model: str | None
    temperature: float | None
    max_tokens: int | None
    is_public: bool
    created_at: datetime
    updated_at: datetime

    def record(self) -> Preset:
        return Preset(
            id=self.id,
            name=self.name,
            description=self.description,
            system_prompt=self.system_prompt,
            model=self.model,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            is_public=self.is_public,
            owner=self.user_id,
        )


class ModelRow(msgspec.Struct, kw_only=True):
    id: str
    provider: str
    name: str
    display_name: str | None
    context_window: int | None
    max_tokens: int | None
    supports_tools: bool
    supports_vision: bool
    is_available: bool
    size: int
    modified_at: datetime | None
    digest: str | None
    details: ModelDetails | None
    created_at: datetime
    updated_at: datetime

    def offer(self) -> OfferedModel:
        """What the provider said of it last."""
        fields = {field: getattr(self, field) for field in OfferedModel.__struct_fields__}
        return OfferedModel(**fields)

    def record(self, default: str | None) -> Model:
        fields: dict[str, Any] = msgspec.structs.asdict(self.offer())
        fields["modified_at"] = self.modified_at or self.updated_at
        return Model(
            **fields,
            id=self.id,
            is_available=self.is_available,
            is_default=self.id == default,
        )


class PreferenceRow(msgspec.Struct, kw_only=True):
    id: str
    model: str | None


class UsageRow(msgspec.Struct, kw_only=True):
    id: str
    user_id: str
    session_id: str | None
    provider: str | None
    model: str | None
    status: EndStatus
    input_tokens: int | None
    output_tokens: int | None
    cache_creation_input_tokens: int | None
    cache_read_input_tokens: int | None
    cost: int | None
    latency_ms: int | None
    first_delta_ms: int | None
    created_at: datetime
    stop_reason: StopReason | None = None


def session_row(row: sa.Row[Any]) -> SessionRow:
    return SessionRow(**_columns(row))


def message_row(row: sa.Row[Any]) -> MessageRow:
    return MessageRow(**_columns(row))


def run_row(row: sa.Row[Any]) -> RunRow:
    return RunRow(**_columns(row))


def user_row(row: sa.Row[Any]) -> UserRow:
    return UserRow(**_columns(row))


def token_row(row: sa.Row[Any]) -> TokenRow:
    return TokenRow(**_columns(row))


def preset_row(row: sa.Row[Any]) -> PresetRow:
    return PresetRow(**_columns(row))


def model_row(row: sa.Row[Any]) -> ModelRow:
    return ModelRow(**_columns(row))


def preference_row(row: sa.Row[Any]) -> PreferenceRow:
    return PreferenceRow(**_columns(row))


def _columns(row: sa.Row[Any]) -> Any:
    return row._mapping  # pyright: ignore[reportPrivateUsage]  (public, in spite of its name)
