"""What is done to the processes, and when: a plan that follows from the seed alone (pure)."""

from typing import Literal

import msgspec

from tests.chaos.harness.choices import chooser

FaultKind = Literal["kill", "stop", "pause", "reset", "silence"]
"""``kill`` SIGKILL and a start; ``stop`` SIGTERM and a start; ``pause`` SIGSTOP and SIGCONT;
``reset`` every connection to nats-server breaks; ``silence`` nothing comes through any more,
and only then they break."""

NATS = "nats-server"
_WEIGHTS: dict[FaultKind, int] = {"kill": 8, "pause": 6, "stop": 2, "reset": 3, "silence": 2}
_OF_NATS: tuple[FaultKind, ...] = ("kill", "pause")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is done to one process."""

    at: float
    """Seconds since the beginning."""
    kind: FaultKind
    target: str
    """A process, as ``llm-worker-1``, or ``nats-server``."""
    seconds: float
    """How long it is paused, silent, or dead before it is started again."""


def plan_faults(
    seed: int, *, seconds: float, targets: list[str], every: float = 1.0
) -> list[Fault]:
    """The faults of a run, about one ``every`` so many seconds, over all ``targets``."""
    rng = chooser(seed, "faults")
    faults: list[Fault] = []
    at = rng.expovariate(1 / every)
    while at < seconds:
        target = rng.choice(targets)
        kinds = _OF_NATS if target == NATS else tuple(_WEIGHTS)
        (kind,) = rng.choices(kinds, [_WEIGHTS[each] for each in kinds])
        length = rng.choice((0.05, 0.3, 1.0, 2.5)) * rng.uniform(0.5, 1.5)
        faults.append(Fault(at=round(at, 3), kind=kind, target=target, seconds=round(length, 3)))
        at += rng.expovariate(1 / every)
    return faults
