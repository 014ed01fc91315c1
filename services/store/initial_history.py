"""What a session is to begin with, on its way from whoever imports it."""

import msgspec

from shared import objects
from shared.bus import Bus
from shared.errors import Conflict
from shared.events import History
from shared.objects import ObjectMissing


async def read_history(bus: Bus, name: str | None) -> History | None:
    """The history that lies in FILES, where it was too much for a request.

    Raises:
        Conflict: it is not there any more.
    """
    if name is None:
        return None
    try:
        return msgspec.json.decode(await objects.get(bus, name), type=History)
    except ObjectMissing as error:
        raise Conflict("What this session begins with is gone: send it again.") from error
