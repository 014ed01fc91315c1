"""Files that messages refer to, as their own facts tell of them.

An attachment is a session of its own, of the mode ``file``, whose one run reads
it.  What it is called stands there and nowhere else, so that erasing it erases it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.cli.recorder.recorded_log import RecordedFact, RecordedLog
from shared.attachments import attached_in
from shared.events import FilePlan, FileRef, RunEnded, TodoProcess


class Attached(NamedTuple):
    """A file that is there."""

    ref: FileRef
    seq: int
    """The fact with which it came."""
    run_id: str
    """The run that read it."""
    final: RunEnded | None

    @property
    def notes(self) -> list[str]:
        """What was cut of it, or could not be read, when it was."""
        return self.final.notes if self.final is not None else []


def told_of(facts: Iterable[RecordedFact]) -> Attached | None:
    """What a file's facts say of it; None when they are no file's, or erased."""
    found: Attached | None = None
    for fact in facts:
        match fact.fact:
            case TodoProcess(plan=FilePlan(file=ref)) if found is None:
                found = Attached(ref, fact.seq, fact.address.run, None)
            case RunEnded() as final if found is not None:
                found = found._replace(final=final)
            case _:
                pass
    return found


async def attached_files(log: RecordedLog, facts: Sequence[RecordedFact]) -> dict[str, Attached]:
    """The files of a session's messages that are there, its user's alone, by their ids.

    Raises:
        NatterlogError, BusError: they could not be read.
    """
    owners = {fact.address.user for fact in facts}
    found: dict[str, Attached] = {}
    for file_id in attached_in(fact.fact for fact in facts):
        own = [fact async for fact in log.session_facts(file_id) if fact.address.user in owners]
        if (file := told_of(own)) is not None:
            found[file_id] = file
    return found
