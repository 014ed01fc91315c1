"""How a dialect shows recordings: in the same frames that its live clients are sent."""

from collections.abc import Callable
from typing import NamedTuple

from services.gateway.jobs.state import JobState
from services.gateway.replay.recording import Recording
from services.gateway.sessions.client_events import ClientEvent
from services.gateway.sessions.cursor import Cursor, CursorCodec

Translate = Callable[[Cursor, ClientEvent], list[bytes]]
"""The frames that show a client's next event, and where the client stands after it."""
TranslateJob = Callable[[JobState], list[bytes]]
"""What is new of a job to one client."""


class ConversationFormat(NamedTuple):
    """How a dialect shows a session's runs."""

    opening: Callable[[Recording, CursorCodec, Cursor], bytes]
    """What comes before anything that was recorded."""
    translator: Callable[[Recording, CursorCodec], Translate]
    """For one client, from the opening on."""
    one_run: bool = False
    """Whether one of its streams is about one run only."""
    cursors: bool = True
    """Whether a client can come back and go on."""
    shows_branches: bool = False
    """Whether it has a frame for another branch being shown."""


class JobFormat(NamedTuple):
    """How a dialect shows a job."""

    translator: Callable[[], TranslateJob]
