"""Identifiers and the clock, so that nobody else needs to know where they come from."""

import hashlib
import math
import time
from datetime import UTC, datetime
from uuid import UUID

import uuid6

LOCAL_USER = "00000000-0000-7000-8000-000000000001"
"""Everybody, while no token was ever made (docs/api.md)."""


def new_id() -> str:
    """A UUIDv7: unique, and rising with time."""
    return str(uuid6.uuid7())


def id_after(before: str, *parts: str) -> str:
    """The UUIDv7 that follows from its parts, with the time of ``before``: no chance in it.

    Two processes that know the same come to the same id.
    """
    digest = hashlib.sha256("\0".join((before, *parts)).encode()).digest()
    made = UUID(before).int >> 80 << 80
    chance = int.from_bytes(digest[:10]) & ~(0xF << 76 | 0x3 << 62)
    return str(UUID(int=made | 7 << 76 | 2 << 62 | chance))


def age(text: str) -> float:
    """How many seconds ago a UUIDv7 was made, by this machine's clock; of other UUIDs, infinity."""
    made = UUID(text)
    return time.time() - (made.int >> 80) / 1000 if made.version == 7 else math.inf


def is_id(text: str) -> bool:
    """Whether ``text`` is a UUID in its canonical form; only such may become a subject's token."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def now() -> datetime:
    """The present, in UTC, to the millisecond."""
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)
