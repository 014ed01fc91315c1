"""The files that are attached to messages, read from the files' own facts.

An attachment is a session of its own, of the mode ``file``, whose one run reads it.
Its name is recorded there alone, so that erasing that session erases the name as well.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from services.cli.recorder.recorded_log import RecordedLog
from shared.attachments import attached_in
from shared.events import FilePlan, FileRef, RunEnded, TodoProcess
from shared.log_entry import LogEntry


class AttachedFile(NamedTuple):
    """An attachment that was not erased."""

    ref: FileRef
    seq: int
    """The fact that holds it."""
    run_id: str
    """The run that read it."""
    final: RunEnded | None

    @property
    def notes(self) -> list[str]:
        """What of it was cut or could not be read, as noted at the end of its run."""
        return self.final.notes if self.final is not None else []


def attached_file(facts: Iterable[LogEntry]) -> AttachedFile | None:
    """The attachment whose facts these are; None when it was erased, or is none."""
    found: AttachedFile | None = None
    for fact in facts:
        match fact.fact:
            case TodoProcess(plan=FilePlan(file=ref)) if found is None:
                found = AttachedFile(ref, fact.seq, fact.address.run, None)
            case RunEnded() as final if found is not None:
                found = found._replace(final=final)
            case _:
                pass
    return found


async def attached_files(log: RecordedLog, facts: Sequence[LogEntry]) -> dict[str, AttachedFile]:
    """The attachments of a session's messages by their ids, as far as they are its user's.

    Raises:
        NatterlogError, BusError: they could not be read.
    """
    owners = {fact.address.user for fact in facts}
    found: dict[str, AttachedFile] = {}
    for file_id in attached_in(fact.fact for fact in facts):
        own = [fact async for fact in log.session_facts(file_id) if fact.address.user in owners]
        if (file := attached_file(own)) is not None:
            found[file_id] = file
    return found
