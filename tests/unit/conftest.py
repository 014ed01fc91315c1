"""What keeps unit tests quick: each runs in this process and in memory, and a guard sees to it."""

import sys
from collections.abc import Iterator

import pytest

_FORBIDDEN = ("socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork")


class _Guard:
    """An audit hook, which cannot be taken away again and so looks whether a test is at it."""

    def __init__(self) -> None:
        self.on = False

    def __call__(self, event: str, _: tuple[object, ...]) -> None:
        if self.on and event in _FORBIDDEN:
            raise AssertionError(f"{event} in a unit test: it belongs into tests/integration")


_GUARD = _Guard()
sys.addaudithook(_GUARD)


@pytest.fixture(autouse=True)
def in_memory() -> Iterator[None]:
    """No unit test opens a socket or starts a process."""
    _GUARD.on = True
    yield
    _GUARD.on = False
