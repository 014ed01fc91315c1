"""A fact at its sequence: what whoever reads the log is given."""

from typing import Self

import msgspec

from shared.events import AnyFact, FactImported, decode_fact, encode
from shared.subjects import Address, fact_kind, parse


class LogEntry(msgspec.Struct, frozen=True):
    """A fact, where it lies in the log and how it is written there."""

    seq: int
    subject: str
    address: Address
    """Whose fact it is: the subject's beginning."""
    data: bytes
    """Its JSON, whole: no field of it lies in FILES."""
    fact: AnyFact
    imported: FactImported | None = None
    """How it came here, where it happened in another log."""

    @classmethod
    def read(cls, seq: int, subject: str, data: bytes) -> Self:
        """The entry with this JSON, as it lies in the log.

        Raises:
            msgspec.ValidationError: this version cannot read it.
        """
        return cls(seq, subject, parse(subject), data, decode_fact(data))

    @classmethod
    def of(cls, seq: int, subject: str, fact: AnyFact) -> Self:
        """The entry of a fact that is at hand."""
        return cls(seq, subject, parse(subject), encode(fact), fact)

    @property
    def kind(self) -> str:
        """The subject's end: ``session.created``, ``todo.chat.0``, ``final``, …"""
        return fact_kind(self.subject)

    def unwrapped(self) -> "LogEntry":
        """The entry as if what an import brought had happened here.

        Raises:
            msgspec.ValidationError: this version cannot read what is inside.
        """
        wrapper = self.fact
        if not isinstance(wrapper, FactImported):
            return self
        data = bytes(wrapper.fact)
        fact = decode_fact(data)
        return LogEntry(self.seq, self.address.subject_of(fact), self.address, data, fact, wrapper)
