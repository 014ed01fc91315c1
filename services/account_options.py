"""What ``natterlog user`` and ``natterlog token`` may be told; :mod:`services.accounts` does it."""

import argparse


def add_user_commands(user: argparse.ArgumentParser) -> None:
    user.description = (
        "Who may use natterlog. Works on the system that is running. The user `local` owns what "
        "was made before the first token; a token made for him sees it."
    )
    commands = user.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, what in (
        ("add", "add a user; then make him a token"),
        ("disable", "let none of a user's tokens count, at once"),
        ("enable", "let a user's tokens count again"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.add_argument("user", metavar="NAME")
        command.set_defaults(work=f"user {name}")
    listing = commands.add_parser("list", help="list all users", description="List all users.")
    _as_json(listing)
    listing.set_defaults(work="user list")


def add_token_commands(token: argparse.ArgumentParser) -> None:
    token.description = (
        "The tokens by which users are known. Works on the system that is running. From the "
        "moment that the first one is made, nobody is let in without one."
    )
    commands = token.add_subparsers(metavar="COMMAND", required=True, title="commands")
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
    create.set_defaults(work="token create")
    listing = commands.add_parser(
        "list", help="list tokens, without what they are", description="List tokens."
    )
    listing.add_argument("user", metavar="NAME", nargs="?", help="of this user only")
    _as_json(listing)
    listing.set_defaults(work="token list")
    revoke = commands.add_parser(
        "revoke",
        help="let a token count no more, at once",
        description="Let a token count no more. Whatever it opened is closed.",
    )
    revoke.add_argument("token_id", metavar="ID")
    revoke.set_defaults(work="token revoke")


def _as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
