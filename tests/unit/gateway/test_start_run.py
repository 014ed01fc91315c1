"""No dialect begins a run without counting it, and no route is for everybody by accident."""

import ast
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest

from services import gateway
from services.gateway.dialects.registry import over_http
from services.gateway.http.describe import description_of
from services.gateway.http.start_run import RunPermit
from shared.commands import (
    ContinueReply,
    CreateJob,
    EditMessage,
    Regenerate,
    Request,
    SendMessage,
    StartsRun,
)
from shared.ids import LOCAL_USER
from shared.store_client import StoreClient

PUBLIC = {
    *("/", "/livez", "/readyz", "/metrics", "/docs", "/api/openapi.json", "/api/asyncapi.json"),
    "/ai-chat/api/health/llm_server",
}
"""What is promised to be for everybody; some of it is still to come."""


def test_only_one_module_of_the_gateway_begins_runs():
    users = [
        path.name
        for path in sorted(Path(gateway.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "start_run"
    ]

    assert users == ["start_run.py"]


def test_whatever_begins_a_run_is_counted():
    assert get_origin(get_type_hints(RunPermit.start)["command"]) is StartsRun
    assert set(StartsRun.__subclasses__()) == {
        *(SendMessage, EditMessage, Regenerate, ContinueReply),
        CreateJob,
    }


async def test_the_store_cannot_be_asked_past_the_count():
    bus: Any = None
    request: Any = SendMessage(user_id=LOCAL_USER, session_id="s", content="Hi")

    with pytest.raises(TypeError, match="counted first"):
        await StoreClient(bus).ask(request)


def test_a_request_says_what_it_is_once():
    names = [kind.name for kind in everything(Request) if "name" in vars(kind)]

    assert len(names) == len(set(names)) > 20


def everything(kind: type[Request]) -> list[type[Request]]:
    """The kinds below, however deep."""
    return [one for below in kind.__subclasses__() for one in (below, *everything(below))]


def test_what_is_for_everybody_is_what_was_promised():
    declared = {
        route.path.rstrip("/")
        for route in over_http()
        if (description := description_of(route)) is not None and description.public
    }

    assert declared <= PUBLIC
