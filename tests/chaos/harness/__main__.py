"""Break natterlog by a seed, and check every character: ``make chaos ARGS="--seed 7"``.

A round is a storm of a minute with a seed of its own (7, 8, 9, …) in a world of its own, so
what a round finds can be looked for again with its seed alone.  ``docs/reliability.md`` says
what is done, what is checked and how to read what is printed.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from tests.chaos.harness.cancels import cancel_everywhere
from tests.chaos.harness.cuts import every_cut
from tests.chaos.harness.evidence import Evidence
from tests.chaos.harness.keys import send_again_and_again
from tests.chaos.harness.leases import sleep_past_leases
from tests.chaos.harness.policies import crowd
from tests.chaos.harness.report import Report, report_of, rows_of, text_of_round, text_of_scene
from tests.chaos.harness.scene import Scene, stage
from tests.chaos.harness.storm import Round, storm
from tests.chaos.harness.world import World

RESULTS = Path(__file__).parents[1] / "results"
ROUND = 60.0
"""Seconds of one storm."""
SCENES: dict[str, Callable[[World], Awaitable[Scene]]] = {
    "cuts": lambda made: every_cut(made, events=500),
    "cancels": lambda made: cancel_everywhere(made, cancels=1000),
    "leases": lambda made: sleep_past_leases(made, sleeps=100),
    "keys": lambda made: send_again_and_again(made, messages=300),
    "policies": lambda made: crowd(made, rounds=60),
}
"""The special tests, as long as they are here; ``tests/chaos/test_scenes.py`` has them short."""


def main() -> None:
    arguments = _arguments()
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=quiet)  # that a line broke is no news here
    report = report_of()
    for name in arguments.only:
        for _ in _do(name, arguments, report):
            _write(arguments.results, report)
    _print("\nFor docs/reliability.md:", *rows_of(report))
    sys.exit(bool(report.findings))


def _do(name: str, arguments: argparse.Namespace, report: Report) -> Iterator[None]:
    """Add to the report one thing after the other: rounds of the storm, or a scene."""
    if name in SCENES:
        scene = asyncio.run(_play(name, arguments.seed))
        _print(text_of_scene(scene))
        report.scenes.append(scene)
        yield
        return
    for seed, seconds in _rounds(arguments, report.rounds):
        done, evidence = asyncio.run(
            storm(seed, seconds=seconds, load=arguments.load, every=arguments.every)
        )
        _print(text_of_round(done))
        _keep(arguments.results, done, evidence)
        report.rounds.append(done)
        yield


async def _play(name: str, seed: int) -> Scene:
    async with stage(seed) as made:
        return await SCENES[name](made)


def _rounds(arguments: argparse.Namespace, done: list[Round]) -> Iterator[tuple[int, float]]:
    """Seed and seconds of each round; ``done`` has those before."""
    left, seed = arguments.seconds, arguments.seed
    while left > 0 or sum(sum(each.replies.values()) for each in done) < arguments.replies:
        yield seed, min(left, arguments.round) if left > 0 else arguments.round
        left, seed = left - arguments.round, seed + 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description="Break natterlog by a seed.")
    add, everything = parser.add_argument, ("storm", *SCENES)
    add("--seed", type=int, default=1, help="of the first round (1)")
    add("--seconds", type=float, default=ROUND, help="of faults, in all rounds together (60)")
    add("--round", type=float, default=ROUND, help="seconds of faults of one round (60)")
    add("--replies", type=int, default=0, help="go on with further seeds until there are so many")
    add("--load", type=int, default=1, help="thirteen clients, so many times (1)")
    add("--every", type=float, default=1.0, help="seconds between two faults, about (1)")
    add(
        "--only",
        type=lambda text: everything if text == "all" else text.split(","),
        default=["storm"],
        help=f"what is done, of {', '.join(everything)}, or all (storm)",
    )
    add("--results", type=Path, default=RESULTS, help="where reports and evidence go")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(everything):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    return arguments


def _write(directory: Path, report: Report) -> None:
    """The report so far."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report.at:%Y-%m-%dT%H%M%S}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def _keep(directory: Path, done: Round, evidence: Evidence) -> None:
    """The evidence of a round that found something."""
    if done.findings:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"seed-{done.seed}-evidence.json"
        path.write_bytes(msgspec.json.encode(evidence))


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201  (what it was started for)


if __name__ == "__main__":
    main()
