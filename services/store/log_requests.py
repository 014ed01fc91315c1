"""Requests about the log itself: its facts, and the tables made anew of them."""

from services.store import inspection, queries
from services.store.archive import Archive
from services.store.database import Database
from services.store.rebuild import rebuild
from services.store.watermark import Watermark
from shared.commands import Facts, GetFacts, GetSession, Rebuild, Rebuilt
from shared.inspection import ReadFacts
from shared.subjects import session_address


class LogRequests:
    """What is answered from the cold log."""

    def __init__(self, archive: Archive, database: Database, applied: Watermark) -> None:
        self._archive = archive
        self._database = database
        self._applied = applied

    async def get_facts(self, request: GetFacts) -> Facts:
        """A session's facts, for its user."""
        upto = self._archive.archived
        session = GetSession(user_id=request.user_id, session_id=request.session_id)
        await self._database.read(queries.get_session, session)
        address = session_address(request.user_id, request.session_id)
        facts = await self._archive.session_facts(address, request.after, request.limit)
        return Facts(facts=facts, upto=upto)

    async def read_facts(self, request: ReadFacts) -> Facts:
        """A session's facts, for an operator."""
        upto = self._archive.archived
        facts = await self._archive.read(inspection.read_facts, request)
        return Facts(facts=facts, upto=upto)

    async def rebuild(self, request: Rebuild) -> Rebuilt:
        """Make the tables anew, while they are being read."""
        del request
        rebuilt = await rebuild(self._archive, self._database)
        self._applied.advance(max(rebuilt.seq, self._applied.seq))
        return rebuilt
