"""What the cold log makes of facts, old ones too."""

from pathlib import Path

import pytest

from services.store.archive import Archive, entry
from shared.events import SessionDeleted, encode
from shared.ids import now


@pytest.mark.parametrize("kind", ["session.deleted", "deleted"])
async def test_a_tombstone_is_known_by_its_subject_of_today_and_of_before(
    kind: str, tmp_path: Path
):
    archive = Archive(tmp_path / "log.db")
    await archive.open()

    await archive.add([entry(1, f"evt.u.s._.{kind}", encode(SessionDeleted(at=now())))])

    assert archive.deleted == {"s"}
    await archive.close()
