"""What users have outside any session: each fact, and what it does to the rows."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.store.accounts import check_token
from services.store.applying import apply, clear
from services.store.presets import get_preset, list_presets
from shared import ids
from shared.commands import CheckToken, GetPreset, ListPresets
from shared.errors import NotFound
from shared.events import (
    LibraryFact,
    PresetCreated,
    PresetDeleted,
    PresetUpdated,
    TokenCreated,
    TokenRevoked,
    UserCreated,
    UserDisabled,
    UserEnabled,
)
from shared.log_entry import LogEntry
from shared.records import Preset
from shared.subjects import user_address
from tests.unit.store.story import START, USER, dump, tables

OTHER = "01900000-0000-7000-8000-00000000000b"


class Told:
    """Facts that were told, and the tables that know of them."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.links: list[LogEntry] = []

    def tell(self, user: str, happened: str, fact: LibraryFact) -> None:
        subject = user_address(user).fact(happened)
        self.links.append(LogEntry.of(len(self.links) + 1, subject, fact))
        apply(self.connection, self.links[-1:], len(self.links))

    def preset(self, user: str = USER, preset_id: str | None = None, **fields: Any) -> str:
        preset_id = preset_id or ids.new_id()
        fact = PresetCreated(
            at=START,
            preset_id=preset_id,
            **{
                "name": "Editor",
                "description": "",
                "system_prompt": "Be strict.",
                "model": None,
                "temperature": 0.2,
                "max_tokens": None,
                "is_public": False,
                **fields,
            },
        )
        self.tell(user, "preset.created", fact)
        return preset_id

    def get(self, user: str, preset_id: str) -> Preset:
        request = GetPreset(user_id=user, preset_id=preset_id)
        return get_preset(self.connection, request).preset

    def names(self, user: str) -> list[str]:
        page = list_presets(self.connection, ListPresets(user_id=user))
        assert page.total == len(page.items)
        return [preset.name for preset in page.items]


@pytest.fixture
def told():
    with tables() as connection:
        yield Told(connection)


def test_a_preset_is_as_it_was_created(told: Told):
    preset_id = told.preset(name="Editor", description="Shortens")

    assert told.get(USER, preset_id) == Preset(
        id=preset_id,
        name="Editor",
        description="Shortens",
        system_prompt="Be strict.",
        model=None,
        temperature=0.2,
        max_tokens=None,
        is_public=False,
        owner=USER,
    )


def test_a_change_names_only_what_changed(told: Told):
    preset_id = told.preset(name="Editor")

    later = START + timedelta(seconds=5)
    change = PresetUpdated(at=later, preset_id=preset_id, name="Strict editor", temperature=None)
    told.tell(USER, "preset.updated", change)

    preset = told.get(USER, preset_id)
    assert (preset.name, preset.temperature) == ("Strict editor", None)
    assert preset.system_prompt == "Be strict."


def test_a_private_preset_exists_for_its_owner_only(told: Told):
    private = told.preset(name="Mine")
    told.preset(name="Shared", is_public=True)

    with pytest.raises(NotFound):
        told.get(OTHER, private)
    assert told.names(USER) == ["Mine", "Shared"]
    assert told.names(OTHER) == ["Shared"]


def test_a_deleted_preset_is_gone_and_its_id_free_of_it(told: Told):
    preset_id = told.preset()

    told.tell(USER, "preset.deleted", PresetDeleted(at=START, preset_id=preset_id))

    with pytest.raises(NotFound):
        told.get(USER, preset_id)


def test_facts_about_a_preset_of_somebody_else_change_nothing(told: Told):
    preset_id = told.preset(is_public=True)

    told.tell(OTHER, "preset.updated", PresetUpdated(at=START, preset_id=preset_id, name="Mine!"))
    told.tell(OTHER, "preset.deleted", PresetDeleted(at=START, preset_id=preset_id))

    assert told.get(OTHER, preset_id).name == "Editor"


def test_all_at_once_gives_the_same_rows_as_one_after_the_other(told: Told):
    kept, gone = told.preset(name="Kept"), told.preset(name="Gone")
    told.tell(USER, "preset.updated", PresetUpdated(at=START, preset_id=kept, is_public=True))
    told.tell(USER, "preset.deleted", PresetDeleted(at=START, preset_id=gone))
    before = dump(told.connection)

    clear(told.connection)
    apply(told.connection, told.links, len(told.links))

    assert dump(told.connection) == before


# -- users and tokens ------------------------------------------------------------------


def token(token_id: str, sha256: str) -> TokenCreated:
    return TokenCreated(at=START, token_id=token_id, sha256=sha256, label="", expires_at=None)


def check(told: Told, sha256: str) -> str | None:
    """Whose token it is, if it counts."""
    request = CheckToken(user_id=USER, sha256=sha256)
    holder = check_token(told.connection, request).holder
    return None if holder is None else holder.user_id


def test_a_token_is_its_users_until_it_is_revoked(told: Told):
    made = [check_token(told.connection, CheckToken(user_id=USER, sha256="")).made]
    told.tell(USER, "user.created", UserCreated(at=START, name="alice"))
    told.tell(USER, "token.created", token("t", "a" * 64))
    seen = [check(told, "a" * 64), check(told, "b" * 64)]

    told.tell(USER, "token.revoked", TokenRevoked(at=START, token_id="t"))

    made.append(check_token(told.connection, CheckToken(user_id=USER, sha256="")).made)
    assert [*seen, check(told, "a" * 64)] == [USER, None, None]
    assert made == [False, True]


def test_tokens_of_a_disabled_user_do_not_count_until_he_is_enabled(told: Told):
    told.tell(USER, "user.created", UserCreated(at=START, name="alice"))
    told.tell(USER, "token.created", token("t", "a" * 64))

    told.tell(USER, "user.disabled", UserDisabled(at=START))
    disabled = check(told, "a" * 64)
    told.tell(USER, "user.enabled", UserEnabled(at=START))

    assert (disabled, check(told, "a" * 64)) == (None, USER)


def test_a_token_is_not_revoked_by_a_fact_of_somebody_else(told: Told):
    told.tell(USER, "user.created", UserCreated(at=START, name="alice"))
    told.tell(USER, "token.created", token("t", "a" * 64))

    told.tell(OTHER, "token.revoked", TokenRevoked(at=START, token_id="t"))
    told.tell(OTHER, "user.disabled", UserDisabled(at=START))

    assert check(told, "a" * 64) == USER
