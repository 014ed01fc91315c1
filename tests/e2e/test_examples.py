"""The example for the Channels front ends does what it says, also while its gateway is killed."""

import asyncio
import contextlib
import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXAMPLE = Path(__file__).parents[2] / "examples" / "channels_client.py"


def example(url: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("channels_client", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.URL = url
    return module


class Screen(io.StringIO):
    """What was printed; says when enough of it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if len(self.getvalue()) > 60:
            self.enough.set()
        return written


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "gateway killed"])
async def test_the_example_prints_the_whole_reply(natterlog: Running, killed: bool):
    client = example(natterlog.system.url)
    screen = Screen()

    with contextlib.redirect_stdout(screen):
        async with asyncio.timeout(60):
            talking = asyncio.create_task(client.main("tokens=100 rate=60"))
            await screen.enough.wait()
            if killed:
                gateway = natterlog.system.one("gateway")
                await gateway.kill()
                await gateway.start()
            await talking

    _, sessions = await natterlog.client.call("GET", "/sessions?limit=1")
    _, messages = await natterlog.client.call("GET", f"/messages/{sessions['items'][0]['id']}")
    reply = messages["items"][-1]["content"]
    assert screen.getvalue().replace("\n(reconnecting)\n", "") == f"{reply}\n"
    assert ("(reconnecting)" in screen.getvalue()) is killed
