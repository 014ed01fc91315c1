"""The supervisor without its processes: what it starts, and when it starts again."""

import sys

from services.supervisor import supervisor
from services.supervisor.supervised_child import Backoff
from shared.settings import read_settings


def test_services_are_told_what_they_need_and_stop_from_the_edge_inwards():
    settings = read_settings({"NATTERLOG_LOG_FORMAT": "json", "NATTERLOG_PORT": "8123"})
    counts = supervisor.Counts(gateways=2, workers=3)

    environ = {"PATH": "/bin", "NATTERLOG_GRACE": "5", "SECRET_TOKEN": "s"}
    groups = supervisor.services(settings, environ, counts, "nats://there")

    assert [[program.name for program in group] for group in groups] == [
        ["gateway-1", "gateway-2"],
        ["llm_worker-1", "llm_worker-2", "llm_worker-3"],
        ["processor"],
        ["store"],
    ]
    assert groups[1][0].command == [sys.executable, "-m", "services.cli", "llm-worker"]
    assert groups[0][0].environ == {
        "PATH": "/bin",
        "NATTERLOG_GRACE": "5",
        "NATTERLOG_NATS_URL": "nats://there",
        "NATTERLOG_PORT": "8123",
        "NATTERLOG_REUSE_PORT": "1",
        "NATTERLOG_HEALTH_PORT": "0",
        "NATTERLOG_PROVIDERS": "",
        "PYTHONUNBUFFERED": "1",
    }


def test_pauses_between_starts_grow_to_a_bound_and_are_forgiven_after_health():
    backoff = Backoff()
    pauses = [0.0]
    for _ in range(8):
        pauses.append(backoff.after(pauses[-1], healthy=1))

    assert pauses[1:] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.after(10.0, healthy=30) == 0.2
