"""The route table as OpenAPI: whole, valid, and without two things under one name."""

import json
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.gateway.dialects.registry import over_http
from services.gateway.http.describe import description_of
from services.gateway.reference.openapi import document
from tests.support.described import every_route

ROUTES = over_http()

each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.handler.__name__)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return document(every_route())


@each_route
def test_every_route_is_described_beside_its_handler(route: web.RouteDef):
    assert description_of(route) is not None, f"@describe is missing above {route.handler}"
    assert (route.handler.__doc__ or "").strip(), f"{route.handler} says in no word what it does"


def test_the_document_is_valid(told: dict[str, Any]):
    faults = list(OpenAPIV31SpecValidator(told).iter_errors())

    assert faults == []


def test_every_operation_has_a_name_of_its_own(told: dict[str, Any]):
    names = [
        operation["operationId"] for path in told["paths"].values() for operation in path.values()
    ]

    assert sorted(set(names)) == sorted(names)


def test_every_reference_leads_somewhere(told: dict[str, Any]):
    text = json.dumps(told)
    places = {part.partition('"')[0] for part in text.split('"#/components/')[1:]}

    missing = [
        place
        for place in places
        if place.partition("/")[2] not in told["components"][place.partition("/")[0]]
    ]

    assert places
    assert missing == []


def test_equal_names_of_two_dialects_are_two_components(told: dict[str, Any]):
    schemas = told["components"]["schemas"]

    assert "temperature" in schemas["assistant.NewSession"]["properties"]
    assert "enable_tools" in schemas["channels.NewSession"]["properties"]
    assert schemas["assistant.PageOfSessionView"] != schemas["channels.PageOfSessionView"]
