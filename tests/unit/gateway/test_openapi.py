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
def spec() -> dict[str, Any]:
    return document(every_route())


@each_route
def test_every_route_is_described_beside_its_handler(route: web.RouteDef):
    assert description_of(route) is not None, f"@describe is missing above {route.handler}"
    assert (route.handler.__doc__ or "").strip(), f"{route.handler} says in no word what it does"


def test_the_document_is_valid(spec: dict[str, Any]):
    faults = list(OpenAPIV31SpecValidator(spec).iter_errors())

    assert faults == []


def test_every_operation_has_a_name_of_its_own(spec: dict[str, Any]):
    names = [
        operation["operationId"] for path in spec["paths"].values() for operation in path.values()
    ]

    assert sorted(set(names)) == sorted(names)


def test_every_reference_leads_somewhere(spec: dict[str, Any]):
    text = json.dumps(spec)
    references = {part.partition('"')[0] for part in text.split('"#/components/')[1:]}

    missing = [
        reference
        for reference in references
        if reference.partition("/")[2] not in spec["components"][reference.partition("/")[0]]
    ]

    assert references
    assert missing == []


def test_equal_names_of_two_dialects_are_two_components(spec: dict[str, Any]):
    schemas = spec["components"]["schemas"]

    assert "temperature" in schemas["assistant.NewSession"]["properties"]
    assert "enable_tools" in schemas["channels.NewSession"]["properties"]
    assert schemas["assistant.PageOfSessionView"] != schemas["channels.PageOfSessionView"]
