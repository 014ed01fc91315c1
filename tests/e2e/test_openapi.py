"""The gateway does what its description says: schemathesis asks everything it allows, and more."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.config import (
    GenerationConfig,
    OutputConfig,
    ProjectConfig,
    ProjectsConfig,
    SanitizationConfig,
    SchemathesisConfig,
)
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from services.gateway.reference.openapi import FORMS, document
from shared.ids import new_id
from tests.support.described import every_route
from tests.support.system import DEADLINE, System

EXAMPLES = 10
"""Random ones for each operation; those that go along each limit come on top."""
CONFIG = SchemathesisConfig(
    output=OutputConfig(sanitization=SanitizationConfig(enabled=False)),
    projects=ProjectsConfig(
        default=ProjectConfig(
            generation=GenerationConfig(deterministic=True, max_examples=EXAMPLES),
            request_timeout=DEADLINE,
        )
    ),
)
DOCUMENT = document(every_route())
API = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


class There:
    """Things that are there, made over the API itself, so that not every answer is a 404."""

    def __init__(self, url: str) -> None:
        self.url = url
        native, channels = "/api/v1/chat", "/ai-chat/api"
        session = self._post(f"{native}/sessions", {})
        turn = self._post(f"{native}/messages", {"session_id": session["id"], "content": "Hello"})
        message = turn["assistant_message"]
        job = self._post("/chat/start", {"topic": "A", "query": "B", "platform": "TikTok"})
        self.ids = {
            (native, "session_id"): session["id"],
            (native, "message_id"): message["id"],
            (native, "run_id"): message["run_id"],
            (channels, "preset_id"): self._post(f"{channels}/presets/", {"name": "A"})["id"],
            (channels, "session_id"): self._post(f"{channels}/sessions/", {})["id"],
            ("/chat", "session_id"): job["session_id"],
            ("/api/jobs", "job_id"): self._upload()["data"]["job_id"],
        }

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return requests.post(self.url + path, json=body, timeout=DEADLINE).json()

    def _upload(self) -> dict[str, Any]:
        form = {"prompt": (None, "What is it?"), "file": ("a.txt", "A text")}
        return requests.post(f"{self.url}/api/upload", files=form, timeout=DEADLINE).json()

    def fill(self, case: schemathesis.Case) -> None:
        """Put what no schema can know into a request that is right otherwise."""
        if case.path.endswith("/send_message/"):  # it needs one of two fields
            case.body, case.media_type = {"message": "Hello"}, "application/json"
        if isinstance(case.body, dict):
            case.body = _named(_whole(case.body))
        if "follow" in case.query:  # a stream without an end
            case.query["follow"] = "false"
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = new_id()
        for (prefix, name), known in self.ids.items():
            if case.path.startswith(prefix):
                for values in (case.path_parameters, case.body):
                    if isinstance(values, dict) and name in values:
                        values[name] = known


def _named(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the names of what is there."""
    there = {"pipeline": "content", "model": "demo"}
    return {
        name: there.get(name, value) if isinstance(value, str) else value
        for name, value in body.items()
    }


def _whole(value: Any) -> Any:
    """To JSON Schema 1.0 is an integer, to a reader of JSON with types it is none."""
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    """A whole system with the demo provider; requests are sent while no loop runs."""
    system = System({"NATTERLOG_DEMO_RATE": "0"})
    with asyncio.Runner() as runner:
        runner.run(system.__aenter__())
        try:
            yield There(system.url)
        finally:
            runner.run(system.__aexit__(None, None, None))


@API.parametrize()
def test_the_gateway_keeps_to_its_description(case: schemathesis.Case, there: There):
    assert case.meta is not None
    if case.meta.generation.mode is GenerationMode.POSITIVE and case.method != "DELETE":
        there.fill(case)

    # In a form everything is text, so a number there is no fault that anybody could see,
    # and not every name that a schema allows can be the name of a part.
    form = case.media_type in FORMS
    excluded = [negative_data_rejection, positive_data_acceptance] if form else []
    if case.path.endswith("/import"):  # asked in another way it is a session that is not there
        excluded += [unsupported_method, allow_header_conformance]
        excluded.append(positive_data_acceptance)  # its messages name each other, and its files
    case.call_and_validate(base_url=there.url, excluded_checks=excluded)


def test_the_running_gateway_serves_this_description(there: There):
    answer = requests.get(f"{there.url}/api/openapi.json", timeout=DEADLINE)

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == DOCUMENT
