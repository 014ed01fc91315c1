"""Totals of runs: how many there were, their tokens and their cost (pure)."""

from collections.abc import Callable, Sequence

import msgspec

from shared.inspection import FoundRun

KEYS: dict[str, Callable[[FoundRun], str]] = {
    "user": lambda run: run.user_id,
    "session": lambda run: run.session_id,
    "model": lambda run: f"{run.provider}/{run.model}" if run.model else "–",
    "kind": lambda run: run.kind,
    "state": lambda run: run.status,
    "stop": lambda run: run.stop_reason or "–",
    "error": lambda run: run.error.code if run.error else "–",
    "day": lambda run: f"{run.created_at:%Y-%m-%d}",
    "hour": lambda run: f"{run.created_at:%Y-%m-%d %H}:00",
}
"""What runs can be grouped by."""


class Total(msgspec.Struct, kw_only=True):
    """The total of some runs; cached input is counted apart, as providers bill it."""

    key: str
    runs: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int | None = None
    """Billionths of a US dollar, of the priced runs; None when there is none."""
    unpriced: int = 0
    """Runs that called a model without a known price."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cached_tokens

    def add(self, run: FoundRun) -> None:
        self.runs += 1
        self.failed += run.status == "failed"
        if run.cost is not None:
            self.cost = (self.cost or 0) + run.cost
        self.unpriced += run.called and run.cost is None
        if run.usage is not None:
            self.input_tokens += run.usage.input_tokens
            self.output_tokens += run.usage.output_tokens
            self.cached_tokens += run.usage.cache_read_input_tokens
            self.cached_tokens += run.usage.cache_creation_input_tokens


class Totals:
    """The totals so far, one a key."""

    def __init__(self, by: str) -> None:
        self._key_of = KEYS[by]
        self._by_time = by in ("day", "hour")
        self._totals: dict[str, Total] = {}

    def add(self, runs: Sequence[FoundRun]) -> None:
        for run in runs:
            key = self._key_of(run)
            self._totals.setdefault(key, Total(key=key)).add(run)

    def rows(self) -> list[Total]:
        """By cost, then by tokens, the largest first; days and hours in their order."""
        if self._by_time:
            return sorted(self._totals.values(), key=lambda each: each.key)
        return sorted(
            self._totals.values(), key=lambda each: (-(each.cost or 0), -each.tokens, each.key)
        )
