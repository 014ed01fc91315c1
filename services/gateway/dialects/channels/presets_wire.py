"""The wire of presets; they are shown as the store keeps them."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from services.gateway.dialects.channels.drf import Fields
from services.gateway.dialects.channels.wire import MaxTokens, Model, Temperature
from shared.commands import CreatePreset, UpdatePreset
from shared.ids import new_id

Name = Annotated[str, Meta(max_length=200, pattern=r"\S")]


class NewPreset(msgspec.Struct, frozen=True, kw_only=True):
    name: Name
    description: str = ""
    system_prompt: str | None = None
    model: Model | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    is_public: bool = False


class PresetChange(msgspec.Struct, frozen=True, kw_only=True):
    name: Name | UnsetType = UNSET
    description: str | UnsetType = UNSET
    system_prompt: str | UnsetType | None = UNSET
    model: Model | UnsetType | None = UNSET
    temperature: Temperature | UnsetType | None = UNSET
    max_tokens: MaxTokens | UnsetType | None = UNSET
    is_public: bool | UnsetType = UNSET


NEW_PRESET = Fields(NewPreset)
PRESET_CHANGE = Fields(PresetChange)
PRESET_REPLACEMENT = Fields(PresetChange, need=("name",))
"""With PUT what a new preset must have must be there; whatever else is left out stays."""


def create_preset(body: NewPreset, user: str) -> CreatePreset:
    fields: dict[str, Any] = msgspec.structs.asdict(body)
    return CreatePreset(user_id=user, preset_id=new_id(), title=fields.pop("name"), **fields)


def update_preset(body: PresetChange, user: str, preset_id: str) -> UpdatePreset:
    changes: dict[str, Any] = msgspec.structs.asdict(body)
    return UpdatePreset(user_id=user, preset_id=preset_id, title=changes.pop("name"), **changes)
