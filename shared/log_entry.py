"""A fact at its sequence: what whoever reads the log is given."""

from typing import Self

import msgspec

from shared.events import AnyFact, FactImported, decode_fact, encode
from shared.subjects import Address, fact_kind, kind_of_fact, parse


class LogEntry(msgspec.Struct, frozen=True):
    """A fact, where it lies in the log and how it is written there."""

    seq: int
    address: Address
    kind: str
    """The end of its subject: ``session.created``, ``todo.chat.0``, ``final``, …"""
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
        return cls(seq, parse(subject), fact_kind(subject), data, decode_fact(data))

    @classmethod
    def of(cls, seq: int, subject: str, fact: AnyFact) -> Self:
        """The entry of a fact that is at hand."""
        return cls(seq, parse(subject), fact_kind(subject), encode(fact), fact)

    @property
    def subject(self) -> str:
        return self.address.fact(self.kind)

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
        return LogEntry(self.seq, self.address, kind_of_fact(fact), data, fact, wrapper)
