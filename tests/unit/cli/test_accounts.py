"""The commands ``user`` and ``token`` as far as they need no system: times, refusals, help."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.cli.commands.token import expiry
from services.cli.main import main
from shared.errors import InvalidRequest

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        ("30d", datetime(2026, 12, 20, 12, 0, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 21, 0, 0, tzinfo=UTC)),
        ("45m", datetime(2026, 11, 20, 12, 45, tzinfo=UTC)),
        ("1s", datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC)),
        ("2w", datetime(2026, 12, 4, 12, 0, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00Z", datetime(2027, 1, 31, 12, 0, tzinfo=UTC)),
        ("2027-01-31T12:00+02:00", datetime(2027, 1, 31, 10, 0, tzinfo=UTC)),
    ],
)
def test_a_token_ends_after_a_while_or_at_a_time(text: str, expires: datetime):
    assert expiry(text, NOW) == expires


@pytest.mark.parametrize(
    "text", ["soon", "-1d", "0d", "2026-11-20", "999999w", "30 d", "1y", "9999-12-31T23:59-01:00"]
)
def test_what_is_no_time_to_come_is_refused(text: str):
    with pytest.raises(InvalidRequest):
        expiry(text, NOW)


@pytest.mark.parametrize(
    "command",
    [
        *(["user", "add", "alice"], ["user", "list"], ["user", "disable", "alice"]),
        *(["token", "create", "alice"], ["token", "list"], ["token", "revoke", "x"]),
    ],
)
def test_where_nothing_runs_that_is_told(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("NATTERLOG_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("NATTERLOG_NATS_URL", raising=False)

    code = main(command)

    output = capsys.readouterr()
    assert (code, output.out) == (1, "")
    assert output.err.startswith(f"natterlog: nothing runs on {tmp_path}. Start natterlog first")
