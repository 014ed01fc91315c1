"""``natterlog models``: what the providers offer, as the system that is running knows it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from services.cli.display.terminal import aligned
from services.supervisor.run_file import running_nats_url
from shared.bus import Bus, BusError
from shared.commands import ListModels
from shared.errors import NatterlogError
from shared.ids import LOCAL_USER
from shared.llm_client import LlmClient
from shared.offers import ListOpenCircuits, OpenCircuit, Refresh
from shared.records import Model
from shared.settings import read_settings
from shared.store_client import StoreClient

HEADS = ("MODEL", "DEFAULT", "CONTEXT", "TOOLS", "VISION", "STATE")


class Listed(NamedTuple):
    """The models, what is left alone, and what could not be found out."""

    models: list[Model]
    circuits: list[OpenCircuit]
    faults: list[str]


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
    for fault in listed.faults:
        sys.stderr.write(f"natterlog models: {fault}\n")
    sys.stdout.write((_json if args.json else table)(listed.models, listed.circuits))
    return 0


async def _listed(url: str, *, sync: bool) -> Listed:
    async with Bus(url, name="models") as bus:
        store, workers, faults = StoreClient(bus), LlmClient(bus), list[str]()
        if sync:
            refreshed = await workers.ask(Refresh())
            store.heard(refreshed.seq)
            faults = [provider.error for provider in refreshed.unavailable]
        models = (await store.ask(ListModels(user_id=LOCAL_USER))).items
        try:
            circuits = (await workers.ask(ListOpenCircuits())).circuits
        except NatterlogError:
            circuits = []
            faults.append("no llm_worker answers, so whether a model keeps failing is not known.")
        return Listed(models, circuits, faults)


def table(models: list[Model], circuits: Sequence[OpenCircuit] = ()) -> str:
    """The models in aligned columns, and how each is."""
    rows = [_row(model, _circuit_of(model, circuits)) for model in models]
    return "".join(f"{line}\n" for line in aligned([HEADS, *rows]))


def _circuit_of(model: Model, circuits: Sequence[OpenCircuit]) -> OpenCircuit | None:
    """The circuit that keeps calls of ``model`` back: its provider's as a whole, or its own."""
    whole, own = (model.provider, None), (model.provider, model.name)
    found = {(circuit.provider, circuit.model): circuit for circuit in circuits}
    return found.get(whole) or found.get(own)


def _row(model: Model, circuit: OpenCircuit | None) -> tuple[str, ...]:
    return (
        model.id,
        "yes" if model.is_default else "",
        "" if model.context_window is None else f"{model.context_window:,}",
        "yes" if model.supports_tools else "",
        "yes" if model.supports_vision else "",
        _state(model, circuit),
    )


def _state(model: Model, circuit: OpenCircuit | None) -> str:
    if not model.is_available:
        return "no longer on offer"
    if circuit is None:
        return ""
    if circuit.state == "half_open":
        return "kept failing; one call tries it now"
    what = "kept failing" if circuit.model else "its provider cannot be reached"
    seen = f", see run {circuit.last_run[:18]}" if circuit.last_run else ""
    return f"{what}{seen}; left alone for {circuit.retry_after} s more"


def _json(models: list[Model], circuits: Sequence[OpenCircuit]) -> str:
    listed = [
        {
            **msgspec.structs.asdict(model),
            "circuit": circuit.state if (circuit := _circuit_of(model, circuits)) else "closed",
        }
        for model in models
    ]
    return msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n"


def _fail(sentence: str) -> int:
    sys.stderr.write(f"natterlog models: {sentence}\n")
    return 1
