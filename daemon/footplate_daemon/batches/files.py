"""Stored files: their bytes under their ids in one folder, private; their rows in the database.

A file is known only once all of it is on the disk. What a crash leaves of others is removed at the next
start.
"""

import asyncio
import logging
import os
import secrets
import string
import time
from collections.abc import Callable
from pathlib import Path

from footplate_daemon.batches.output import sync_folder
from footplate_daemon.errors import FootplateError, TooLarge, Unavailable
from footplate_daemon.store.files import FileStore, Owner, StoredFile
from footplate_daemon.wire_batches import BATCH_FILE_BYTES, BATCH_FILE_SECONDS, FILE_BYTES, FilePurpose

logger = logging.getLogger(__name__)

UPLOADS = "upload-"
"""What the names of files begin with that are still being received."""
SWEEP_SECONDS = 600.0
MIB = 1024 * 1024
_ALPHABET = string.ascii_letters + string.digits


class Files:
    """Keeps the files of everybody."""

    def __init__(self, folder: Path, store: FileStore, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.store = store
        self._clock = clock

    async def open(self) -> None:
        """Make the folder, and remove what nobody knows of; raise `Unavailable` if it cannot be used."""
        needed = await self.store.needed()
        try:
            await asyncio.to_thread(self._tidy, needed)
        except OSError as error:
            raise Unavailable(
                f"The folder {self.folder} cannot be used: {error.strerror or error}.",
                hint="Mend its permissions, or set FOOTPLATE_HOME to another folder.",
            ) from error

    def _tidy(self, needed: frozenset[str]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for entry in self.folder.iterdir():
            if entry.name not in needed and entry.name.startswith((UPLOADS, "file-")):
                entry.unlink(missing_ok=True)

    def path(self, file_id: str) -> Path:
        """Give where a file's bytes are."""
        return self.folder / file_id

    def receive(self) -> "Upload":
        """Begin to take in a file; use the result as a context manager, from a thread where it writes."""
        return Upload(self)

    async def keep(
        self,
        upload: "Upload",
        owner: Owner,
        purpose: FilePurpose,
        filename: str,
        expires_seconds: int | None = None,
    ) -> StoredFile:
        """Make a file known that has been received whole."""
        now = int(self._clock())
        if expires_seconds is None and purpose is FilePurpose.BATCH:
            expires_seconds = BATCH_FILE_SECONDS
        expires_at = None if expires_seconds is None else now + expires_seconds
        file = StoredFile(new_file_id(), owner, purpose.value, filename, upload.size, now, expires_at)
        await asyncio.to_thread(upload.finish, self.path(file.id))
        await self.store.add(file)
        return file

    async def get(self, file_id: str, owner: Owner) -> StoredFile:
        """Give what is known of a file; raise `NotFound`."""
        return await self.store.get(file_id, owner, self._clock())

    async def page(
        self, owner: Owner, *, purpose: str | None, limit: int, after: str | None, oldest_first: bool
    ) -> list[StoredFile]:
        """Give files in the order in which they were made; raise `NotFound` for an `after` that is none."""
        return await self.store.page(
            owner, self._clock(), purpose=purpose, limit=limit, after=after, oldest_first=oldest_first
        )

    async def delete(self, file_id: str, owner: Owner) -> None:
        """Delete a file; raise `NotFound`. A batch under way keeps the bytes until it has ended."""
        if await self.store.delete(file_id, owner, self._clock()):
            await asyncio.to_thread(self.path(file_id).unlink, missing_ok=True)

    async def forget_unneeded(self, *file_ids: str) -> None:
        """Remove the bytes of files that nobody knows of any more."""
        needed = await self.store.needed()
        for file_id in file_ids:
            if file_id not in needed:
                await asyncio.to_thread(self.path(file_id).unlink, missing_ok=True)

    async def sweep(self) -> None:
        """Delete files whose time is over, now and then, until cancelled."""
        while True:
            try:
                for file_id in await self.store.expire(self._clock()):
                    await asyncio.to_thread(self.path(file_id).unlink, missing_ok=True)
            except FootplateError as error:
                logger.warning("expired files are not deleted", extra={"cause": error.message})
            await asyncio.sleep(SWEEP_SECONDS)


class Upload:
    """A file that is being received. Blocks: write from a thread."""

    def __init__(self, files: Files) -> None:
        self.size = 0
        self._path = files.folder / f"{UPLOADS}{secrets.token_hex(12)}"
        self._descriptor: int | None = None
        self._is_kept = False

    def write(self, data: bytes, limit: int) -> None:
        """Take in more; raise `TooLarge` as soon as it is more than the limit, `Unavailable` without room."""
        if self.size + len(data) > limit:
            raise too_large(limit)
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise _no_room(self._path.parent, error) from error
        self.size += len(data)

    def finish(self, path: Path) -> None:
        """Have all of it on the disk, under its name."""
        self.write(b"", FILE_BYTES)
        assert self._descriptor is not None  # noqa: S101 - it was just opened
        try:
            os.fsync(self._descriptor)
            self._path.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            raise _no_room(path.parent, error) from error
        self._is_kept = True

    def close(self) -> None:
        """Let go of it; unless it is finished, nothing is left."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if not self._is_kept:
            self._path.unlink(missing_ok=True)


def new_file_id() -> str:
    """Make a file's id, as OpenAI's look."""
    return "file-" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def limit_of(purpose: FilePurpose) -> int:
    """Give how large a file may be."""
    return BATCH_FILE_BYTES if purpose is FilePurpose.BATCH else FILE_BYTES


def too_large(limit: int) -> TooLarge:
    """Give the error for a file that is."""
    return TooLarge(
        f"The file is larger than {limit // MIB} MiB.",
        param="file",
        hint="Split it: footplate batch split FILE" if limit == BATCH_FILE_BYTES else "Send a smaller file.",
    )


def _no_room(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"The file cannot be stored in {folder}: {error.strerror or error}.",
        hint="Free disk space and send it again.",
    )
