"""Erasing files that nothing refers to any more: with their last session, or after a day unused."""

import asyncio
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from services.store import file_queries
from services.store.commands import Commands
from services.store.database import Database
from shared import ids
from shared.bus import BusError
from shared.commands import DeleteSession
from shared.errors import NatterlogError, NotFound
from shared.log import get_logger

log = get_logger()


class Releasing:
    """Erases files that no message refers to."""

    def __init__(self, commands: Commands, database: Database) -> None:
        self._commands = commands
        self._database = database

    async def release(self, user_id: str, file_ids: list[str]) -> None:
        """Erase those of a deleted session's files that no other message refers to.

        Raises:
            BusError, Unavailable: they are not all gone yet.
        """
        if file_ids:
            for file_id in await self._database.read(file_queries.unused, user_id, file_ids):
                await self._erase(user_id, file_id)

    async def run(self) -> None:
        """Erase files that were never attached to a message, now and then, for ever."""
        while True:
            try:
                await self.expire(file_queries.UNUSED)
            except (BusError, NatterlogError, SQLAlchemyError) as error:
                log.warning("store.files_postponed", error=str(error))
            await asyncio.sleep(file_queries.EVERY)

    async def expire(self, age: timedelta) -> int:
        """Erase the files that are older and in no message; answers how many."""
        found = await self._database.read(file_queries.expired, ids.now() - age)
        for user_id, file_id in found:
            await self._erase(user_id, file_id)
        return len(found)

    async def _erase(self, user_id: str, file_id: str) -> None:
        try:
            await self._commands.delete_session(DeleteSession(user_id=user_id, session_id=file_id))
        except NotFound:
            return  # somebody else was faster
        log.info("store.file_erased", session_id=file_id)
