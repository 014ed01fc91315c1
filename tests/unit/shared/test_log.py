"""What is logged, and how often."""

from structlog.testing import capture_logs

from shared.log import RepeatedWarning


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(warning: RepeatedWarning, clock: Clock, *, seconds: int, error: str) -> list[int]:
    """The counts of the lines that an error leaves which comes four times a second."""
    with capture_logs() as lines:
        for _ in range(seconds * 4):
            warning.log(error)
            clock.now += 0.25
    assert {(line["event"], line["error"]) for line in lines} == {("bus.error", error)}
    return [line.get("repeats", 0) for line in lines]


def test_what_comes_again_is_logged_ever_less_and_counted():
    clock = Clock()

    counts = logged(RepeatedWarning("bus.error", clock), clock, seconds=600, error="refused")

    assert counts[:6] == [0, 4, 8, 16, 32, 64]
    assert set(counts[8:]) == {240}
    assert len(counts) < 20


def test_what_is_new_is_logged_at_once_also_beside_another():
    clock = Clock()
    warning = RepeatedWarning("bus.error", clock)

    first = logged(warning, clock, seconds=10, error="refused")
    other = logged(warning, clock, seconds=1, error="no route")

    assert (first[0], other) == (0, [0])


def test_what_comes_after_it_was_mended_or_long_ago_is_new():
    clock = Clock()
    warning = RepeatedWarning("bus.error", clock)

    before = logged(warning, clock, seconds=1, error="refused")
    warning.forget()
    after = logged(warning, clock, seconds=1, error="refused")
    clock.now += 3600
    much_later = logged(warning, clock, seconds=1, error="refused")

    assert before == after == much_later == [0]
