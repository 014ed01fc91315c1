"""Options that several commands have, and how their values are read."""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_examples(parser: argparse.ArgumentParser, examples: str) -> None:
    """Show ``examples`` below the options, line by line as they are; the description as well."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = examples


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="for programs: JSON, in lists one object a line"
    )


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=count_up_to(1000), default=20, metavar="N", help="at most (20)"
    )


def add_times(parser: argparse.ArgumentParser, *, about: str) -> None:
    parser.add_argument(
        "--since",
        type=time,
        metavar="TIME",
        help=f"{about} then or later: 10m, 2h, 3d (ago), 2026-11-26, or RFC 3339; UTC",
    )
    parser.add_argument("--until", type=time, metavar="TIME", help=f"{about} before then")


def time(text: str, *, now: datetime | None = None) -> datetime:
    """Read a time: ``10m`` (ago), ``2026-11-26`` (UTC) or RFC 3339.

    Raises:
        argparse.ArgumentTypeError: it is none of them.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected a time like 10m, 2h, 3d, 2026-11-26 or 2026-11-26T05:13:18Z, "
            f"and not {text[:40]!r}"
        ) from None


def count_up_to(most: int) -> Callable[[str], int]:
    """Reads a number from 1 to ``most``; raises argparse.ArgumentTypeError for any other text."""

    def count(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not (digits and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(
                f"expected a number, 1 to {most}, and not {text[:40]!r}"
            )
        return int(text)

    return count
