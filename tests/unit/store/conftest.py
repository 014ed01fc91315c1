from collections.abc import Iterator

import pytest

from tests.unit.store.story import Story, tables


@pytest.fixture
def story() -> Iterator[Story]:
    """A session that was just opened, in tables in memory."""
    with tables() as connection:
        yield Story(connection)
