"""What a special test did and found: each does one thing, as often as one likes."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from tests.chaos.harness.checker import Finding, check
from tests.chaos.harness.collecting import collect
from tests.chaos.harness.errand import Errand
from tests.chaos.harness.world import World, world

SETTLE = 90.0
QUIET = {"LLM_TIMEOUT": "60", "NATTERLOG_FIRST_WORD_TIMEOUT": "120"}
"""A provider that is silent because a scene wants it so is not to be given up."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One scene: its numbers, and its findings."""

    name: str
    counts: dict[str, float]
    findings: list[Finding]


def stage(seed: int) -> AbstractAsyncContextManager[World]:
    """A world for scenes: nothing breaks but what they break themselves."""
    return world(seed, bad_lines=False, **QUIET)


async def concluded(
    name: str, made: World, errands: Sequence[Errand], counts: Mapping[str, float]
) -> Scene:
    """The scene, once all that its clients saw is held against the other sides."""
    evidence = await collect(made, errands, settle=SETTLE)
    return Scene(name=name, counts=dict(counts), findings=check(evidence))
