"""Where a run stands: what its chain says to somebody who is about to work on it."""

from collections.abc import Iterable

from shared.events import CancelRequested, RunClaimed, RunEnded, TodoProcess
from shared.log_entry import LogEntry


class ChainState:
    """The facts of a run after the todo at hand, its ``n``-th, summed up."""

    def __init__(self, head: int, links: Iterable[LogEntry] = (), *, n: int = 0) -> None:
        self.head = head
        self.n = n
        self.over = False
        self.cancelled = False
        self.claim: RunClaimed | None = None
        """The latest claim, and its sequence: the attempt's id."""
        self.attempt = 0
        self.claims = 0
        self._failed = 0  # of them, those that a provider's failure ended
        self.add(links)

    def add(self, links: Iterable[LogEntry]) -> None:
        """Take in facts that came later."""
        for link in links:
            self.head = max(self.head, link.seq)
            match link.fact:
                case RunClaimed():
                    self.take_claim(link.fact, link.seq)
                case CancelRequested():
                    self.cancelled = True
                case RunEnded():
                    self.over = True
                case TodoProcess(n=n) if n <= self.n:
                    pass  # a schedule fired twice: the first is the one at hand
                case _:  # a later todo: this one is done
                    self.over = True

    def take_claim(self, claim: RunClaimed, attempt: int) -> None:
        """Take in the claim that is now the latest."""
        self.claim, self.attempt = claim, attempt
        self.claims += 1
        if claim.previous is not None and claim.previous.fault is not None:
            self._failed += 1

    @property
    def deaths(self) -> int:
        """Attempts whose worker may have died: no failure of a provider ended them."""
        return self.claims - self._failed

    @property
    def failures(self) -> int:
        """Failed calls of a provider before the latest claim."""
        return self.claim.failures if self.claim else 0
