"""When a job may be due: nats-server keeps its schedule, and its clock has an end."""

from datetime import UTC, datetime

from shared.errors import InvalidRequest

LATEST = datetime(2262, 4, 11, tzinfo=UTC)
"""On this day nats-server's 63 bits of nanoseconds end; what is scheduled for later begins at
once."""


def check_due(due: datetime, *, path: str) -> None:
    """Make sure that a job can be scheduled for then.

    Raises:
        InvalidRequest: it has no zone, or is too late.
    """
    if due.tzinfo is None:
        raise InvalidRequest("A time has a zone.", path=path)
    if due > LATEST:
        raise InvalidRequest(
            f"The latest time for a job is {LATEST:%Y-%m-%dT%H:%M:%SZ}.", path=path
        )
