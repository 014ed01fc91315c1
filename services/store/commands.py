"""Sessions: opened, changed and deleted.

Each command decides on the session as of its last known fact and appends one; the append
is refused when anything came in between (:mod:`services.store.session_log`).
"""

import msgspec

from services.store import file_queries, queries
from services.store.archive import Archive
from services.store.chains import Chains
from services.store.database import Database
from services.store.erase import Eraser
from services.store.initial_history import read_history
from services.store.memory import Memory
from services.store.model_names import ModelNames
from services.store.models import preferred_model
from services.store.projection import CHANGEABLE
from services.store.session_log import SessionLog, SessionState
from services.store.turns import need_id
from services.store.watermark import LONG, Watermark
from shared import ids
from shared.bus import Bus
from shared.chain import Overtaken
from shared.commands import CreateSession, DeleteSession, Done, SessionAnswer, UpdateSession
from shared.errors import Conflict
from shared.events import SessionCreated, SessionDeleted, SessionUpdated
from shared.records import HIDDEN_MODES
from shared.settings import Settings
from shared.subjects import session_address


class Commands:
    """The commands on sessions; the facts they append are all that they change."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        database: Database,
        archive: Archive,
        chains: Chains,
        session_log: SessionLog,
        memory: Memory,
        applied: Watermark,
        eraser: Eraser,
        model_names: ModelNames,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._database = database
        self._archive = archive
        self._chains = chains
        self._log = session_log
        self._memory = memory
        self._applied = applied
        self._eraser = eraser
        self._model_names = model_names

    # -- sessions ---------------------------------------------------------------------

    async def create_session(self, request: CreateSession) -> SessionAnswer:
        history = await read_history(self._bus, request.history_file)
        model = request.model or await self._default_model(request.user_id)
        if history is None:  # else it may come from where there are other models
            await self._check_new_model(request, model)
        fact = SessionCreated(
            at=ids.now(),
            title=request.title,
            mode=request.mode,
            model=model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            system_prompt=request.system_prompt,
            context_tags=request.context_tags,
            on_busy=request.on_busy,
            enable_tools=request.enable_tools,
            client_ref=request.client_ref,
            history=history,
        )
        return await self.open_session(request.user_id, request.session_id, fact)

    async def open_session(
        self, user_id: str, session_id: str, fact: SessionCreated
    ) -> SessionAnswer:
        """Append a session's first fact, unless the same request came before."""
        need_id(session_id, "session_id")
        if self.was_deleted(session_id):
            raise Conflict("This session was deleted; please open another.")
        address = session_address(user_id, session_id)
        if (owner := self._memory.owner(session_id)) is None:
            owner = await self._database.read(queries.owner, session_id)
        if owner not in (None, user_id):
            raise Conflict("This session id is taken; please choose another.")
        try:
            seq = await self._chains.append(address, fact, expected=0)
        except Overtaken as overtaken:  # it is there already: the same request came twice
            await self._chains.catch_up(overtaken)
            seq = 0
        if fact.history is not None:  # whoever lists its messages next would wait too long
            await self._applied.wait_for(seq, within=LONG)
        return await self._answer(user_id, session_id)

    async def _check_new_model(self, request: CreateSession, model: str | None) -> None:
        """Make sure of what a session names, and of the default where its first run comes at once.

        Raises:
            ModelNotFound: there is no such model.
        """
        begins_at_once = request.mode in HIDDEN_MODES and request.mode != file_queries.MODE
        if request.model is not None:
            await self._model_names.check(model)
        elif begins_at_once:
            await self._model_names.check(model, path=None)

    async def _default_model(self, user_id: str) -> str | None:
        """The model of a session that names none, in whatever dialect it is opened.

        None where the settings leave it to what the providers offer: then each
        reply takes the first of those (the worker's registry).
        """
        chosen = await self._database.read(preferred_model, user_id)
        return chosen or self._settings.first_choice

    async def update_session(self, request: UpdateSession) -> SessionAnswer:
        changes = {f: getattr(request, f) for f in CHANGEABLE}
        changes = {f: value for f, value in changes.items() if value is not msgspec.UNSET}
        address = session_address(request.user_id, request.session_id)

        async def attempt(state: SessionState) -> None:
            if not changes:
                return
            if isinstance(model := changes.get("model"), str) and model != state.session.model:
                await self._model_names.check(model)
            fact = SessionUpdated(at=ids.now(), **changes)
            await self._log.append(address, fact, state.session.last_seq)

        await self._log.decide(request.user_id, request.session_id, attempt)
        return await self._answer(request.user_id, request.session_id)

    async def delete_session(self, request: DeleteSession) -> Done:
        address = session_address(request.user_id, request.session_id)

        async def attempt(state: SessionState) -> int:
            going = [] if state.session.importing else state.unfinished
            for run in going:
                await self._log.cancel(address._replace(run=run.id), "the session was deleted")
            if going:  # the cancels went on the chain
                state = await self._log.state(request.user_id, request.session_id)
            fact = SessionDeleted(at=ids.now(), mode=state.session.mode)
            return await self._log.append(address, fact, state.session.last_seq)

        # an import that was given up is deleted like any session
        seq = await self._log.decide(request.user_id, request.session_id, attempt, importing=True)
        await self._applied.wait_for(seq)
        await self._eraser.erase(request.session_id)
        return Done(seq=seq)

    def was_deleted(self, session_id: str) -> bool:
        """Whether this id was a session's that is deleted for good."""
        return session_id in self._archive.deleted

    async def _answer(self, user_id: str, session_id: str) -> SessionAnswer:
        hot = await self._log.hot(user_id, session_id)
        return SessionAnswer(session=hot.session().record(), seq=hot.seq)
