"""A data folder belongs to one process at a time: a lock that the kernel gives back when the holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from schemas.errors import AlreadyRunningError, EmbeddedError


class FolderLock:
    """An exclusive lock on a folder, kept in a file of it together with the holder's process id."""

    def __init__(self, folder: Path, *, name: str, holder: str) -> None:
        self._path = folder / name
        self._holder = holder
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunningError naming the holder's process id."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="ascii")
        except OSError as error:
            raise EmbeddedError(
                f"cannot use the data folder: {error.strerror}",
                where=str(self._path.parent),
                fix="Choose a folder of your own with METERING_DATA_DIR",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read(32).strip() or "unknown"
            file.close()
            raise AlreadyRunningError(
                f"{self._holder} already runs on this folder (process {pid})",
                where=str(self._path.parent),
                fix="Use the running one, stop it, or choose another folder with METERING_DATA_DIR",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
