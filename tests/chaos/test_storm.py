"""Everything breaks at once, by a seed: no character is lost, and no run is stuck.

``make chaos`` has the same for as long as one likes (docs/reliability.md).
"""

import pytest

from tests.chaos.harness.report import text_of_round
from tests.chaos.harness.storm import storm

SECONDS = 15.0
"""Of faults; starting, settling and checking take about as long again."""


@pytest.mark.timeout(300)
async def test_clients_of_all_dialects_in_a_storm_lose_nothing():
    done, _ = await storm(7, seconds=SECONDS)

    assert done.findings == [], text_of_round(done)
    assert set(done.shown) == {"assistant", "channels", "documents", "content", "interview"}
    assert min(map(len, (done.replies, done.faults, done.connections, done.answers))) > 0
