"""``natterlog user``: who may use the system that runs."""

import argparse
import sys

from services.cli.commands.operator_command import day, run_as_operator, write_json, write_table
from shared.ids import new_id
from shared.operating import CreateUser, EnableUser, ListUsers, Operator
from shared.records import User


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Who may use natterlog. Works on the system that is running. The user `local` owns what "
        "was made before the first token; a token made for him sees it."
    )
    parser.set_defaults(run=run_as_operator)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, help_text, command in (
        ("add", "add a user; then make him a token", add_user),
        ("disable", "let none of a user's tokens count, at once", disable_user),
        ("enable", "let a user's tokens count again", enable_user),
    ):
        subparser = commands.add_parser(
            name, help=help_text, description=f"{help_text.capitalize()}."
        )
        subparser.add_argument("user", metavar="NAME")
        subparser.set_defaults(command=command)
    listing = commands.add_parser("list", help="list all users", description="List all users.")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(command=list_users)


async def add_user(operator: Operator, args: argparse.Namespace) -> None:
    answer = await operator.ask(CreateUser(account_id=new_id(), user=args.user))
    name = answer.user.name
    sys.stdout.write(f"Added {name}. Now make a token: natterlog token create {name}\n")


async def disable_user(operator: Operator, args: argparse.Namespace) -> None:
    answer = await operator.ask(EnableUser(user=args.user, enabled=False))
    sys.stdout.write(f"Disabled {answer.user.name}.\n")


async def enable_user(operator: Operator, args: argparse.Namespace) -> None:
    answer = await operator.ask(EnableUser(user=args.user, enabled=True))
    sys.stdout.write(f"Enabled {answer.user.name}.\n")


async def list_users(operator: Operator, args: argparse.Namespace) -> None:
    users = (await operator.ask(ListUsers())).items
    if args.json:
        write_json(users)
        return
    write_table([("name", "id", "created", "tokens", "state"), *map(_row, users)])


def _row(user: User) -> tuple[str, ...]:
    state = "disabled" if user.disabled_at else "enabled"
    return user.name, user.id, day(user.created_at), str(user.tokens), state
