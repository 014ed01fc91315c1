"""``natterlog models``: what the providers offer, as the system that is running knows it."""

import argparse
import asyncio
import os
import sys
from typing import NamedTuple

import msgspec

from services.cli.display.terminal import aligned
from services.supervisor.run_file import running_nats_url
from shared.bus import Bus, BusError
from shared.commands import ListModels
from shared.errors import NatterlogError
from shared.ids import LOCAL_USER
from shared.llm_client import LlmClient
from shared.offers import Refresh, UnavailableProvider
from shared.records import Model
from shared.settings import read_settings
from shared.store_client import StoreClient

HEADS = ("MODEL", "DEFAULT", "CONTEXT", "TOOLS", "VISION", "STATE")


class Listed(NamedTuple):
    """The models, and the providers that could not be asked when they were synced."""

    models: list[Model]
    unavailable: list[UnavailableProvider]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the models that the providers offer, and what each can do, as the "
        "system that is running knows it."
    )
    parser.add_argument("--sync", action="store_true", help="ask the providers first")
    parser.add_argument("--json", action="store_true", help="as JSON, with every field")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    nats_url = running_nats_url(read_settings(os.environ))
    if nats_url is None:
        return _fail("nothing is running here; start it with `natterlog up`.")
    try:
        listed = asyncio.run(_listed(nats_url, sync=args.sync))
    except (NatterlogError, BusError, OSError) as error:
        return _fail(str(error))
    for provider in listed.unavailable:
        sys.stderr.write(f"natterlog models: {provider.error}\n")
    text = _json(listed.models) if args.json else table(listed.models)
    sys.stdout.write(text)
    return 0


async def _listed(url: str, *, sync: bool) -> Listed:
    async with Bus(url, name="models") as bus:
        store, unavailable = StoreClient(bus), list[UnavailableProvider]()
        if sync:
            refreshed = await LlmClient(bus).ask(Refresh())
            store.heard(refreshed.seq)
            unavailable = refreshed.unavailable
        return Listed((await store.ask(ListModels(user_id=LOCAL_USER))).items, unavailable)


def table(models: list[Model]) -> str:
    """The models in aligned columns."""
    return "".join(f"{line}\n" for line in aligned([HEADS, *map(_row, models)]))


def _row(model: Model) -> tuple[str, ...]:
    return (
        model.id,
        "yes" if model.is_default else "",
        "" if model.context_window is None else f"{model.context_window:,}",
        "yes" if model.supports_tools else "",
        "yes" if model.supports_vision else "",
        "" if model.is_available else "no longer on offer",
    )


def _json(models: list[Model]) -> str:
    return msgspec.json.format(msgspec.json.encode(models), indent=2).decode() + "\n"


def _fail(sentence: str) -> int:
    sys.stderr.write(f"natterlog models: {sentence}\n")
    return 1
