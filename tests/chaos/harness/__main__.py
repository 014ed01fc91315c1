"""Break natterlog by a seed, and check every character: ``make chaos ARGS="--seed 7"``.

A round is a storm of a minute with a seed of its own (7, 8, 9, …) in a world of its own, so
what a round finds can be looked for again with its seed alone.  ``docs/reliability.md`` says
what is done, what is checked and how to read what is printed.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.chaos.harness.evidence import Evidence
from tests.chaos.harness.report import Report, report_of, row_of, text_of_round
from tests.chaos.harness.storm import Round, storm

RESULTS = Path(__file__).parents[1] / "results"
ROUND = 60.0
"""Seconds of one storm."""


def main() -> None:
    arguments = _arguments()
    rounds: list[Round] = []
    for seed, seconds in _rounds(arguments, rounds):
        done, evidence = asyncio.run(
            storm(seed, seconds=seconds, load=arguments.load, every=arguments.every)
        )
        rounds.append(done)
        _print(text_of_round(done))
        _keep(arguments.results, report_of(rounds), done, evidence)
    report = report_of(rounds)
    _print(f"\nFor docs/reliability.md:\n{row_of(report)}")
    sys.exit(bool(report.findings))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description="Break natterlog by a seed.")
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the first round (1)")
    add("--seconds", type=float, default=ROUND, help="of faults, in all rounds together (60)")
    add("--round", type=float, default=ROUND, help="seconds of faults of one round (60)")
    add("--replies", type=int, default=0, help="go on with further seeds until there are so many")
    add("--load", type=int, default=1, help="thirteen clients, so many times (1)")
    add("--every", type=float, default=2.0, help="seconds between two faults, about (2)")
    add("--results", type=Path, default=RESULTS, help="where reports and evidence go")
    return parser.parse_args()


def _rounds(arguments: argparse.Namespace, done: list[Round]) -> Iterator[tuple[int, float]]:
    """Seed and seconds of each round; ``done`` has those before."""
    left, seed = arguments.seconds, arguments.seed
    while left > 0 or sum(sum(each.replies.values()) for each in done) < arguments.replies:
        yield seed, min(left, arguments.round) if left > 0 else arguments.round
        left, seed = left - arguments.round, seed + 1


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (what it was started for)


def _keep(directory: Path, report: Report, last: Round, evidence: Evidence) -> None:
    """Write the report so far, and the evidence of a round that found something."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report.at:%Y-%m-%dT%H%M%S}-seed-{report.rounds[0].seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if last.findings:
        path = directory / f"seed-{last.seed}-evidence.json"
        path.write_bytes(msgspec.json.encode(evidence))


if __name__ == "__main__":
    main()
