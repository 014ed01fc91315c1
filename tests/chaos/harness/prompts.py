"""Prompts that say how the provider behaves: as it should, or in any way in which one fails."""

import random
import re

from tests.support.case_provider import read_cases
from tests.support.fake_refusals import REFUSALS

MODELS = {
    "openai": "openai/fake-gpt",
    "anthropic": "anthropic/claude-haiku-5-5",
    "ollama": "ollama/fake-llama:latest",
}
CASES = [case.id for case in read_cases()]
"""Every odd answer that is on record, ``openai/d1`` and so on."""
_BREAKS = ("drop", "stall", "pings", "end", "error", "undone")
_ODDITIES = ("garbage", "lone", "split", "empty")
_STATUSES = (429, 500, 502, 503, 529)
_MARK = re.compile(r"mark=(\S+)")


def draw_prompt(rng: random.Random, mark: str, *, api: str = "openai", tokens: int = 90) -> str:
    """A prompt with a mark of its own, for a model of that API; half of them bring a failure."""
    length = rng.randint(5, tokens)
    parts = [f"mark={mark}", f"tokens={length}", f"rate={rng.choice((0, 40, 80, 200))}"]
    return " ".join([*parts, *_failure(rng, api, length)])


def _failure(rng: random.Random, api: str, length: int) -> list[str]:
    often = rng.choice((1, 1, 1, 2, 9))
    match rng.randrange(12):
        case 0 | 1:
            return [f"fault={rng.choice(_BREAKS)}@{rng.randrange(length)}x{often}"]
        case 2:
            return [f"fault={rng.choice(_ODDITIES)}@{rng.randrange(length)}"]
        case 3:
            return [f"fail={rng.choice(_STATUSES)}x{often}"]
        case 4:
            return [rng.choice(("delay=0.7", "load=0.7", "think=12", "stop=length"))]
        case 5:
            return [f"refuses={rng.choice(list(REFUSALS))}"]
        case 6 | 7:
            return [f"case={rng.choice([case for case in CASES if case.startswith(api)])}"]
        case _:
            return []


def mark_of(prompt: str) -> str:
    """The mark of the latest prompt in a text: one that came to nothing may stand before it."""
    marks = _MARK.findall(prompt)
    return marks[-1] if marks else ""
