"""Who uses a data directory, and how to reach it: the locks and ``run.json``."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from services.supervisor.embedded_nats import write_private
from shared.settings import Settings


class DataDirUnusable(Exception):
    """The data directory cannot be made or written."""


class AlreadyRunning(DataDirUnusable):
    """Another ``natterlog up`` has the data directory."""


class RunningChild(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    health_port: int | None = None
    worker: str | None = None
    """The name under which it claims runs, where it does."""


class RunningSystem(msgspec.Struct, frozen=True, kw_only=True):
    """What ``run.json`` says about the system that runs on a data directory."""

    pid: int
    nats_url: str
    children: dict[str, RunningChild]


@contextmanager
def hold(data_dir: Path) -> Generator[None]:
    """Lock the data directory for this supervisor alone.

    Raises:
        DataDirUnusable: it cannot be written, or another supervisor holds it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data_dir / "up.lock").touch(0o600)
    except OSError as error:
        raise DataDirUnusable(f"Cannot use {data_dir} (NATTERLOG_DATA_DIR): {error}") from error
    # half a second, because whoever reads run.json tries the lock for an instant
    with _locked(data_dir / "up.lock", timeout=0.5) as lock:
        if lock is None:
            raise AlreadyRunning(
                f"natterlog runs already on {data_dir.resolve()}{_who(data_dir)}. Stop that one "
                "first, with Ctrl-C or SIGTERM, or give this one its own --data-dir and --port."
            )
        yield
        _run_file(data_dir).unlink(missing_ok=True)


@contextmanager
def nats_lock(data_dir: Path) -> Generator[int]:
    """A lock for the embedded server to inherit.

    A server that outlives a killed supervisor still holds it, so no second one
    ever writes to the same streams.

    Raises:
        AlreadyRunning: such a server does not end.
    """
    with _locked(data_dir / "nats.lock", timeout=10) as lock:
        if lock is None:
            raise AlreadyRunning(f"A nats-server of an earlier start uses {data_dir.resolve()}.")
        yield lock


def write(data_dir: Path, running: RunningSystem) -> None:
    write_private(_run_file(data_dir), msgspec.json.encode(running).decode())


def read(data_dir: Path) -> RunningSystem | None:
    """What runs on a data directory now; what a killed supervisor left does not count."""
    if not (data_dir / "up.lock").exists():
        return None
    with _locked(data_dir / "up.lock", timeout=0) as lock:
        return _read(data_dir) if lock is None else None


def running_nats_url(settings: Settings) -> str | None:
    """The NATS server of the system to act on: the one set, else the embedded one that runs."""
    if settings.nats_url:
        return settings.nats_url
    running = read(settings.data_dir)
    return running.nats_url if running else None


def of_running_system(settings: Settings) -> Settings:
    """The settings with the NATS server of the system that runs on their data directory, if any."""
    return msgspec.structs.replace(settings, nats_url=running_nats_url(settings))


def _read(data_dir: Path) -> RunningSystem | None:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(_run_file(data_dir).read_bytes(), type=RunningSystem)
    return None


def _who(data_dir: Path) -> str:
    running = _read(data_dir)
    return f" (process {running.pid})" if running else ""


@contextmanager
def _locked(path: Path, *, timeout: float) -> Generator[int | None]:
    """The open file, locked as long as any process has it open; None when it cannot be had."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout
    try:
        while not (taken := _take(lock)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield lock if taken else None
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run_file(data_dir: Path) -> Path:
    return data_dir / "run.json"
