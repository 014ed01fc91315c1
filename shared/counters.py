"""Counters on JetStream: what is added to one, by whomever, is added once and seen by all.

Every message of a counter's subject holds the total that it made.  So what was
counted since a time is the difference between two of them, to the message.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.bus import ApiError, Bus, BusError


class Since(NamedTuple):
    """The first change of a counter since a time: when, and the total before it."""

    at: datetime
    before: int


class _Total(msgspec.Struct):
    val: int = 0


class _Ack(msgspec.Struct):
    val: int | None = None


_decode_ack = msgspec.json.Decoder(_Ack, strict=False).decode
_decode_total = msgspec.json.Decoder(_Total, strict=False).decode


async def add(bus: Bus, subject: str, *, timeout: float) -> int:
    """Add one, and answer the total.

    Raises:
        BusError: it may have been added, or not.
    """
    answer = await bus.call(subject, headers=_adding(1), timeout=timeout)
    total = _decode_ack(answer.data).val
    if total is None:
        raise ApiError(answer.status, "the counter refused")
    return total


def take_back(bus: Bus, subject: str) -> None:
    """Subtract one, some time soon, without waiting whether it succeeds."""
    bus.call_soon(subject, b"", lambda _: None, headers=_adding(-1), timeout=5.0)


async def since(
    bus: Bus, stream: str, subject: str, since: datetime, *, timeout: float
) -> Since | None:
    """The first change since ``since`` (UTC); None when there was none.

    One that was taken back counts although what it took back may be older: rather
    one too many than one too few.

    Raises:
        BusError: it could not be read.
    """
    query = {"start_time": since, "next_by_subj": subject}
    answer = await bus.call(
        f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(query), timeout=timeout
    )
    if answer.status == 404:
        return None
    at, added = answer.header(b"Nats-Time-Stamp"), answer.header(b"Nats-Incr")
    if answer.status or at is None or added is None:
        raise BusError(f"the counter cannot be read ({answer.status})")
    total = _decode_total(answer.data).val
    return Since(datetime.fromisoformat(at[:26].rstrip("Z") + "+00:00"), total - max(0, int(added)))


def _adding(number: int) -> bytes:
    return f"NATS/1.0\r\nNats-Incr: {number}\r\n\r\n".encode()
