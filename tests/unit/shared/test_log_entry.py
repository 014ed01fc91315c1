"""A fact at its sequence."""

import msgspec
import pytest

from shared.events import CancelRequested, FactImported, SessionDeleted, encode
from shared.ids import now
from shared.log_entry import LogEntry
from shared.subjects import Address

CANCEL = CancelRequested(at=now())
SUBJECT = "evt.u.s.r.cancel"


def test_an_entry_is_read_as_it_is_written():
    entry = LogEntry.read(7, SUBJECT, encode(CANCEL))

    assert entry == LogEntry(7, SUBJECT, Address("u", "s", "r"), encode(CANCEL), CANCEL)
    assert entry == LogEntry.of(7, SUBJECT, CANCEL)
    assert entry.kind == "cancel"


def test_what_cannot_be_read_is_no_entry():
    with pytest.raises(msgspec.ValidationError):
        LogEntry.read(7, SUBJECT, b'{"type": "of a later version"}')


def test_what_was_imported_stands_where_it_came_to_be_here():
    data = msgspec.Raw(encode(CANCEL))
    wrapper = FactImported(
        at=now(), what="cancel", fact=data, file="digest", position=0, of=1, origin=3
    )

    entry = LogEntry.of(7, "evt.u.s.r.imported", wrapper).unwrapped()

    assert entry == LogEntry(7, SUBJECT, Address("u", "s", "r"), bytes(data), CANCEL, wrapper)


def test_what_happened_here_is_unwrapped_already():
    entry = LogEntry.of(7, SUBJECT, CANCEL)

    assert entry.unwrapped() is entry


def test_an_older_subject_stays_as_it_is_and_its_kind_is_todays():
    deleted = SessionDeleted(at=now())

    entry = LogEntry.of(7, "evt.u.s._.deleted", deleted)

    assert (entry.subject, entry.kind) == ("evt.u.s._.deleted", "session.deleted")
