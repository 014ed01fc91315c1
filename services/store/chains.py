"""Append to a chain outside any session, where the rows do not know the head.

What users have is changed now and then, so the leader is asked for the chain's
head each time; the decision is made on rows that have applied it, and the append
is refused when anything came in between.
"""

from collections.abc import Awaitable, Callable

from services.store.watermark import Watermark
from shared.bus import Bus
from shared.chain import Overtaken, extend
from shared.errors import Unavailable
from shared.events import Fact
from shared.subjects import EVENTS, Address, Scope, everybodys

ROUNDS = 20
"""How often a decision is made anew before the store gives up."""

Decide = Callable[[], Awaitable[tuple[str, Fact] | None]]
"""Answers what happens, as the end of a subject and a fact; None: nothing need happen."""


async def decide(
    bus: Bus,
    applied: Watermark,
    address: Address,
    what: Decide,
    *,
    scope: Scope = Scope.SESSION,
    kind: str = "",
) -> int:
    """Append the fact that ``what`` decides on → the sequence that is applied by then.

    With the scope ``EVERYBODY`` the chain is that of a kind of fact, of all users.

    Raises:
        NatterlogError: what ``what`` raises, or :class:`Unavailable` after many rounds.
        BusError: the log cannot be reached.
    """
    chain = everybodys(kind) if scope is Scope.EVERYBODY else address.session_facts
    for _ in range(ROUNDS):
        last = await bus.head(EVENTS, chain)
        head = last.seq if last else 0
        await applied.wait_for(head)
        decided = await what()
        if decided is None:
            return head
        happened, fact = decided
        try:
            seq = await extend(
                bus, address.fact(happened), fact, expected=head, scope=scope, tries=2
            )
        except Overtaken:
            continue
        await applied.wait_for(seq)
        return seq
    raise Unavailable("Too much is happening here; please try again.", retry_after=1.0)
