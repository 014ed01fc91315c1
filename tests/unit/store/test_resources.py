"""What users have outside any session: each fact, and what it does to the rows."""

from datetime import timedelta
from typing import Any

import pytest

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
from shared.records import Preset
from shared.subjects import user_address
from tests.support.scripted_log import START, USER
from tests.unit.store.story import ProjectedLog, dump, tables

OTHER = "01900000-0000-7000-8000-00000000000b"


class Library(ProjectedLog):
    """What users have outside any session."""

    def append_for(self, user: str, fact: LibraryFact) -> None:
        self.append_at(user_address(user), fact)

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
        self.append_for(user, fact)
        return preset_id

    def get(self, user: str, preset_id: str) -> Preset:
        request = GetPreset(user_id=user, preset_id=preset_id)
        return get_preset(self.connection, request).preset

    def names(self, user: str) -> list[str]:
        page = list_presets(self.connection, ListPresets(user_id=user))
        assert page.total == len(page.items)
        return [preset.name for preset in page.items]


@pytest.fixture
def library():
    with tables() as connection:
        yield Library(connection)


def test_a_preset_is_as_it_was_created(library: Library):
    preset_id = library.preset(name="Editor", description="Shortens")

    assert library.get(USER, preset_id) == Preset(
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


def test_a_change_names_only_what_changed(library: Library):
    preset_id = library.preset(name="Editor")

    later = START + timedelta(seconds=5)
    change = PresetUpdated(at=later, preset_id=preset_id, name="Strict editor", temperature=None)
    library.append_for(USER, change)

    preset = library.get(USER, preset_id)
    assert (preset.name, preset.temperature) == ("Strict editor", None)
    assert preset.system_prompt == "Be strict."


def test_a_private_preset_exists_for_its_owner_only(library: Library):
    private = library.preset(name="Mine")
    library.preset(name="Shared", is_public=True)

    with pytest.raises(NotFound):
        library.get(OTHER, private)
    assert library.names(USER) == ["Mine", "Shared"]
    assert library.names(OTHER) == ["Shared"]


def test_a_deleted_preset_is_gone_and_its_id_free_of_it(library: Library):
    preset_id = library.preset()

    library.append_for(USER, PresetDeleted(at=START, preset_id=preset_id))

    with pytest.raises(NotFound):
        library.get(USER, preset_id)


def test_facts_about_a_preset_of_somebody_else_change_nothing(library: Library):
    preset_id = library.preset(is_public=True)

    library.append_for(OTHER, PresetUpdated(at=START, preset_id=preset_id, name="Mine!"))
    library.append_for(OTHER, PresetDeleted(at=START, preset_id=preset_id))

    assert library.get(OTHER, preset_id).name == "Editor"


def test_all_at_once_gives_the_same_rows_as_one_after_the_other(library: Library):
    kept, gone = library.preset(name="Kept"), library.preset(name="Gone")
    library.append_for(USER, PresetUpdated(at=START, preset_id=kept, is_public=True))
    library.append_for(USER, PresetDeleted(at=START, preset_id=gone))
    before = dump(library.connection)

    clear(library.connection)
    apply(library.connection, library.entries, len(library.entries))

    assert dump(library.connection) == before


# -- users and tokens ------------------------------------------------------------------


def token(token_id: str, sha256: str) -> TokenCreated:
    return TokenCreated(at=START, token_id=token_id, sha256=sha256, label="", expires_at=None)


def check(library: Library, sha256: str) -> str | None:
    """Whose token it is, if it counts."""
    request = CheckToken(user_id=USER, sha256=sha256)
    holder = check_token(library.connection, request).holder
    return None if holder is None else holder.user_id


def test_a_token_is_its_users_until_it_is_revoked(library: Library):
    made = [check_token(library.connection, CheckToken(user_id=USER, sha256="")).made]
    library.append_for(USER, UserCreated(at=START, name="alice"))
    library.append_for(USER, token("t", "a" * 64))
    seen = [check(library, "a" * 64), check(library, "b" * 64)]

    library.append_for(USER, TokenRevoked(at=START, token_id="t"))

    made.append(check_token(library.connection, CheckToken(user_id=USER, sha256="")).made)
    assert [*seen, check(library, "a" * 64)] == [USER, None, None]
    assert made == [False, True]


def test_tokens_of_a_disabled_user_do_not_count_until_he_is_enabled(library: Library):
    library.append_for(USER, UserCreated(at=START, name="alice"))
    library.append_for(USER, token("t", "a" * 64))

    library.append_for(USER, UserDisabled(at=START))
    disabled = check(library, "a" * 64)
    library.append_for(USER, UserEnabled(at=START))

    assert (disabled, check(library, "a" * 64)) == (None, USER)


def test_a_token_is_not_revoked_by_a_fact_of_somebody_else(library: Library):
    library.append_for(USER, UserCreated(at=START, name="alice"))
    library.append_for(USER, token("t", "a" * 64))

    library.append_for(OTHER, TokenRevoked(at=START, token_id="t"))
    library.append_for(OTHER, UserDisabled(at=START))

    assert check(library, "a" * 64) == USER
