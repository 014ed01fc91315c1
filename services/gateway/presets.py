"""What a new session takes from a preset, in whatever dialect it is opened."""

from typing import TypeVar

import msgspec

from shared.commands import GetPreset
from shared.errors import NotFound
from shared.ids import is_id
from shared.records import Preset
from shared.store_client import StoreClient

Wish = TypeVar("Wish", bound=msgspec.Struct)

_CHOICES = ("model", "system_prompt", "temperature", "max_tokens")


async def find_preset(
    store: StoreClient, user: str, preset_id: str, *, path: str | None = None
) -> Preset:
    """A preset of the user's own, or one that is shared; ``path`` is where it was named.

    Raises:
        NotFound: there is none that the user sees.
    """
    try:
        if not is_id(preset_id):
            raise NotFound("There is no such preset.")
        return (await store.ask(GetPreset(user_id=user, preset_id=preset_id))).preset
    except NotFound as error:
        raise NotFound(error.message, path=path) from error


def with_preset(wish: Wish, preset: Preset) -> Wish:
    """The wish for a new session, with the preset's choices where it makes none."""
    missing = [choice for choice in _CHOICES if getattr(wish, choice) is None]
    return msgspec.structs.replace(wish, **{choice: getattr(preset, choice) for choice in missing})
