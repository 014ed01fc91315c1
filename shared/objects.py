"""The object store FILES, in NATS's own layout: uploads, and fields too large for a fact.

An object is its chunks, and then a meta message that names them: without it there
is no object, so whatever breaks off in the middle was never there.

No fact is over 256 KiB: its largest fields go to FILES as JSON, and the fact
holds ``{"$file": "<session>/<sha256>"}`` in their place.  The archive puts
them back before it keeps a fact, so only hot facts ever point here.
"""

import asyncio
import base64
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from shared.bus import FRAME, ApiError, Bus, BusError, NoAnswer, Stored
from shared.ids import new_id
from shared.log import get_logger
from shared.streams import FILES
from shared.subjects import parse

log = get_logger()

CHUNK = 128 * 1024
IN_FLIGHT = 4
"""Chunks of one writer that are not acknowledged yet."""
ABANDONED = 3600.0
"""Seconds after which chunks without a meta message belong to nobody any more."""
_AT_ONCE = 8
"""Chunks that are read ahead: 1 MiB."""
_RETRY = 1.0
_MARK = b'"$file"'


class _Info(msgspec.Struct):
    """An object's meta message, as every NATS client writes it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str


class _Pointer(msgspec.Struct, frozen=True):
    """What stands in a fact for a field that lies in FILES."""

    file: str = msgspec.field(name="$file")


class NotKept(BusError):
    """FILES refused a fact's large field, so the fact could not be appended."""


class ObjectMissing(Exception):
    """FILES does not hold the object, or not whole."""


# -- large fields -------------------------------------------------------------


def is_packed(data: bytes) -> bool:
    """Whether the fact ``data`` may point to FILES (cheap; a quotation may look alike)."""
    return _MARK in data


async def pack(bus: Bus, subject: str, data: bytes) -> bytes:
    """The fact ``data`` with its largest fields moved to FILES until it is small enough.

    Raises:
        NoAnswer: a field is not known to be stored.
        NotKept: FILES refused one.
    """
    fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    size = len(data)
    for name in sorted(fields, key=lambda n: len(fields[n]), reverse=True):
        if size <= FRAME:
            break
        raw = bytes(fields[name])
        key = f"{parse(subject).session}/{hashlib.sha256(raw).hexdigest()}"
        try:
            # Once is enough, and a second copy's chunks would be out of reach of an erase.
            if await bus.head(FILES, _meta(key)) is None:
                await put(bus, key, raw)
        except ApiError as error:
            raise NotKept(f"{name}, {len(raw)} bytes: {error}") from error
        fields[name] = _Pointer(key)
        size -= len(raw)
    return msgspec.json.encode(fields)


async def unpack(bus: Bus, data: bytes) -> bytes:
    """The fact ``data`` whole again.

    Raises:
        ObjectMissing: a field is gone, as after a hard delete.
        NoAnswer, ApiError: FILES could not be asked.
    """
    if not is_packed(data):
        return data
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for name, key in _pointers(fields):
        fields[name] = msgspec.Raw(await get(bus, key))
    return msgspec.json.encode(fields)


async def erase_refs(bus: Bus, data: bytes) -> None:
    """Erase from FILES whatever the fact ``data`` points to."""
    if is_packed(data):
        for _, key in _pointers(msgspec.json.decode(data, type=dict[str, msgspec.Raw])):
            await erase(bus, key)


def _pointers(fields: dict[str, msgspec.Raw]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, raw in fields.items():
        # A person's text is a JSON string, so it can never be taken for a pointer.
        if bytes(memoryview(raw)[:20]).lstrip().startswith(b'{"$file":'):
            found.append((name, msgspec.json.decode(raw, type=_Pointer).file))
    return found


# -- objects ------------------------------------------------------------------


class Writer:
    """Writes one object chunk by chunk, and knows its size and digest on the way."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.size = 0
        self._bus = bus
        self._nuid = new_id()
        self._digest = hashlib.sha256()
        self._rest = bytearray()
        self._chunks = 0
        self._in_flight: deque[asyncio.Task[int]] = deque()
        self._stored: list[int] = []
        self._unsure = False
        """Whether a chunk may be stored whose acknowledgement was lost."""
        self._named = False

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add ``data``; waits while too many chunks are on their way.

        Raises:
            NoAnswer, ApiError: an earlier chunk is not known to be stored.
        """
        self.size += len(data)
        self._digest.update(data)
        self._rest += data
        while len(self._rest) >= CHUNK:
            await self._send(bytes(self._rest[:CHUNK]))
            del self._rest[:CHUNK]

    async def _send(self, chunk: bytes) -> None:
        while len(self._in_flight) >= IN_FLIGHT:
            await self._acknowledged()
        subject = f"$O.FILES.C.{self._nuid}"
        self._in_flight.append(asyncio.create_task(self._bus.store(subject, chunk)))
        self._chunks += 1

    async def _acknowledged(self) -> None:
        await asyncio.wait([self._in_flight[0]])  # a cancel of the writer is none of the chunk's
        try:
            seq = self._in_flight.popleft().result()
        except BusError:
            self._unsure = True
            raise
        if self._stored and seq < self._stored[-1]:
            raise NoAnswer("the chunks of an object were stored out of order")
        self._stored.append(seq)

    async def finish(self) -> None:
        """Make it an object: the last chunk, and once all are stored its meta message."""
        if self._rest:
            await self._send(bytes(self._rest))
            self._rest.clear()
        while self._in_flight:
            await self._acknowledged()
        digest = base64.urlsafe_b64encode(self._digest.digest()).decode()
        info = _Info(self.name, "FILES", self._nuid, self.size, self._chunks, f"SHA-256={digest}")
        self._named = True
        await self._bus.store(_meta(self.name), msgspec.json.encode(info), rollup=True)

    async def undo(self) -> None:
        """Erase what was stored.

        Raises:
            NoAnswer, ApiError: not all of it could be erased.
        """
        stored = await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._stored += [seq for seq in stored if isinstance(seq, int)]
        self._unsure = self._unsure or any(isinstance(seq, BusError) for seq in stored)
        if self._named:  # it may be an object all the same
            meta = await self._bus.head(FILES, _meta(self.name))
            if meta is None or msgspec.json.decode(meta.data, type=_Info).nuid != self._nuid:
                return
            await erase_message(self._bus, FILES, meta.seq)
        for seq in self._stored:
            await erase_message(self._bus, FILES, seq)
        if self._unsure:
            await _erase_chunks(self._bus, self._nuid)

    async def undo_later(self) -> None:
        """Erase what was stored as soon as the bus is back."""
        while True:
            await self._bus.wait_connected()
            try:
                return await self.undo()
            except BusError as error:
                log.warning("object.undo_postponed", error=str(error))
                await asyncio.sleep(_RETRY)


@asynccontextmanager
async def writing(bus: Bus, name: str) -> AsyncGenerator[Writer]:
    """An object under ``name``, there when the block ends; if it fails, nothing is left of it.

    Raises:
        NoAnswer, ApiError: it is not known to be stored.
    """
    writer = Writer(bus, name)
    try:
        yield writer
        await writer.finish()
    except BaseException:
        # A client that hangs up cancels this task, perhaps more than once.
        await asyncio.shield(asyncio.create_task(_undo(writer), name="object-undo"))
        raise


async def _undo(writer: Writer) -> None:
    try:
        await writer.undo()
    except BusError:
        undoing = asyncio.create_task(writer.undo_later(), name="object-undo-later")
        _undoing.add(undoing)
        undoing.add_done_callback(_undoing.discard)


_undoing: set[asyncio.Task[None]] = set()
"""What waits for the bus; if this process ends first, it is left to :func:`sweep`."""


async def put(bus: Bus, name: str, data: bytes) -> None:
    """Keep ``data`` under ``name``; it is there when this returns.

    Raises:
        NoAnswer, ApiError: it is not known to be stored.
    """
    async with writing(bus, name) as writer:
        await writer.write(data)


async def get(bus: Bus, name: str) -> bytes:
    """The object's bytes.

    Raises:
        ObjectMissing: there is no such object, or a part of it is gone.
        NoAnswer, ApiError: FILES could not be asked.
    """
    async with aclosing(reading(bus, name)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def reading(bus: Bus, name: str) -> AsyncGenerator[bytes]:
    """The object's bytes, a chunk at a time.

    Raises:
        ObjectMissing: there is no such object, or a part of it is gone.
        NoAnswer, ApiError: FILES could not be asked.
    """
    stored = await bus.head(FILES, _meta(name))
    if stored is None:
        raise ObjectMissing(name)
    info = msgspec.json.decode(stored.data, type=_Info)
    read = after = 0
    while read < info.chunks:
        found = await _next_chunks(bus, info.nuid, after)
        if not found:
            raise ObjectMissing(name)
        for chunk in found:
            yield chunk.data
        read += len(found)
        after = found[-1].seq


async def there(bus: Bus, name: str) -> bool:
    """Whether there is such an object.

    Raises:
        NoAnswer, ApiError: FILES could not be asked.
    """
    return await bus.head(FILES, _meta(name)) is not None


async def erase(bus: Bus, name: str) -> None:
    """Overwrite the object's bytes on disk; a missing object is no error."""
    stored = await bus.head(FILES, _meta(name))
    if stored is None:
        return
    info = msgspec.json.decode(stored.data, type=_Info)
    await _erase_chunks(bus, info.nuid)
    await erase_message(bus, FILES, stored.seq)


async def sweep(bus: Bus, older_than: float = ABANDONED) -> int:
    """Erase the chunks that killed writers left behind; answers how many objects' they were.

    Raises:
        NoAnswer, ApiError: FILES could not be asked.
    """
    # Chunks first, meta messages second: what is finished in between is seen as finished.
    query = {"subjects_filter": "$O.FILES.C.>"}
    info = await bus.api(f"STREAM.INFO.{FILES}", query)
    begun = {subject.rpartition(".")[2] for subject in info["state"].get("subjects") or ()}
    old = {nuid for nuid in begun if _age(nuid) > older_than}
    if not old:
        return 0
    old -= await _finished(bus)
    for nuid in old:
        await _erase_chunks(bus, nuid)
    if old:
        log.info("objects.swept", objects=len(old))
    return len(old)


async def _finished(bus: Bus) -> set[str]:
    """The chunks that a meta message names."""
    return {info.nuid for info in await _all(bus)}


async def older(bus: Bus, seconds: float) -> list[str]:
    """The names of the objects that were begun so long ago.

    Raises:
        NoAnswer, ApiError: FILES could not be asked.
    """
    return [info.name for info in await _all(bus) if _age(info.nuid) > seconds]


async def _all(bus: Bus) -> list[_Info]:
    found: list[_Info] = []
    after = 0
    while metas := await bus.read(FILES, "$O.FILES.M.>", after=after):
        for meta in metas:
            try:
                found.append(msgspec.json.decode(meta.data, type=_Info))
            except msgspec.DecodeError as error:  # not of our making: left alone
                log.warning("objects.meta_unreadable", seq=meta.seq, error=str(error))
        after = metas[-1].seq
    return found


def _age(nuid: str) -> float:
    """Seconds since its first chunk: a nuid of ours is a UUIDv7; another's is left alone."""
    try:
        made = UUID(nuid)
    except ValueError:
        return 0.0
    return time.time() - (made.int >> 80) / 1000 if made.version == 7 else 0.0


async def _next_chunks(bus: Bus, nuid: str, after: int) -> list[Stored]:
    subject = f"$O.FILES.C.{nuid}"
    found = await bus.read(FILES, subject, after=after, limit=_AT_ONCE)
    if not found:  # the replica that answered may be behind: only the leader can say so
        found = await bus.facts_after(FILES, subject, after)
    return found


async def _erase_chunks(bus: Bus, nuid: str) -> None:
    after = 0
    while found := await _next_chunks(bus, nuid, after):
        for chunk in found:
            await erase_message(bus, FILES, chunk.seq)
        after = found[-1].seq


async def erase_message(bus: Bus, stream: str, seq: int) -> None:
    """Overwrite one message of a stream on disk (a purge would leave its bytes there)."""
    try:
        await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": False})
    except ApiError as error:
        if error.err_code not in (10043, 10037, 10057):  # it is gone already
            raise


def _meta(name: str) -> str:
    return f"$O.FILES.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
