"""Five things that must hold whatever the storm does, each a few times.

``make chaos`` does each of them hundreds of times (docs/reliability.md).
"""

import gc
from collections.abc import AsyncIterator
from itertools import count

import hypothesis
import pytest
import pytest_asyncio
from hypothesis import strategies as st

from tests.chaos.harness.cancels import STATES, cancel_everywhere
from tests.chaos.harness.choices import chooser
from tests.chaos.harness.cuts import every_cut
from tests.chaos.harness.errand import Errand
from tests.chaos.harness.keys import send_again_and_again
from tests.chaos.harness.leases import sleep_past_leases
from tests.chaos.harness.policies import SENDERS, Send, play
from tests.chaos.harness.policy_model import Policy, faults_of
from tests.chaos.harness.scene import stage
from tests.chaos.harness.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
    # Connections are cut on purpose; one may be let go with bytes in it that nobody reads.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

sends = st.builds(
    Send,
    after=st.sampled_from([0.0, 0.02, 0.2]),
    gateway=st.integers(0, 1),
    tokens=st.integers(1, 6),
    rate=st.sampled_from([0, 80]),
)
_numbers = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> AsyncIterator[World]:
    """Two gateways, two workers, two processors and a store, with good lines between them."""
    async with stage(1) as made:
        yield made
    gc.collect()  # what was cut off is let go while its loop still runs


async def test_a_reply_that_is_cut_after_every_event_goes_on_in_any_other_way(made: World):
    done = await every_cut(made, events=16)

    assert done.findings == []


async def test_a_cancel_ends_a_run_in_every_state_and_nothing_comes_after(made: World):
    done = await cancel_everywhere(made, cancels=len(STATES))

    assert done.findings == []
    assert {state: done.counts[state] for state in STATES} == dict.fromkeys(STATES, 1)


async def test_a_worker_that_sleeps_past_its_lease_spoils_no_reply(made: World):
    done = await sleep_past_leases(made, sleeps=2)

    assert done.findings == []
    assert done.counts["taken over"] > 0


async def test_a_message_that_is_sent_many_times_at_once_is_one_turn(made: World):
    done = await send_again_and_again(made, messages=8)

    assert done.findings == []


@hypothesis.settings(max_examples=2, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(crowd=st.lists(sends, min_size=SENDERS, max_size=SENDERS))
@pytest.mark.parametrize("policy", ["queue", "reject", "interrupt"])
async def test_a_busy_session_does_as_its_policy_says(
    made: World, policy: Policy, crowd: list[Send]
):
    errand = Errand("crowd", next(_numbers), chooser(0, "crowd"), list(made.urls))

    played = await play(made, errand, policy, crowd)

    assert faults_of(played) == []
