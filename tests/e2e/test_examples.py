"""The examples do what they say on a system that nobody has set up, also while its gateway dies."""

import asyncio
import importlib.util
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from tests.support.fake_provider import FakeProvider
from tests.support.log_checks import RunLog, wait_until_all_ended
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT, LONG = "demo: words=30 rate=60", "demo: words=120 rate=30"
EVERY = [
    *("assistant_client", "channels_client", "interview_client"),
    *("documents_client", "content_client"),
]
NOTES = re.compile(
    r"\n?\(reconnecting\)\n|\n\([^\n]*; once more\)\n|\n\(it starts over\)\n"
    r"|\n\[ *\d+%\] \w+: \w+\n"
)
"""What an example says besides the reply."""


def as_nothing(fake: FakeProvider) -> dict[str, str]:
    del fake
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(provided=as_nothing) as running:
        yield running


@dataclass
class Screen:
    """What one example printed; says when enough of it is there."""

    text: str = ""
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def print(self, text: str = "", *more: object, end: str = "\n", flush: bool = False) -> None:
        del flush
        self.text += " ".join([text, *map(str, more)]) + end
        if len(NOTES.sub("", self.text)) > 20:
            self.enough.set()


def example(name: str, url: str, screen: Screen) -> ModuleType:
    """The example as a module that prints on this screen and asks this address."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert vars(module)["URL"] == "http://127.0.0.1:8000"
    vars(module).update(URL=url, print=screen.print)
    return module


async def shown_by(natterlog: Running, name: str, demo: str, screen: Screen) -> str:
    """Run an example to its end; what it printed besides its notes."""
    arguments = {
        "documents_client": [str(EXAMPLES / "README.md"), demo],
        "content_client": ["Sunscreen", f"Make it reassuring\n{demo}", "Instagram"],
    }
    client = example(name, natterlog.system.url, screen)
    await client.main(*arguments.get(name, [demo]))
    return NOTES.sub("", screen.text)


async def texts(natterlog: Running) -> list[str]:
    """Every reply that is in the log, the newest last."""
    runs: list[RunLog] = list((await wait_until_all_ended(natterlog.bus)).values())
    return [run.final.text for run in sorted(runs, key=lambda run: run.links[0].seq)]


@pytest.mark.parametrize("name", EVERY)
async def test_an_example_prints_the_whole_reply(natterlog: Running, name: str):
    screen = Screen()
    async with asyncio.timeout(60):
        shown = await shown_by(natterlog, name, SHORT, screen)

    if name == "content_client":
        check_content(screen.text)
    else:
        reply = (await texts(natterlog))[-1]
        question = f"> {SHORT}\n" if name == "interview_client" else ""
        assert shown.strip() == f"{question}{reply}".strip()


async def test_all_five_print_the_whole_reply_although_the_gateway_is_killed(natterlog: Running):
    screens = {name: Screen() for name in EVERY}
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = {
            name: group.create_task(shown_by(natterlog, name, LONG, screen))
            for name, screen in screens.items()
        }
        for screen in screens.values():
            await screen.enough.wait()
        gateway = natterlog.system.one("gateway")
        await gateway.kill()
        await gateway.start()
    shown = {name: task.result() for name, task in running.items()}

    assert all("reconnecting" in s.text or "once more" in s.text for s in screens.values())
    kept = {text.strip() for text in await texts(natterlog)}
    for name in ("assistant_client", "channels_client"):  # they go on where they were
        assert shown[name].strip() in kept
    for name in ("interview_client", "documents_client"):  # they show all of it again
        assert [text for text in kept if text and shown[name].strip().endswith(text)]
    check_content(screens["content_client"].text)


def check_content(shown: str) -> None:
    steps = [line for line in shown.splitlines() if line.startswith("Completed step: ")]
    assert steps == [
        "Completed step: keywords",
        "Completed step: content_generation",
        "Completed step: compliance_check",
    ]
    assert "\nStrategy: {" in shown
    assert "\nCompliance: {" in shown
