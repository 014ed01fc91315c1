"""``natterlog up`` with other programs: ``python -m tests.support.up_with_stubs NAME[:HABIT] …``.

Settings come from the environment, as for the real one.  ``real`` instead of names are the
real services, with as many gateways as ``GATEWAYS`` says.
"""

import os
import sys
from pathlib import Path

from services.supervisor.health_watch import HealthTiming
from services.supervisor.supervised_child import Backoff, Program
from services.supervisor.supervisor import Counts, Timing, services, supervise
from shared.settings import read_settings

STUB = str(Path(__file__).with_name("stub_service.py"))
TIMING = Timing(
    ready_within=float(os.environ.get("READY_WITHIN", "20")),
    backoff=Backoff(first=0.01),
    health=HealthTiming(stuck_for=float(os.environ.get("STUCK_FOR", "30")), every=0.2, timeout=1.0),
)
SETTINGS = read_settings(os.environ)


def plan(nats_url: str) -> list[list[Program]]:
    if sys.argv[1:] == ["real"]:
        counts = Counts(gateways=int(os.environ.get("GATEWAYS", "1")))
        return services(SETTINGS, os.environ, counts, nats_url)
    environ = {**os.environ, "NATTERLOG_NATS_URL": nats_url}
    return [[stub(*word.split(":"), environ=environ)] for word in sys.argv[1:]]


def stub(name: str, habit: str = "", *, environ: dict[str, str]) -> Program:
    command = [sys.executable, "-I", "-S", STUB, name, habit]
    return Program(name=name, command=command, environ=environ)


sys.exit(supervise(SETTINGS, plan, TIMING))
