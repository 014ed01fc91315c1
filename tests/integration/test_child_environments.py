"""What the children of ``natterlog up`` find in their environment: of keys, only their own."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.up import DEADLINE, running_on, up

NOBODY = "http://127.0.0.1:9"
PLANTED = {
    "ANTHROPIC_API_KEY": "planted-anthropic",
    "CLAUDE_API_KEY": "planted-claude",
    "OPENAI_API_KEY": "planted-openai",
    "HTTPS_PROXY": "http://somebody:planted-password@127.0.0.1:9",
    "NATTERLOG_DATABASE_URL": "",  # in the test: a file whose name is planted
    "SECRET_TOKEN": "planted-token",
    "AWS_SECRET_ACCESS_KEY": "planted-aws",
}
PROVIDERS = {"ANTHROPIC_API_KEY", "CLAUDE_API_KEY", "OPENAI_API_KEY", "HTTPS_PROXY"}


async def test_a_key_is_in_no_environment_but_of_the_service_that_reads_it(tmp_path: Path):
    planted = {**PLANTED, "NATTERLOG_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/planted.db"}
    elsewhere = {"ANTHROPIC_BASE_URL": NOBODY, "OPENAI_BASE_URL": f"{NOBODY}/v1"}
    async with up(tmp_path, "up", "--port=0", module="services.cli", **planted, **elsewhere) as it:
        url = (await it.line(r"natterlog is ready: (\S+)"))[1]
        children = {name: child.pid for name, child in running_on(tmp_path).children.items()}
        found = {name: planted_in(environ_of(pid)) for name, pid in children.items()}
        async with aiohttp.ClientSession(url) as http:
            session = await new_session(http)
            reader = await while_at_work(children["processor"], "extract", upload(http))
            typesetter = await while_at_work(children["gateway"], "pdf", export(http, session))

    assert found == {
        "nats": set(),
        "gateway": set(),
        "store": {"NATTERLOG_DATABASE_URL"},
        "processor": set(),
        "llm_worker": PROVIDERS,
    }
    assert set(reader) == set(typesetter) == {"PYTHONPATH", "PYTHONUTF8", "TMPDIR"}
    assert session["model"].startswith("claude")  # the store knows that there is a key


def planted_in(environ: dict[str, str]) -> set[str]:
    return {name for name, value in environ.items() if "planted" in value}


def environ_of(pid: int) -> dict[str, str]:
    """What the process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


async def while_at_work(
    parent: int, module: str, work: Coroutine[Any, Any, None]
) -> dict[str, str]:
    """The environment of the child that ``parent`` starts to do ``work``."""
    working = asyncio.create_task(work)
    async with asyncio.timeout(DEADLINE):
        while not (found := list(_environs_of_children(parent, module))):  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # a child tells nobody that it has begun
        await working
    return found[0]


def _environs_of_children(parent: int, module: str) -> Iterator[dict[str, str]]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            with suppress(FileNotFoundError, ProcessLookupError):
                if module in Path(f"/proc/{pid}/cmdline").read_text():
                    yield environ_of(pid)


async def new_session(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.post("/api/v1/chat/sessions", json={"title": "Tea"}) as answer:
        return await answer.json()


async def upload(http: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData({"prompt": "What was ordered?"})
    form.add_field("file", b"Tea, 2 kg\n", filename="order.txt")
    async with http.post("/api/upload", data=form) as answer:
        assert answer.status == 200


async def export(http: aiohttp.ClientSession, session: dict[str, Any]) -> None:
    path = f"/api/v1/chat/sessions/{session['id']}/export"
    async with http.get(path, params={"format": "pdf"}) as answer:
        assert answer.status == 200
        assert (await answer.read()).startswith(b"%PDF")
