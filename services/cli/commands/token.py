"""``natterlog token``: the tokens by which the users of the system that runs are known.

A token is made here, printed once, and sent nowhere: the store gets its SHA-256.
"""

import argparse
import hashlib
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta

from services.cli.commands.operator_command import day, run_as_operator, write_json, write_table
from shared.errors import InvalidRequest
from shared.ids import new_id, now
from shared.operating import CreateToken, ListTokens, Operator, RevokeToken
from shared.records import Token

GUESSABLE = 16
"""A token of one's own with fewer characters is called short."""
_MOST = 500
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The tokens by which users are known. Works on the system that is running. From the "
        "moment that the first one is made, nobody is let in without one."
    )
    parser.set_defaults(run=run_as_operator)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    create = commands.add_parser(
        "create",
        help="make a token, and print it",
        description="Make a token for a user. It is the last word on standard output, and shown "
        "this once: natterlog keeps only its SHA-256.",
    )
    create.add_argument("user", metavar="NAME")
    create.add_argument("--value", metavar="T", help="a token of your own instead of a random one")
    create.add_argument("--label", metavar="L", default="", help="what it is for")
    create.add_argument(
        "--expires",
        metavar="D",
        help="when it ends: in 30d, 12h, 45m or 2w, or on 2027-01-31 or 2027-01-31T12:00Z (UTC)",
    )
    create.set_defaults(command=create_token)
    listing = commands.add_parser(
        "list", help="list tokens, without what they are", description="List tokens."
    )
    listing.add_argument("user", metavar="NAME", nargs="?", help="of this user only")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(command=list_tokens)
    revoke = commands.add_parser(
        "revoke",
        help="let a token count no more, at once",
        description="Let a token count no more. Whatever it opened is closed.",
    )
    revoke.add_argument("token_id", metavar="ID")
    revoke.set_defaults(command=revoke_token)


async def create_token(operator: Operator, args: argparse.Namespace) -> None:
    value = secrets.token_urlsafe(32) if args.value is None else _own_value(args.value)
    request = CreateToken(
        user=args.user,
        token_id=new_id(),
        sha256=hashlib.sha256(value.encode()).hexdigest(),
        label=args.label,
        expires_at=expiry(args.expires, now()) if args.expires else None,
    )
    token = (await operator.ask(request)).token
    until = f", until {day(token.expires_at)}" if token.expires_at else ""
    if len(value) < GUESSABLE:
        sys.stderr.write("natterlog: this token is short, and might be guessed.\n")
    sys.stdout.write(f"Token {token.id} of {token.user}{until}. It is shown this once:\n{value}\n")


def _own_value(text: str) -> str:
    """A token that can be sent in a header and in a URL.

    Raises:
        InvalidRequest: it cannot.
    """
    if not (0 < len(text) <= _MOST and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidRequest(f"A token has 1 to {_MOST} visible ASCII characters, and no spaces.")
    return text


def expiry(text: str, present: datetime) -> datetime:
    """When a token ends: so long from now, or at a time (UTC where it names no zone).

    Raises:
        InvalidRequest: it is neither, or over.
    """
    duration = _DURATION.fullmatch(text)
    try:
        if duration:
            end = present + timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        else:
            end = datetime.fromisoformat(text)
            end = end.astimezone(UTC) if end.tzinfo else end.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text[:40]!r} is no time: say 30d, 12h, 45m or 2w, or a date as 2027-01-31."
        ) from None
    if end <= present:
        raise InvalidRequest(f"{text[:40]!r} is over already.")
    return end


async def list_tokens(operator: Operator, args: argparse.Namespace) -> None:
    tokens = (await operator.ask(ListTokens(user=args.user))).items
    if args.json:
        write_json(tokens)
        return
    head = ("id", "user", "label", "created", "expires", "state")
    write_table([head, *map(_row, tokens)])


def _row(token: Token) -> tuple[str, ...]:
    state = "valid"
    if token.revoked_at:
        state = "revoked"
    elif token.expires_at and token.expires_at <= now():
        state = "expired"
    expires = day(token.expires_at) if token.expires_at else "–"
    return token.id, token.user, token.label or "–", day(token.created_at), expires, state


async def revoke_token(operator: Operator, args: argparse.Namespace) -> None:
    token = (await operator.ask(RevokeToken(token_id=args.token_id))).token
    sys.stdout.write(f"Revoked {token.id} of {token.user}.\n")
