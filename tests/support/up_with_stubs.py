"""``natterlog up`` with other programs: ``python -m tests.support.up_with_stubs NAME[:HABIT] …``.

Settings come from the environment, as for the real one.
"""

import os
import sys
from pathlib import Path

from services.child import Backoff, Program
from services.supervisor import Patience, supervise
from shared.settings import read_settings

STUB = str(Path(__file__).with_name("stub_service.py"))
PATIENCE = Patience(
    ready_within=float(os.environ.get("READY_WITHIN", "20")), backoff=Backoff(first=0.01)
)


def plan(nats_url: str) -> list[list[Program]]:
    environ = {**os.environ, "NATTERLOG_NATS_URL": nats_url}
    return [[stub(*word.split(":"), environ=environ)] for word in sys.argv[1:]]


def stub(name: str, habit: str = "", *, environ: dict[str, str]) -> Program:
    command = [sys.executable, "-I", "-S", STUB, name, habit]
    return Program(name=name, command=command, environ=environ)


sys.exit(supervise(read_settings(os.environ), plan, PATIENCE))
