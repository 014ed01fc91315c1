"""The sockets and the bus as AsyncAPI: whole, and true to the code and to docs/events.md."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from aiohttp import web

from services.gateway.dialects.registry import over_sockets
from services.gateway.http.describe import socket_description_of
from services.gateway.reference.asyncapi import document
from shared import commands, events, subjects
from tests.support.described import every_route

EVENTS_MD = Path(__file__).parents[3] / "docs" / "events.md"
EVENTS = [*get_args(events.AnyFact), *get_args(events.AnyTokenEvent)]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return document(every_route())


@pytest.mark.parametrize("route", over_sockets(), ids=lambda route: route.path)
def test_every_socket_is_described_beside_its_handler(route: web.RouteDef):
    description = socket_description_of(route)

    assert description is not None, f"@describe_socket is missing above {route.handler}"
    assert description.receives
    assert description.sends
    assert (route.handler.__doc__ or "").strip()


def test_every_reference_leads_somewhere(spec: dict[str, Any]):
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(spec)))

    def leads(reference: str) -> bool:
        at = spec
        for step in reference.split("/"):
            if step not in at:
                return False
            at = at[step]
        return True

    assert len(references) > 100
    assert [reference for reference in sorted(references) if not leads(reference)] == []


def test_every_operation_speaks_of_messages_of_its_channel(spec: dict[str, Any]):
    for operation in spec["operations"].values():
        channel = operation["channel"]["$ref"]
        assert operation["action"] in ("send", "receive")
        assert operation["messages"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")


def test_every_place_in_an_address_is_a_parameter(spec: dict[str, Any]):
    for channel in spec["channels"].values():
        parameters = re.findall(r"\{(\w+)\}", channel["address"] or "")
        assert list(channel.get("parameters", {})) == parameters


def test_every_schema_is_one(spec: dict[str, Any]):
    for schema in spec["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)


def test_facts_lie_under_the_subjects_of_the_document_of_events(spec: dict[str, Any]):
    row = r"^\| `([\w.]+)` \| `\w+` \| `(\S+)` \|"
    table = dict(re.findall(row, EVENTS_MD.read_text(), re.MULTILINE))

    found: dict[str, str] = {}
    for event in EVENTS:
        tag = str(event.__struct_config__.tag)
        channel = spec["channels"].get(f"fact.{tag}", spec["channels"]["attempt"])
        short = re.sub(r"\{(user|session|run)\}", lambda field: field[1][0], channel["address"])
        found[tag] = short.replace("{", "<").replace("}", ">")

    assert found == table


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.__struct_config__.tag))
def test_the_example_of_every_event_fits_its_schema(
    event: type[msgspec.Struct], spec: dict[str, Any]
):
    section = EVENTS_MD.read_text().split(f"### `{event.__struct_config__.tag}`")[1]
    example = json.loads(section.split("```json\n")[1].split("```")[0])
    schema = spec["components"]["messages"][f"events.{event.__name__}"]["payload"]

    validator = jsonschema.Draft7Validator({**schema, "components": spec["components"]})
    assert [fault.message for fault in validator.iter_errors(example)] == []


def _is_request(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, commands.Request) and hasattr(kind, "name")


def test_every_request_to_the_store_is_told_with_its_answer(spec: dict[str, Any]):
    requests = {kind.name for kind in vars(commands).values() if _is_request(kind)}

    answered = {
        name.removeprefix("request.")
        for name, operation in spec["operations"].items()
        if name.startswith("request.") and operation["reply"]["messages"]
    }

    assert answered == requests


def test_every_subject_of_the_bus_is_told(spec: dict[str, Any]):
    here = subjects.Address("{user}", "{session}", "{run}")
    spelled = [here.schedule, here.tokens]
    for function in vars(subjects).values():
        if inspect.isfunction(function) and function.__module__ == subjects.__name__:
            parameters = inspect.signature(function).parameters
            spells = inspect.signature(function).return_annotation is str
            if spells and not {"subject", "fact", "kind"} & parameters.keys():
                spelled.append(str(function(*(f"{{{name}}}" for name in parameters))))

    addresses = [channel["address"] or "" for channel in spec["channels"].values()]
    exact = [s for s in spelled if re.match(r"(sig|dead|tok|sched|\$KV)\.[^*>]+$", s)]

    assert len(exact) >= 6
    assert [subject for subject in exact if subject not in addresses] == []
