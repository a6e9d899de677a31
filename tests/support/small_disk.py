"""A disk that can be full: a small file system of its own where one may be mounted, else limits on files."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
FILLER: Final = ".filler"


class SmallDisk:
    """A folder on a file system of `size_bytes`.

    Where mounting is not allowed, `full` has every write of a process that makes a file longer fail instead, which
    to the process is the same but for the number of the error.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        self.is_mounted = (
            shutil.which("mount") is not None and not subprocess.run(mount, capture_output=True, check=False).returncode
        )

    def close(self) -> None:
        """Take the file system away with all that is on it."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @contextmanager
    def full(self, pid: int = 0) -> Iterator[None]:
        """Not a byte is left while the body runs; `pid` is who must feel it, this process unless given."""
        if self.is_mounted:
            filler = self.folder / FILLER
            self._fill(filler)
            try:
                yield
            finally:
                filler.unlink()
        else:
            _, hard = before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            try:
                yield
            finally:
                if Path(f"/proc/{pid or 'self'}").exists():
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    @staticmethod
    def _fill(filler: Path) -> None:
        handle = os.open(filler, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while True:
                os.write(handle, bytes(CHUNK_BYTES))
        except OSError:
            return  # full, as it is meant to be
        finally:
            os.close(handle)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A small disk for the length of the block."""
    disk = SmallDisk(folder, size_bytes)
    try:
        yield disk
    finally:
        disk.close()
