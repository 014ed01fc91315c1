"""Which files a session's messages refer to."""

from collections.abc import Iterable

from shared.events import AnyFact, RunWaiting, SessionCreated, TodoChat, inside
from shared.ids import is_id


def attached_in(facts: Iterable[AnyFact | None]) -> list[str]:
    """The files that a session's messages refer to, by its facts."""
    found: dict[str, None] = {}
    for fact in facts:
        match None if fact is None else inside(fact):
            case RunWaiting(turn=turn) | TodoChat(turn=turn):
                found |= dict.fromkeys(turn.attachments)
            case SessionCreated(history=history) if history is not None:
                for message in history.messages:
                    found |= dict.fromkeys(message.attachments)
            case _:
                pass
    return [file_id for file_id in found if is_id(file_id)]
